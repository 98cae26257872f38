//! Room in a pool: what there is, what was promised, and what may still be.

/// What a pool has of room. All sizes in bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PoolSpace {
    /// All of it.
    pub total: u64,
    /// What nobody takes now, whoever the others are.
    pub free: u64,
    /// What volumes and snapshots may come to take: the sum of their sizes.
    pub provisioned: u64,
    /// How much may be promised of each byte there is (`max_over_subscription_ratio`); 1 where room is taken at once.
    pub over_subscription_ratio: f64,
    /// How many per cent of the whole nobody gets (`reserved_percentage`).
    pub reserved_percentage: u8,
}

/// Why a pool has no room for so much.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum SpaceRefusal {
    /// All that may be promised was.
    #[error("{asked} bytes on top of {provisioned} are more than the {most} that may be promised")]
    Promised {
        /// What was asked for.
        asked: u64,
        /// What is promised already.
        provisioned: u64,
        /// What may be.
        most: u64,
    },
    /// Nothing is left beyond the reserve.
    #[error("{free} bytes are free, of which {reserved} are reserved")]
    Full {
        /// What is free.
        free: u64,
        /// What of it nobody gets.
        reserved: u64,
    },
}

impl PoolSpace {
    /// What nobody gets.
    pub fn reserved(&self) -> u64 {
        (u128::from(self.total) * u128::from(self.reserved_percentage.min(100)) / 100) as u64
    }

    /// What may be promised at most.
    pub fn promisable(&self) -> u64 {
        let base = self.total.saturating_sub(self.reserved());
        // Floating point saturates at both ends of u64.
        (base as f64 * self.over_subscription_ratio.max(0.0)) as u64
    }

    /// Whether so much more may be promised (Cinder's `CapacityFilter`): never more than the whole times the ratio, and nothing
    /// at all once only the reserve is free.
    pub fn admits(&self, asked: u64) -> Result<(), SpaceRefusal> {
        let (provisioned, most) = (self.provisioned, self.promisable());
        if provisioned.checked_add(asked).is_none_or(|sum| sum > most) {
            return Err(SpaceRefusal::Promised { asked, provisioned, most });
        }
        let (free, reserved) = (self.free, self.reserved());
        if asked > 0 && free <= reserved {
            return Err(SpaceRefusal::Full { free, reserved });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GB: u64 = 1 << 30;

    fn pool(provisioned: u64, free: u64) -> PoolSpace {
        PoolSpace { total: 100 * GB, free, provisioned, over_subscription_ratio: 2.0, reserved_percentage: 10 }
    }

    #[test]
    fn the_ratio_is_of_what_is_not_reserved() {
        assert_eq!(pool(0, 100 * GB).promisable(), 180 * GB);
        pool(170 * GB, 50 * GB).admits(10 * GB).unwrap();
        let refused = pool(170 * GB, 50 * GB).admits(10 * GB + 1).unwrap_err();
        assert!(matches!(refused, SpaceRefusal::Promised { .. }), "{refused}");
        let refused = pool(0, 10 * GB).admits(1).unwrap_err();
        assert_eq!(refused, SpaceRefusal::Full { free: 10 * GB, reserved: 10 * GB });
        pool(0, 0).admits(0).unwrap();
    }

    #[test]
    fn numbers_at_the_end_do_not_wrap() {
        let all = PoolSpace { total: u64::MAX, free: u64::MAX, over_subscription_ratio: 1e9, ..pool(u64::MAX, 0) };
        all.admits(1).unwrap_err();
        let none = PoolSpace { over_subscription_ratio: -1.0, reserved_percentage: 255, ..pool(0, GB) };
        assert_eq!(none.promisable(), 0);
        none.admits(1).unwrap_err();
    }

    proptest! {
        /// However requests come, what is promised never exceeds whole × ratio.
        #[test]
        fn never_over(total in 0..1u64 << 50, ratio in 0.0..20.0f64, reserved in 0..=100u8,
                      asked in prop::collection::vec(0..1u64 << 45, 0..64)) {
            let mut pool = PoolSpace { total, free: total, provisioned: 0, over_subscription_ratio: ratio,
                                       reserved_percentage: reserved };
            for one in asked {
                if pool.admits(one).is_ok() {
                    pool.provisioned += one;
                }
            }
            prop_assert!(pool.provisioned as f64 <= total as f64 * ratio + 1.0);
        }
    }
}
