// SPDX-License-Identifier: GPL-2.0

//! The way of a request from the ring to the disk and back.
//!
//! ```text
//!  event (irq) ----------+
//!  refill timer (irq) ---+--> Worker --> Ring::take --> check --> Job --> bio --> disk
//!  end of I/O (irq) -----+      |           ^                                      |
//!                               |           | no token: the request stays there    |
//!                               v           |                                      |
//!                             Gate ---------+          inbox <-- end of I/O -------+
//!                                                        |
//!                        Ring::answer <-- unmap <--------+
//! ```
//!
//! | file | does |
//! |---|---|
//! | [`worker`] | serves one ring: takes requests, collects answers; runs on the module's queue |
//! | [`ring`] | copies slots out, puts answers in; the only place with ring barriers |
//! | [`gate`] | hands out a [`gate::Pass`] per request, or makes the ring wait |
//! | [`job`] | one admitted request: map, submit, unmap |
//! | [`pool`] | room for jobs |
//! | [`stats`] | the counters of `statistics/` |
//!
//! A bio can only be made from a [`job::Job`], a job only from a [`gate::Pass`],
//! and a pass only by the gate: nothing reaches the disk ungated.

#![forbid(unsafe_code)]
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

pub(crate) mod gate;
pub(crate) mod job;
pub(crate) mod pool;
pub(crate) mod ring;
pub(crate) mod stats;
pub(crate) mod worker;
