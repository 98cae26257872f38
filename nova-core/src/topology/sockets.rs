//! How a guest's CPUs are laid out for it to see: sockets, cores and threads (nova/virt/hardware.py,
//! `get_best_cpu_topology`).

use serde::{Deserialize, Serialize};

use super::asked::Both;
use super::{AskedError, Properties};

/// What is no limit, and more than any guest has.
const NO_LIMIT: u32 = 65_536;

/// Sockets, cores of each and threads of each core.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CpuLayout {
    /// Sockets.
    pub sockets: u32,
    /// Cores of a socket.
    pub cores: u32,
    /// Threads of a core.
    pub threads: u32,
}

impl std::fmt::Display for CpuLayout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Nova's word for no wish.
        let or_none = |number: u32| if number == 0 { "-1".to_owned() } else { number.to_string() };
        let [sockets, cores, threads] = [self.sockets, self.cores, self.threads].map(or_none);
        write!(f, "(sockets={sockets}, cores={cores}, threads={threads})")
    }
}

impl CpuLayout {
    fn exceeds(self, most: Self) -> bool {
        self.sockets > most.sockets || self.cores > most.cores || self.threads > most.threads
    }
}

/// The layout that a flavor of so many CPUs asks for together with an image, where either asks for one; the guest's machine
/// decides otherwise.
///
/// An image may lower the flavor's limits (`cpu_max_sockets` and its kin), and its wishes replace the flavor's. Among the
/// layouts within the limits, the one wins that grants most wishes, then the one with the fewest threads, then the one with
/// the most sockets.
///
/// # Errors
/// Limits or wishes of the image beyond what it may ask for, limits that no layout keeps, and what is no number.
pub fn layout(flavor: &Properties, image: &Properties, vcpus: u32) -> Result<Option<CpuLayout>, AskedError> {
    let both = Both { flavor, image };
    let most = [both.numbers("cpu_max_sockets")?, both.numbers("cpu_max_cores")?, both.numbers("cpu_max_threads")?];
    let wish = [both.numbers("cpu_sockets")?, both.numbers("cpu_cores")?, both.numbers("cpu_threads")?];
    if most.iter().chain(&wish).all(|(flavor, image)| flavor.is_none() && image.is_none()) {
        return Ok(None);
    }
    let of = |[sockets, cores, threads]: [u32; 3]| CpuLayout { sockets, cores, threads };
    let flavor_most = of(most.map(|(flavor, _)| flavor.unwrap_or(NO_LIMIT)));
    let limit = of(most.map(|(flavor, image)| image.or(flavor).unwrap_or(NO_LIMIT)));
    if limit.exceeds(flavor_most) {
        return Err(AskedError::LayoutLimits { image: limit, flavor: flavor_most });
    }
    // Zero stands for no wish.
    let of_image = of(wish.map(|(_, image)| image.unwrap_or(0)));
    if of_image.exceeds(limit) {
        return Err(AskedError::LayoutBeyond { image: of_image, most: limit });
    }
    let of_flavor = Some(of(wish.map(|(flavor, _)| flavor.unwrap_or(0)))).filter(|wish| !wish.exceeds(limit));
    let asks_image = wish.iter().any(|(_, image)| image.is_some());
    let wanted = if asks_image { Some(of_image) } else { of_flavor };
    best(vcpus, limit, wanted.unwrap_or(CpuLayout { sockets: 0, cores: 0, threads: 0 })).map(Some)
}

