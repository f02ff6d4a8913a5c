// SPDX-License-Identifier: GPL-2.0

//! The pure half of rblkback: what a request, a ring index, a limit and a
//! handshake mean.
//!
//! Nothing in here touches the kernel, allocates, reads a clock or contains
//! `unsafe`. The same files are compiled into the module and, as the crate
//! `rblkback_logic` (tests/logic), into the host tests. They use only `core`
//! and `super::` paths so that both work.
//!
//! Whatever arrives here from a guest is hostile: no function in this room can
//! panic, whatever it is given. The lints below and the check that the module
//! imports no `core::panicking` symbol hold that.
//!
//! | file | holds |
//! |---|---|
//! | [`protocol`] | requests, ring slots, ring indices |
//! | [`tokens`] | limits, buckets, queues |
//! | [`ids`] | numbers of rings and disks |
//! | [`frame_budget`] | how many frames the requests of a ring may use |
//! | [`persistent`] | which grants stay mapped |
//! | [`barrier`] | when a write barrier may be submitted |
//! | [`number`] | numbers and text that somebody else wrote |
//! | [`lifecycle`] | what to do in which state of the handshake |

#![deny(unsafe_code)]
// Public where it is a crate of its own; the module sees a private room.
#![allow(unreachable_pub)]
#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic
    )
)]

pub mod barrier;
pub mod frame_budget;
pub mod ids;
pub mod lifecycle;
pub mod number;
pub mod persistent;
pub mod protocol;
pub mod tokens;
