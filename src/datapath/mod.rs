// SPDX-License-Identifier: GPL-2.0

//! The way of a request from the ring to the disk and back.
//!
//! ```text
//!  event (irq) ----------+
//!  refill timer (irq) ---+--> Worker --> Ring::peek --> check --> Job --> map --> bio --> disk
//!  end of I/O (irq) -----+      |           ^                                              |
//!                               |           | no token: the request stays there            |
//!                               v           |                                              |
//!                             Gate ---------+                      Inbox <-- end of I/O ---+
//!                                                                    |
//!                                    Ring::answer <-- unmap <--------+
//! ```
//!
//! | file | does |
//! |---|---|
//! | [`worker`] | one ring: who wakes it, who stops it, how long it lives |
//! | [`engine`] | what it does when it runs: takes requests, collects answers |
//! | [`inbox`] | what comes back to it |
//! | [`ring`] | copies slots out, puts answers in; the only place with ring barriers |
//! | [`gate`] | hands out a [`gate::Pass`] per request, or makes the ring wait |
//! | [`guest`] | what all disks of one guest share: their cap |
//! | [`turnstile`] | where rings wait while a write barrier passes |
//! | [`job`] | one admitted transfer |
//! | [`held`] | what it has of a frame that it needs |
//! | [`mapper`] | brings its frames into reach, many at once |
//! | [`keeper`] | those that stay mapped |
//! | [`copier`] | those that are copied |
//! | [`eraser`] | discards, beside everything else |
//! | [`pool`] | room for jobs |
//! | [`stats`] | the counters of `statistics/` |
//!
//! A bio is only made from a [`job::Job`], which only a [`gate::Pass`] makes,
//! and a pass only by the gate: nothing reaches the disk ungated.

#![forbid(unsafe_code)]
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

mod copier;
pub(crate) mod engine;
mod eraser;
pub(crate) mod gate;
pub(crate) mod guest;
mod held;
mod inbox;
pub(crate) mod job;
mod keeper;
pub(crate) mod mapper;
mod pool;
pub(crate) mod ring;
pub(crate) mod stats;
pub(crate) mod turnstile;
pub(crate) mod worker;