fn best(vcpus: u32, limit: CpuLayout, wanted: CpuLayout) -> Result<CpuLayout, AskedError> {
    let factors = |n: u32, most: u32| (1..=n.min(most)).filter(move |factor| n.is_multiple_of(*factor));
    let all = factors(vcpus, limit.sockets).flat_map(|sockets| {
        factors(vcpus / sockets, limit.cores).map(move |cores| CpuLayout {
            sockets,
            cores,
            threads: vcpus / sockets / cores,
        })
    });
    let granted = |layout: &CpuLayout| {
        let wishes = [(wanted.sockets, layout.sockets), (wanted.cores, layout.cores), (wanted.threads, layout.threads)];
        wishes.iter().filter(|(wish, got)| wish == got).count()
    };
    let rank = |layout: &CpuLayout| (granted(layout), layout.sockets * layout.cores, layout.sockets);
    let found = all.filter(|layout| layout.threads <= limit.threads).max_by_key(rank);
    let most = |limit: u32| limit.min(vcpus);
    found.ok_or_else(|| AskedError::LayoutImpossible {
        sockets: most(limit.sockets),
        cores: most(limit.cores),
        threads: most(limit.threads),
        vcpus,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(vcpus: u32, specs: &[(&str, &str)]) -> Result<Option<(u32, u32, u32)>, String> {
        let mut both = (Properties::new(), Properties::new());
        for (name, value) in specs {
            let into = if name.contains(':') { &mut both.0 } else { &mut both.1 };
            into.insert((*name).to_owned(), (*value).to_owned());
        }
        let found = layout(&both.0, &both.1, vcpus).map_err(|e| e.to_string())?;
        Ok(found.map(|layout| (layout.sockets, layout.cores, layout.threads)))
    }

    #[test]
    fn wishes_are_granted_within_the_limits() {
        type Case<'a> = (u32, &'a [(&'a str, &'a str)], Option<(u32, u32, u32)>);
        let table: &[Case<'_>] = &[
            (4, &[], None),
            (8, &[("hw:cpu_sockets", "2")], Some((2, 4, 1))),
            (8, &[("hw:cpu_cores", "4")], Some((2, 4, 1))),
            (8, &[("hw:cpu_threads", "2")], Some((4, 1, 2))),
            (8, &[("hw:cpu_sockets", "2"), ("hw:cpu_threads", "2")], Some((2, 2, 2))),
            (8, &[("hw:cpu_max_sockets", "2")], Some((2, 4, 1))),
            (8, &[("hw:cpu_max_sockets", "2"), ("hw:cpu_max_cores", "2")], Some((2, 2, 2))),
            // One wish of the image replaces all of the flavor's.
            (8, &[("hw:cpu_sockets", "4"), ("hw_cpu_cores", "8")], Some((1, 8, 1))),
            // What can't be had is not insisted upon.
            (3, &[("hw:cpu_sockets", "2")], Some((3, 1, 1))),
            // Wishes of the flavor that the image's limits rule out are dropped, all of them.
            (8, &[("hw:cpu_sockets", "8"), ("hw:cpu_threads", "2"), ("hw_cpu_max_sockets", "4")], Some((4, 2, 1))),
            (1, &[("hw_cpu_sockets", "16")], Some((1, 1, 1))),
        ];
        for (vcpus, specs, expected) in table {
            assert_eq!(of(*vcpus, specs).as_ref(), Ok(expected), "{vcpus} {specs:?}");
        }
    }

    #[test]
    fn what_cannot_be_asked_for_is_refused() {
        for (specs, expected) in [
            (
                &[("hw:cpu_max_sockets", "2"), ("hw_cpu_max_sockets", "4")][..],
                "Image vCPU topology limits (sockets=4, cores=65536, threads=65536) exceeds the limits of the flavor \
                 (sockets=2, cores=65536, threads=65536)",
            ),
            (
                &[("hw:cpu_max_cores", "2"), ("hw_cpu_cores", "4")],
                "Image vCPU topology (sockets=-1, cores=4, threads=-1) exceeds the limits of the flavor or image \
                 (sockets=65536, cores=2, threads=65536)",
            ),
            (
                &[("hw:cpu_max_sockets", "1"), ("hw:cpu_max_cores", "2"), ("hw:cpu_max_threads", "1")],
                "Requested vCPU limits 1:2:1 are impossible to satisfy for vcpus count 4",
            ),
            (&[("hw:cpu_sockets", "two")], "The value of 'hw:cpu_sockets' must be a whole number, not 'two'"),
            (&[("hw_cpu_threads", "0")], "The value of 'hw_cpu_threads' must be a whole number, not '0'"),
        ] {
            assert_eq!(of(4, specs), Err(expected.to_owned()), "{specs:?}");
        }
    }
}
