// SPDX-License-Identifier: GPL-2.0

//! Safe wrappers over C APIs that the `kernel` crate does not have yet and that have nothing to
//! do with Xen. They are written to move upstream. Only this folder and `xenbus` contain `unsafe`.
//!
//! The files know nothing of Xen, of the guests' disks or of limits, and use nothing else of this
//! module.
//!
//! | file | wraps |
//! |---|---|
//! | [`bdev`] | opening a block device by number, its properties |
//! | [`bio`] | submitting bios, plugging |
//! | [`kthread`] | a thread that runs a function each time it is woken |
//! | [`llist`] | a lock-free list |
//! | [`timer`] | a one-shot hrtimer that is re-armed in place |
//! | [`periodic`] | a timer that calls all registered objects once a second |
//! | [`workqueue`] | the module's workqueues |
//! | [`raw_lock`] | a raw spinlock, for hard interrupts |
//! | [`preempt`] | disabling preemption |
//! | [`params`] | module parameters |
//! | [`trace`] | tracepoints |
//! | [`compat`] | what differs between kernel releases |
//! | [`global`] | values that exist while the module is loaded |
//! | [`module_ref`] | a reference to this module |

pub(crate) mod bdev;
mod bindings;
pub(crate) mod bio;
pub(crate) mod compat;
pub(crate) mod global;
pub(crate) mod kthread;
pub(crate) mod llist;
pub(crate) mod module_ref;
pub(crate) mod params;
pub(crate) mod periodic;
pub(crate) mod preempt;
pub(crate) mod raw_lock;
pub(crate) mod timer;
pub(crate) mod trace;
pub(crate) mod workqueue;
