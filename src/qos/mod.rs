// SPDX-License-Identifier: GPL-2.0

//! Who may do I/O now: the limits of disks and guests, with their locks and timers.
//!
//! ```text
//!  ring --admit--> Gate (a disk) --while its lock is held--> CapRef (of its guest)
//!   ^                |                                          |
//!   +----- wake -----+---------------- hrtimers ----------------+
//! ```
//!
//! The arithmetic is in [`crate::logic::tokens`]; this folder adds what needs the kernel. It knows
//! a ring only by its number and by [`gate::RingWaker`], and knows nothing of requests but how
//! many there are and how large.
//!
//! | file | holds |
//! |---|---|
//! | [`gate`] | the gate of a disk: its limit, lock and timer |
//! | [`permit`] | the right of a request to go to the device; only the gate makes one |
//! | [`guest`] | a guest: the cap and the budget of frames that its disks share |
//! | [`run_state`] | whether a guest runs, as Xen says |
//! | [`registry`] | all guests; a disk's slot in the table of its guest |
//!
//! Lock order: the list of guests (mutex), the state of a guest (spinlock, interrupts off), the
//! state of a gate (likewise). The locks of timers and run queues are taken under these.

#![forbid(unsafe_code)]
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

pub(crate) mod gate;
pub(crate) mod guest;
pub(crate) mod permit;
pub(crate) mod registry;
mod run_state;
