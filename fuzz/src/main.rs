//! The targets under libFuzzer. Which one: `NOVA_FUZZ_TARGET`; its good inputs go to the folder `NOVA_FUZZ_SEEDS`, for libFuzzer to
//! begin with. `dev/fuzz` builds and runs this.
#![no_main]
#![allow(clippy::panic, clippy::expect_used, reason = "a target that does not exist cannot run")]

use std::path::Path;
use std::sync::OnceLock;

use nova_fuzz::{TARGETS, Target};

libfuzzer_sys::fuzz_target!(init: write_seeds(), |bytes: &[u8]| (target().run)(bytes));

fn target() -> &'static Target {
    static TARGET: OnceLock<Target> = OnceLock::new();
    TARGET.get_or_init(|| {
        let name = std::env::var("NOVA_FUZZ_TARGET").unwrap_or_default();
        let found = TARGETS.into_iter().find(|target| target.name == name);
        found.unwrap_or_else(|| panic!("NOVA_FUZZ_TARGET is none of {:?}", TARGETS.map(|target| target.name)))
    })
}

fn write_seeds() {
    let Some(folder) = std::env::var_os("NOVA_FUZZ_SEEDS") else { return };
    for (number, seed) in (target().seeds)().into_iter().enumerate() {
        std::fs::write(Path::new(&folder).join(number.to_string()), seed).expect("a folder");
    }
}
