// SPDX-License-Identifier: GPL-2.0

//! Runs libFuzzer on the target that the environment variable `FUZZ_TARGET` names. The
//! arguments are those of libFuzzer.

#![no_main]

use std::sync::OnceLock;

use rblkback_fuzz::Target;

static TARGET: OnceLock<Target> = OnceLock::new();

fn find() -> Target {
    let name = std::env::var("FUZZ_TARGET").expect("FUZZ_TARGET names a target");
    rblkback_fuzz::target(&name).expect("a target of that name")
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let (_, run) = TARGET.get_or_init(find);
    run(data);
});
