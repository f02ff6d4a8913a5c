// SPDX-License-Identifier: GPL-2.0

//! Fuzz targets for the pure code of the module: what a guest writes into a ring or
//! into xenstore, and every order of events.
//!
//! A target takes any bytes and panics if a rule does not hold. It returns whether the
//! input got to what the target is about (a request that was let through, say): a target
//! that hardly ever gets there proves nothing, and tests/depth.rs sees it.
//!
//! | target | any | rule |
//! |---|---|---|
//! | [`slot`] | slot of either ABI | let through if and only if it lies on the disk and in its frames |
//! | [`indirect`] | frame of segments | the same |
//! | [`discard`] | slot | its pieces cover its range, in order and once |
//! | [`texts`] | text in xenstore | means what the standard library reads, or nothing |
//! | [`index`] | indices of a lying guest | no slot is lost, doubled or reused too early |
//! | [`lifecycle`] | order of states | Closed only when drained; comes to rest; can be left |
//! | [`grants`] | order of uses | the table is a map, and loses no room |
//! | [`barrier`] | order of rings | a barrier is alone on the disk, and goes in the end |

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

/// A target: its name and what it does with an input.
pub type Target = (&'static str, fn(&[u8]) -> bool);

/// All of them.
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

/// The target of that name.
pub fn target(name: &str) -> Option<Target> {
    TARGETS.iter().find(|target| target.0 == name).copied()
}
