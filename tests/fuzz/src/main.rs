// SPDX-License-Identifier: GPL-2.0

//! libFuzzer on the target that `FUZZ_TARGET` names; the arguments are libFuzzer's.

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
