// SPDX-License-Identifier: GPL-2.0

//! Fuzz targets for the pure code of the module: what a guest writes into a ring or
//! into xenstore, and any order of events.
//!
//! A target takes any bytes and panics if a rule is violated. It returns whether the input
//! reached the code that the target is for, for example a request that passes all checks. A
//! target that rarely gets there proves nothing; tests/depth.rs detects that.
//!
//! | target | any | rule |
//! |---|---|---|
//! | [`slot`] | slot of either ABI | passes if and only if it is within the disk and its frames |
//! | [`indirect`] | frame of segments | the same |
//! | [`discard`] | slot | its pieces cover its range, in order and once |
//! | [`texts`] | text in xenstore | means what the standard library parses, or nothing |
//! | [`index`] | indices that a guest publishes | no slot is lost, doubled or reused too early |
//! | [`lifecycle`] | order of states | Closed only when drained; the steps end; the device can be removed |
//! | [`grants`] | order of uses | the table behaves like a map, and loses no slot |
//! | [`barrier`] | order of rings | a barrier is alone in flight, and completes in the end |

#![forbid(unsafe_code)]

mod barrier;
mod discard;
mod disk;
mod grants;
mod index;
mod indirect;
mod input;
mod lifecycle;
mod slot;
mod texts;

/// A target: its name, and the function that runs it on an input.
pub type Target = (&'static str, fn(&[u8]) -> bool);

/// All targets.
pub const TARGETS: &[Target] = &[
    ("slot", slot::run),
    ("indirect", indirect::run),
    ("discard", discard::run),
    ("texts", texts::run),
    ("index", index::run),
    ("lifecycle", lifecycle::run),
    ("grants", grants::run),
    ("barrier", barrier::run),
];

/// The target named `name`.
pub fn target(name: &str) -> Option<Target> {
    TARGETS.iter().find(|target| target.0 == name).copied()
}
