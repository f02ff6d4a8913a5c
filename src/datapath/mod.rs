// SPDX-License-Identifier: GPL-2.0

//! The way of a request from the ring to the device and back.
//!
//! ```text
//!  event (irq) ----------+
//!  refill timer (irq) ---+--> Worker --> Ring::peek --> check --> admit --> map --> bio --> device
//!  end of I/O (irq) -----+      |           ^                                                |
//!                               |           | no token: the request stays there              |
//!                               v           |                                                |
//!                         qos::Gate --------+             Completions <-- end of I/O --------+
//!                                                              |
//!                              Ring::respond <-- unmap <-------+
//! ```
//!
//! What a ring needs of its disk is one struct and one trait, both in [`disk_context`]. The life of
//! a disk is not in here, nor is xenstore.
//!
//! | file | holds |
//! |---|---|
//! | [`worker`] | one ring: what its thread runs, how long it lives |
//! | [`ring_control`] | what other threads and interrupts tell that thread |
//! | [`engine`] | a run of the thread: collect, respond, consume, submit |
//! | [`ring`] | copying slots out, writing responses; all ring barriers |
//! | [`pending_request`] | one transfer, stage by stage |
//! | [`completions`] | its memory; the lists on which it comes back; responses from the end of I/O |
//! | [`request_pool`] | memory for requests |
//! | [`frame`] | what a request has of a frame that it needs |
//! | [`mapper`] | mapping and releasing frames, many at once |
//! | [`persistent_grants`] | frames that stay mapped |
//! | [`copier`] | frames that are copied |
//! | [`run_check`] | nothing is sent for a guest that has been suspended |
//! | [`write_barrier`] | holding the rings of a disk while a write barrier is on its way |
//! | [`discard_queue`] | discards, beside everything else |
//! | [`backing_device`] | the block device behind a disk |
//! | [`disk_context`] | what rings share of their disk, and what the disk hears of them |
//! | [`stats`] | the counters of `statistics/` |
//!
//! A bio is only made of an admitted [`pending_request::PendingRequest`], which needs a
//! [`Permit`](crate::qos::permit::Permit), which only the gate makes: nothing reaches the device
//! without a permit.

#![forbid(unsafe_code)]
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

pub(crate) mod backing_device;
mod completions;
mod copier;
mod discard_queue;
pub(crate) mod disk_context;
pub(crate) mod engine;
mod frame;
pub(crate) mod mapper;
mod pending_request;
mod persistent_grants;
mod request_pool;
pub(crate) mod ring;
mod ring_control;
mod run_check;
pub(crate) mod stats;
pub(crate) mod worker;
pub(crate) mod write_barrier;
