//! Inputs from good ones, by a seed.

use nova_core::entropy::Entropy;

/// Longest input.
const LONGEST: usize = 8 << 10;
/// Bytes at which code decides something.
const EDGES: [u8; 12] = [0, 1, 2, 0x7d, 0x7e, 0x7f, 0x80, 0x81, 0x88, 0xfe, 0xff, b'\n'];

/// One of `seeds`, changed in one to six places.
pub fn one(seeds: &[Vec<u8>], dice: &dyn Entropy) -> Vec<u8> {
    let mut input = pick(seeds, dice).to_vec();
    for _ in 0..=below(dice, 5) {
        change(&mut input, seeds, dice);
    }
    input.truncate(LONGEST);
    input
}

fn change(input: &mut Vec<u8>, seeds: &[Vec<u8>], dice: &dyn Entropy) {
    let at = below(dice, input.len());
    match below(dice, 7) {
        0 => set(input, at, byte(dice)),
        1 => set(input, at, EDGES.get(below(dice, EDGES.len())).copied().unwrap_or_default()),
        2 => input.insert(at, byte(dice)),
        3 => input.truncate(at),
        4 => {
            // A part once more.
            let part = part_of(input, dice).to_vec();
            input.splice(at..at, part);
        }
        5 => {
            // A part of another.
            let part = part_of(pick(seeds, dice), dice).to_vec();
            input.splice(at..at, part);
        }
        _ => {
            let end = at + below(dice, 9).min(input.len() - at);
            input.drain(at..end);
        }
    }
}

fn set(input: &mut [u8], at: usize, to: u8) {
    if let Some(byte) = input.get_mut(at) {
        *byte = to;
    }
}

fn part_of<'a>(bytes: &'a [u8], dice: &dyn Entropy) -> &'a [u8] {
    let from = below(dice, bytes.len());
    let length = below(dice, 65).min(bytes.len() - from);
    bytes.get(from..from + length).unwrap_or_default()
}

fn pick<'a>(seeds: &'a [Vec<u8>], dice: &dyn Entropy) -> &'a [u8] {
    seeds.get(below(dice, seeds.len())).map(Vec::as_slice).unwrap_or_default()
}

fn byte(dice: &dyn Entropy) -> u8 {
    u8::try_from(below(dice, 256)).unwrap_or_default()
}

/// Below `bound`; zero if that is zero.
fn below(dice: &dyn Entropy, bound: usize) -> usize {
    usize::try_from(dice.below((bound as u64).max(1))).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use nova_core::entropy::SeededEntropy;

    use super::*;

    #[test]
    fn the_same_seed_makes_the_same_inputs_and_they_differ() {
        let seeds = [b"RFB 003.008\n".to_vec(), Vec::new()];
        let make = |seed| {
            let dice = SeededEntropy::new(seed);
            (0..200).map(|_| one(&seeds, &dice)).collect::<Vec<_>>()
        };
        assert_eq!(make(1), make(1));
        assert_ne!(make(1), make(2));
        assert!(make(1).iter().collect::<BTreeSet<_>>().len() > 100);
    }
}
