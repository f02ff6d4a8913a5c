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
//! | file | knows |
//! |---|---|
//! | [`abi`] | where the fields of a ring slot lie, for each guest ABI |
//! | [`request`] | what a request must satisfy before it may touch the disk |
//! | [`erasure`] | the same for discards |
//! | [`frames`] | how many frames the requests of a ring may use |
//! | [`index`] | ring index arithmetic |
//! | [`persistent`] | which grants stay mapped |
//! | [`barrier`] | when a write barrier may go |
//! | [`limits`] | what the administrator's keys mean |
//! | [`number`] | numbers and text that somebody else wrote |
//! | [`bucket`] | token arithmetic |
//! | [`queue`] | who waits for tokens, and who is next |
//! | [`lane`] | a bucket and the queue before it |
//! | [`cap`] | what all disks of one guest share |
//! | [`meter`] | what is counted of it |
//! | [`view`] | how a limit stands, for whoever wants to see it |
//! | [`admission`] | all of that together: who may go now, who waits until when |
//! | [`trail`] | which transfers of a batch are neighbours on the disk |
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

pub mod abi;
pub mod admission;
pub mod barrier;
pub mod bucket;
pub mod cap;
pub mod erasure;
pub mod frames;
pub mod index;
pub mod lane;
pub mod lifecycle;
pub mod limits;
pub mod meter;
pub mod number;
pub mod persistent;
pub mod queue;
pub mod request;
pub mod trail;
pub mod view;
