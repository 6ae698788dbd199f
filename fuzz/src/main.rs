//! libFuzzer's program: it calls the target that `RINGMAIL_FUZZ_TARGET` names.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use ringmail_fuzz::{TARGETS, Target, target};

/// Names the target.
const VARIABLE: &str = "RINGMAIL_FUZZ_TARGET";

static CHOSEN: LazyLock<Target> = LazyLock::new(|| {
    let name = std::env::var(VARIABLE).unwrap_or_default();
    target(&name).unwrap_or_else(|| {
        let names: Vec<_> = TARGETS.iter().map(|(name, _)| *name).collect();
        eprintln!("{VARIABLE} is {name:?}: expected one of {}", names.join(", "));
        std::process::exit(2);
    })
});

fuzz_target!(|data: &[u8]| CHOSEN(data));
