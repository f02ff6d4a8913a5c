// SPDX-License-Identifier: GPL-2.0

//! The pure half of rblkback: the meaning of requests, ring indices, limits and
//! xenbus states.
//!
//! The code in this folder calls no kernel function, allocates no memory, reads no
//! clock, takes no lock and contains no `unsafe`. The same files are compiled into
//! the module and, as the crate `rblkback_logic` (tests/logic), into the host tests.
//! They use only `core` and `super::` paths, so that both builds work.
//!
//! Input from a guest is hostile. No function in this folder can panic, for any
//! input. The lints below, and the check that the module imports no
//! `core::panicking` symbol, enforce this.
//!
//! | file | holds |
//! |---|---|
//! | [`protocol`] | requests, ring slots, ring indices |
//! | [`tokens`] | limits, buckets, queues |
//! | [`ids`] | the types of ring and disk numbers, and how many there can be |
//! | [`domains`] | whose disks the driver serves |
//! | [`freshness`] | whether something was seen a moment ago |
//! | [`frame_budget`] | how many granted frames the requests of a ring may use |
//! | [`persistent`] | the table of persistent grants |
//! | [`barrier`] | when a write barrier may be submitted |
//! | [`number`] | parsing of numbers and text from xenstore |
//! | [`vdev`] | the name of a virtual device |
//! | [`lifecycle`] | the state machine of the xenbus handshake |

#![deny(unsafe_code)]
// The items are public for the crate `rblkback_logic`. In the module the folder is private.
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
pub mod domains;
pub mod frame_budget;
pub mod freshness;
pub mod ids;
pub mod lifecycle;
pub mod number;
pub mod persistent;
pub mod protocol;
pub mod tokens;
pub mod vdev;
