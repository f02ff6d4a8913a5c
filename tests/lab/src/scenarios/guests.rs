// SPDX-License-Identifier: GPL-2.0

//! Which scenarios also run with guests that are not PV.

use crate::guest_type::GuestType;
use GuestType::Hvm;
use GuestType::Pvh;

/// What concerns the guest's side of a disk. To the module all guests look alike: what differs is in Xen
/// (grants, events, how memory is found) and in how a guest begins, moves and ends. So each of these
/// is there once for a PVH guest, and what an emulated computer changes for an HVM guest.
const RUNS: &[(&str, &[GuestType])] = &[
    ("attach", &[Pvh, Hvm]),
    ("integrity", &[Pvh, Hvm]),
    ("frontend-model", &[Pvh]),
    ("hostile-guest", &[Pvh]),
    ("rebind", &[Pvh, Hvm]),
    ("takeover", &[Pvh, Hvm]),
    ("takeover-queues", &[Pvh]),
    ("rate", &[Pvh]),
    ("live-change", &[Pvh]),
    ("vm-cap", &[Pvh]),
    ("throttled-end", &[Pvh, Hvm]),
    ("flushes", &[Pvh]),
    ("cycles", &[Pvh]),
    ("kills", &[Pvh, Hvm]),
    ("filesystem", &[Pvh]),
    ("resize", &[Pvh]),
    ("read-only", &[Pvh]),
    ("save-restore", &[Pvh, Hvm]),
    ("migrate", &[Pvh, Hvm]),
    ("migrations", &[Pvh, Hvm]),
    ("migrate-refused", &[Pvh, Hvm]),
    ("driver-domain", &[Pvh]),
    ("crash", &[Pvh]),
    ("reconnect", &[Pvh]),
    ("persistent", &[Pvh]),
    ("config-file", &[Pvh]),
    ("suspended", &[Pvh]),
    ("parallel-integrity", &[Pvh]),
    ("parallel-races", &[Pvh]),
];

/// Not in a run of everything. All that does I/O is here until it is known why a disk of a PVH guest stood still, see
/// Documentation/testing.rst.
pub const AT_LENGTH: &[&str] = &[
    "integrity@pvh",
    "takeover@pvh",
    "save-restore@pvh",
    "migrations@pvh",
    "migrate-refused@pvh",
    "persistent@pvh",
    "integrity@hvm",
    "frontend-model@pvh",
    "hostile-guest@pvh",
    "rebind@pvh",
    "rebind@hvm",
    "takeover@hvm",
    "takeover-queues@pvh",
    "rate@pvh",
    "live-change@pvh",
    "vm-cap@pvh",
    "throttled-end@pvh",
    "throttled-end@hvm",
    "flushes@pvh",
    "cycles@pvh",
    "kills@pvh",
    "kills@hvm",
    "filesystem@pvh",
    "resize@pvh",
    "read-only@pvh",
    "save-restore@hvm",
    "migrate@pvh",
    "migrate@hvm",
    "migrations@hvm",
    "migrate-refused@hvm",
    "driver-domain@pvh",
    "crash@pvh",
    "reconnect@pvh",
    "config-file@pvh",
    "suspended@pvh",
    "parallel-integrity@pvh",
    "parallel-races@pvh",
];

/// The guests with which a scenario also runs.
pub fn types(scenario: &str) -> impl Iterator<Item = GuestType> + use<> {
    let found = RUNS.iter().find(|(name, _)| *name == scenario);
    found.map_or(&[][..], |(_, types)| types).iter().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Documentation/testing.rst has the same table.
    #[test]
    fn the_list_is_documented() {
        let page = include_str!("../../../../Documentation/testing.rst");
        for (name, types) in RUNS {
            let mark = |of| if types.contains(&of) { "yes" } else { "--" };
            let row = [name, mark(Pvh), mark(Hvm)];
            let is_row = |line: &str| line.split_whitespace().eq(row);
            assert!(page.lines().any(is_row), "{row:?}");
        }
    }

    #[test]
    fn the_list_names_scenarios() {
        for (name, _) in RUNS {
            assert!(super::super::all().any(|s| s.name == *name), "{name}");
        }
        for name in AT_LENGTH {
            let (scenario, guests) = name.split_once('@').unwrap();
            let guests = GuestType::by_name(guests).unwrap();
            assert!(types(scenario).any(|t| t == guests), "{name}");
        }
    }
}
