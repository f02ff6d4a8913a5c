// SPDX-License-Identifier: GPL-2.0

//! Safe wrappers over C APIs that the `kernel` crate does not have yet and that
//! have nothing to do with Xen. Written to move upstream; with `xenbus` the only
//! room that contains `unsafe`.
//!
//! | file | wraps |
//! |---|---|
//! | [`bdev`] | opening a block device by number, what it can do |
//! | [`bio`] | sending requests to it, plugging |
//! | [`thread`] | a thread that is rung for |
//! | [`post`] | a letter box without a lock |
//! | [`timer`] | a one-shot hrtimer that is re-armed in place |
//! | [`queue`] | the module's own workqueues |
//! | [`params`] | module parameters |
//! | [`global`] | what there is one of |
//! | [`trace`] | tracepoints |
//! | [`rounds`] | one slow round over all disks, budgets of domains |
//! | [`sysfs`] | attribute groups of a device |
//! | [`module_ref`] | a reference to this module |

pub(crate) mod bdev;
pub(crate) mod bio;
pub(crate) mod global;
mod helpers;
pub(crate) mod module_ref;
pub(crate) mod params;
pub(crate) mod post;
pub(crate) mod queue;
pub(crate) mod rounds;
pub(crate) mod sysfs;
pub(crate) mod thread;
pub(crate) mod timer;
pub(crate) mod trace;
