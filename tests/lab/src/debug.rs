// SPDX-License-Identifier: GPL-2.0

//! What is different on the debug kernel (tests/debug): which scenarios run, and what the kernel
//! must not have found by the end of a host's life.

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;

use crate::check;
use crate::host::Host;
use crate::logs::Mark;

/// Judged by a clock, which on this kernel measures its own checks.
const CLOCKED: &[&str] = &[
    "rate",
    "deep-ring",
    "live-change",
    "no-timer",
    "throttled-end",
    "rates",
    "rates-one-disk",
    "rates-eight-disks",
    "rates-eight-disks-fast",
    "rates-eight-disks-queues",
    "rates-eight-disks-queues-fast",
    "latency",
    "config-file",
    "peers",
    "suspended",
    "suspended-queues",
    "held",
    "held-barrier",
    "held-map",
    "given-up",
];

/// Ask for what this kernel is built without: cgroups, dm-cache, the test of the freezer, kprobes, a
/// second processor that can go.
const LACKING: &[&str] = &[
    "cgroup",
    "dm-cache",
    "freezer",
    "offline",
    "transactions",
    "grace-periods",
];

/// Ask for what only this kernel has.
const ONLY_HERE: &[&str] = &["alloc-faults"];

/// xen-blkback takes part, and is reported itself: it unmaps grants with a work item on its stack.
const WITH_BLKBACK: &[&str] = &[
    "same-keys",
    "takeover",
    "takeover-queues",
    "rebound-moved",
    "rebound-moved-one",
];

/// These run once more on the host with two processors: locks are only fought over there.
const ALSO_PARALLEL: &[&str] = &["neighbour", "cycles"];

/// kmemleak takes nothing for a leak that is younger than 5 s, nor anything that changed since its
/// last scan. In hosts that count instructions idle seconds cost nothing.
const SCAN: &str = "sleep 6 && echo scan >/sys/kernel/debug/kmemleak && \
                    echo scan >/sys/kernel/debug/kmemleak && cat /sys/kernel/debug/kmemleak";
const SCAN_SECONDS: u64 = 300;

/// Whether a run of everything has this scenario.
pub fn has(scenario: &str) -> bool {
    ![CLOCKED, WITH_BLKBACK, LACKING]
        .iter()
        .any(|list| list.contains(&scenario))
}

/// Whether it needs this kernel.
pub fn is_only_here(scenario: &str) -> bool {
    ONLY_HERE.contains(&scenario)
}

/// Whether it also runs on two processors.
pub fn has_twice(scenario: &str) -> bool {
    ALSO_PARALLEL.contains(&scenario)
}

/// The last thing on a host: takes the module out and asks the kernel what it has found.
pub fn end_of_life(host: &Host<'_>) -> Result<()> {
    // With the module there, its functions still have names.
    no_leaks(host).context("with the module loaded")?;
    host.ok(&format!("rmmod {}", host.lab.backend.module()))?;
    no_leaks(host).context("after rmmod")?;
    // Lockdep watches nothing any more once it has complained, or run out of memory.
    let stats = host.ok("cat /proc/lockdep_stats")?;
    check::equal("lockdep's debug_locks", debug_locks(&stats), Some(1))?;
    Mark::everything().search(host)
}

fn no_leaks(host: &Host<'_>) -> Result<()> {
    let report = host.ok_within(SCAN, SCAN_SECONDS)?;
    let found = leaks(&report);
    match found.first() {
        None => Ok(()),
        Some(first) => bail!("kmemleak found {} leaks, the first:\n{first}", found.len()),
    }
}

/// kmemleak's report, one text for each object.
fn leaks(report: &str) -> Vec<String> {
    const HEAD: &str = "unreferenced object";
    report
        .split(HEAD)
        .skip(1)
        .map(|object| format!("{HEAD}{object}"))
        .collect()
}

fn debug_locks(stats: &str) -> Option<u32> {
    stats.lines().find_map(|line| {
        line.trim()
            .strip_prefix("debug_locks:")?
            .trim()
            .parse()
            .ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaks_are_split() {
        let report = "unreferenced object 0xffff888004a3c000 (size 64):\n  comm \"xenwatch\"\n\
                      unreferenced object 0xffff888004a3c040 (size 64):\n  comm \"xl\"\n";
        let found = leaks(report);
        assert_eq!(found.len(), 2);
        assert!(found[1].ends_with("comm \"xl\"\n"), "{found:?}");
        assert!(leaks("").is_empty());
    }

    #[test]
    fn the_state_of_lockdep_is_read() {
        let stats = " max locking depth: 15\n debug_locks:                             1\n";
        assert_eq!(debug_locks(stats), Some(1));
        assert_eq!(debug_locks(" lock-classes: 5\n"), None);
    }

    #[test]
    fn the_lists_name_scenarios() {
        for name in [CLOCKED, WITH_BLKBACK, ALSO_PARALLEL].concat() {
            assert!(crate::scenarios::all().any(|s| s.name == name), "{name}");
        }
    }
}
