// SPDX-License-Identifier: GPL-2.0

//! Token buckets: the meaning of a limit, which ring may consume requests now, and how
//! long the other rings wait.
//!
//! This folder has no lock, no clock and no timer. The callers hold a lock, pass the time
//! in nanoseconds of CLOCK_MONOTONIC, and carry out each [`timer_action::TimerAction`].
//!
//! | file | holds |
//! |---|---|
//! | [`limits`] | the meaning of the xenstore keys of a limit |
//! | [`bucket`] | token arithmetic |
//! | [`fifo`] | the order of the members that wait |
//! | [`token_queue`] | a bucket and the queue of members that wait for its tokens |
//! | [`meter`] | the counters of a limit |
//! | [`cap`] | the limit that all disks of one guest share |
//! | [`admission`] | the limit of one disk: its buckets, its queue, and the cap of its guest |
//! | [`timer_action`] | what the owner of the timer has to do |
//! | [`view`] | the state of a limit, for sysfs and xenstore |

pub mod admission;
pub mod bucket;
pub mod cap;
pub mod fifo;
pub mod limits;
pub mod meter;
pub mod timer_action;
pub mod token_queue;
pub mod view;
