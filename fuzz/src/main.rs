//! libFuzzer's program for one target, which the variable `FUZZ_TARGET` names.

#![no_main]

use std::sync::LazyLock;

use fuzz::{TARGETS, Target};

static TARGET: LazyLock<&Target> = LazyLock::new(|| {
    let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
    TARGETS
        .iter()
        .find(|target| target.name == name)
        .unwrap_or_else(|| panic!("FUZZ_TARGET={name:?} is none of the targets"))
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| (TARGET.run)(data));
