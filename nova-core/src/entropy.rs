//! Randomness as a collaborator: production draws it from the operating system, tests from a seed.

use std::sync::atomic::{AtomicU64, Ordering};

use uuid::{Builder, Uuid};

/// A source of random bytes. Implementations that make secrets must be cryptographically strong.
pub trait Entropy: Send + Sync {
    /// Fills the whole buffer.
    fn fill(&self, buffer: &mut [u8]);

    /// A number below 2^64, each equally likely.
    fn next_u64(&self) -> u64 {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    /// A random (version 4) UUID, RFC 9562.
    fn uuid(&self) -> Uuid {
        let mut bytes = [0; 16];
        self.fill(&mut bytes);
        Builder::from_random_bytes(bytes).into_uuid()
    }

    /// A number below `bound`; 0 where `bound` is 0. The bias is below 2^-32 for bounds below 2^32.
    fn below(&self, bound: u64) -> u64 {
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// Lower-case hexadecimal text of `bytes` random bytes: ids in Keystone's form are 16 bytes.
    fn hex(&self, bytes: usize) -> String {
        let mut buffer = vec![0; bytes];
        self.fill(&mut buffer);
        buffer.iter().map(|b| format!("{b:02x}")).collect()
    }
}

/// Repeatable numbers from a seed (splitmix64, Steele and others 2014): for tests and simulations, never for secrets.
#[derive(Debug)]
pub struct SeededEntropy {
    state: AtomicU64,
}

impl SeededEntropy {
    /// The same seed gives the same sequence.
    pub fn new(seed: u64) -> Self {
        Self { state: AtomicU64::new(seed) }
    }
}

impl Entropy for SeededEntropy {
    fn fill(&self, buffer: &mut [u8]) {
        for chunk in buffer.chunks_mut(8) {
            let bytes = self.next_u64().to_le_bytes();
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
    }

    fn next_u64(&self) -> u64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut z = self.state.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_one_sequence() {
        let (a, b) = (SeededEntropy::new(7), SeededEntropy::new(7));
        assert_eq!((a.uuid(), a.hex(16)), (b.uuid(), b.hex(16)));
        assert_ne!(a.uuid(), SeededEntropy::new(8).uuid());
    }

    #[test]
    fn below_stays_below() {
        let entropy = SeededEntropy::new(1);
        assert!((0..1000).all(|_| entropy.below(3) < 3));
        assert_eq!(entropy.below(0), 0);
    }
}
