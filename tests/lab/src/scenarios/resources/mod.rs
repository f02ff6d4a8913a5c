// SPDX-License-Identifier: GPL-2.0

//! Guests that use up what dom0 has: events, memory, grants, time; and what dom0 counts meanwhile.

mod claimed;
mod counters;
mod full;
mod notified;
mod paused;
mod storm;

use crate::scenario::Kind;
use crate::scenario::Scenario;
use crate::scenario::Script;

/// Not in a run of everything, for their length.
pub const AT_LENGTH: &[&str] = &[
    "paused",
    "event-storm",
    "channels-closed",
    "crowd-memory",
    "counters-read",
];

pub const ALL: &[Scenario] = &[
    plain(
        "notifications",
        &["D23"],
        "no more events than the frontend asks for, none is lost",
        notified::notified,
    ),
    plain(
        "paused",
        &["H59"],
        "a guest is paused for ten minutes with full rings: each request has one response",
        paused::paused,
    ),
    plain(
        "claimed-grants",
        &["H51"],
        "grants that are to stay mapped are more than may, and are taken back: none is left",
        claimed::claimed,
    ),
    plain(
        "event-storm",
        &["H40"],
        "events for nothing on all queues: dom0 answers, and counts them",
        storm::storm,
    ),
    plain(
        "channels-closed",
        &["H41"],
        "event channels are closed under the backend, and bound to its end again",
        storm::channels,
    ),
    plain(
        "crowd-memory",
        &["H38"],
        "a hundred disks of four large rings each: the guest's frames and dom0's memory have a bound",
        full::full,
    ),
    Scenario {
        kind: Kind::Parallel,
        ..plain(
            "counters-read",
            &["D22", "H45"],
            "all files of a disk are read while it reconnects and is bound: no counter goes down",
            counters::counters,
        )
    },
];

const fn plain(
    name: &'static str,
    rows: &'static [&'static str],
    about: &'static str,
    script: Script,
) -> Scenario {
    Scenario {
        name,
        rows,
        about,
        kind: Kind::Plain,
        any_backend: false,
        script,
    }
}

/// What the tests' frontend is told to do it in one layout only, unless the scenario is run at length.
fn layouts(at_length: bool) -> &'static str {
    if at_length { "" } else { "--layout x86_64-abi" }
}
