//! The targets under libFuzzer. Which one: `NOVA_FUZZ_TARGET`. `dev/fuzz` builds and runs this.
#![no_main]
#![allow(clippy::panic, reason = "a target that does not exist cannot run")]

use std::sync::OnceLock;

use nova_fuzz::{TARGETS, Target};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| (target().run)(bytes));

fn target() -> &'static Target {
    static TARGET: OnceLock<Target> = OnceLock::new();
    TARGET.get_or_init(|| {
        let name = std::env::var("NOVA_FUZZ_TARGET").unwrap_or_default();
        let found = TARGETS.into_iter().find(|target| target.name == name);
        found.unwrap_or_else(|| panic!("NOVA_FUZZ_TARGET is none of {:?}", TARGETS.map(|target| target.name)))
    })
}
