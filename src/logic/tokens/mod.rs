// SPDX-License-Identifier: GPL-2.0

//! Token buckets: what a limit means, who may go now, and who waits until when.
//!
//! Nothing in here has a lock, a clock or a timer: callers pass the time in and do what a
//! [`timer_action::TimerAction`] says.
//!
//! | file | holds |
//! |---|---|
//! | [`limits`] | what the administrator's keys mean |
//! | [`bucket`] | token arithmetic |
//! | [`fifo`] | who waits for tokens, and who is next |
//! | [`token_queue`] | a bucket and the queue before it |
//! | [`meter`] | what is counted of it |
//! | [`cap`] | the bucket that all disks of one guest share |
//! | [`admission`] | the limit of one disk: its buckets, its queue, its part of the cap |
//! | [`timer_action`] | what the owner of the timer has to do next |
//! | [`view`] | how a limit stands, for sysfs and xenstore |

pub mod admission;
pub mod bucket;
pub mod cap;
pub mod fifo;
pub mod limits;
pub mod meter;
pub mod timer_action;
pub mod token_queue;
pub mod view;
