//! Blank disks on the host that a create request asks for (nova/compute/api.py, `_validate_bdm`): its flavor has room for them,
//! whatever they are called.

use nova_core::flavor::Flavor;
use nova_core::instance::LocalDisks;

use super::mapping::wrong;
use crate::api::ApiError;

/// What a request says of them; sizes may be left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct AskedDisks {
    /// GiB.
    pub(crate) ephemerals: Vec<Option<u64>>,
    /// MiB.
    pub(crate) swaps: Vec<Option<u64>>,
}

fn invalid(text: &str) -> ApiError {
    ApiError::BadRequest(format!("Block Device Mapping is Invalid: {text}"))
}

impl AskedDisks {
    /// What becomes of it with that flavor. `others`: disks on the host besides; `most`: of all of them, where there is a limit.
    ///
    /// # Errors
    /// 400 in Nova's words for what the flavor has no room for.
    pub(crate) fn of_flavor(
        &self,
        flavor: &Flavor,
        others: usize,
        most: Option<usize>,
    ) -> Result<LocalDisks, ApiError> {
        let ephemeral_gb: Vec<u64> = self.ephemerals.iter().map(|size| size.unwrap_or(flavor.ephemeral_gb)).collect();
        if ephemeral_gb.iter().fold(0, |sum: u64, size| sum.saturating_add(*size)) > flavor.ephemeral_gb {
            return Err(invalid(
                "Ephemeral disks requested are larger than the instance type allows. If no size is given in one block device \
                 mapping, flavor ephemeral size will be used.",
            ));
        }
        let swap_mb = match self.swaps.as_slice() {
            [] | [None] => None,
            [Some(size)] => Some(*size),
            _ => return Err(wrong("More than one swap drive requested.")),
        };
        if swap_mb.is_some_and(|size| size > flavor.swap_mb) {
            return Err(invalid("Swap drive requested is larger than instance type allows."));
        }
        let count = others + self.ephemerals.len() + self.swaps.len();
        if most.is_some_and(|most| count > most) {
            return Err(invalid("You specified more local devices than the limit allows"));
        }
        // Where the flavor has no ephemeral space, one of no size is none.
        Ok(LocalDisks { ephemeral_gb: ephemeral_gb.into_iter().filter(|size| *size > 0).collect(), swap_mb })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn flavor(ephemeral_gb: u64, swap_mb: u64) -> Flavor {
        serde_json::from_value(json!({"id": "1", "name": "f", "vcpus": 1, "memory_mb": 1, "root_gb": 1,
            "ephemeral_gb": ephemeral_gb, "swap_mb": swap_mb, "rxtx_factor": 1.0, "disabled": false, "is_public": true,
            "created_at": "2026-01-01T00:00:00Z"}))
        .unwrap()
    }

    fn asked(ephemerals: &[Option<u64>], swaps: &[Option<u64>]) -> AskedDisks {
        AskedDisks { ephemerals: ephemerals.to_vec(), swaps: swaps.to_vec() }
    }

    #[test]
    fn what_the_flavor_has_room_for() {
        let flavor = flavor(5, 512);
        for (asked, ephemeral_gb, swap_mb) in [
            (asked(&[], &[]), vec![], None),
            (asked(&[None], &[None]), vec![5], None),
            (asked(&[Some(2), Some(3)], &[Some(512)]), vec![2, 3], Some(512)),
            (asked(&[Some(1)], &[Some(100)]), vec![1], Some(100)),
        ] {
            let found = asked.of_flavor(&flavor, 0, Some(3)).unwrap();
            assert_eq!(found, LocalDisks { ephemeral_gb, swap_mb }, "{asked:?}");
        }
        for (asked, others, text) in [
            (asked(&[Some(6)], &[]), 0, "larger than the instance type allows"),
            (asked(&[None, Some(1)], &[]), 0, "larger than the instance type allows"),
            (asked(&[Some(u64::MAX), Some(2)], &[]), 0, "larger than the instance type allows"),
            (asked(&[], &[Some(513)]), 0, "Swap drive"),
            (asked(&[], &[Some(1), Some(1)]), 0, "More than one swap"),
            (asked(&[Some(1), Some(1)], &[Some(1)]), 1, "more local devices"),
        ] {
            let error = asked.of_flavor(&flavor, others, Some(3)).unwrap_err();
            assert!(matches!(&error, ApiError::BadRequest(found) if found.contains(text)), "{asked:?}: {error:?}");
            let unlimited = asked.of_flavor(&flavor, others, None);
            assert_eq!(unlimited.is_ok(), text.contains("local devices"), "{asked:?}");
        }
    }

    #[test]
    fn a_flavor_without_such_space() {
        assert_eq!(asked(&[None], &[None]).of_flavor(&flavor(0, 0), 1, Some(3)).unwrap(), LocalDisks::default());
        assert!(asked(&[Some(1)], &[]).of_flavor(&flavor(0, 0), 1, Some(3)).is_err());
    }
}
