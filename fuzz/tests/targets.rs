//! Every target over many inputs, made from good ones by a seed.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use nova_core::entropy::SeededEntropy;
use nova_fuzz::{TARGETS, mutate};

/// A failure prints its input.
fn many(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).expect("it is in the list");
    let (seeds, dice) = ((target.seeds)(), SeededEntropy::new(8));
    for seed in &seeds {
        (target.run)(seed);
    }
    for number in 0..target.inputs {
        let input = mutate::one(&seeds, &dice);
        let run = std::panic::catch_unwind(|| (target.run)(&input));
        assert!(run.is_ok(), "{name}, input {number}: {}", input.escape_ascii());
    }
}

#[test]
fn clients_that_begin() {
    many("console_begin");
}

#[test]
fn clients_of_open_consoles() {
    many("console_client");
}

#[test]
fn requests() {
    many("console_request");
}

#[test]
fn channels_of_spice() {
    many("console_spice");
}

#[test]
fn screens() {
    many("console_screen");
}
