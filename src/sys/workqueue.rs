// SPDX-License-Identifier: GPL-2.0

//! The module's workqueues.
//!
//! The system's workqueues outlive the module's code. The module has queues of its own, so that its
//! exit can wait for their work items.
//!
//! | queue | runs | reason for a queue of its own |
//! |---|---|---|
//! | [`DISKS`] | the work item of each disk | opening a device has no time limit |
//! | [`DISCARDS`] | discards | a discard may take minutes, and other disks must not wait for it |
//!
//! C header: [`include/linux/workqueue.h`](srctree/include/linux/workqueue.h)

use core::ptr::null_mut;

use kernel::{
    prelude::*,
    sync::{
        atomic::{
            ordering::{
                Acquire,
                Full,
                Release, //
            },
            Atomic, //
        },
        rcu,
        Arc, //
    },
    workqueue::{
        Queue,
        RawWorkItem, //
    }, //
};

use super::bindings;
use super::compat::synchronize_rcu;

/// A workqueue that exists while the module is loaded.
///
/// # Invariants
///
/// The pointer is null or points to a workqueue. [`ModuleQueues`] destroys the workqueue only after
/// it has cleared the pointer and an RCU grace period has passed.
pub(crate) struct ModuleQueue(Atomic<*mut bindings::workqueue_struct>);

/// The queue of the disks' work items.
pub(crate) static DISKS: ModuleQueue = ModuleQueue::new();
/// The queue of discards.
pub(crate) static DISCARDS: ModuleQueue = ModuleQueue::new();

impl ModuleQueue {
    const fn new() -> Self {
        // INVARIANT: The pointer is null.
        Self(Atomic::new(null_mut()))
    }

    /// Queues the work item of `owner`. The next run of the item sees all writes before this call.
    ///
    /// Does nothing if the item is queued already, because then it has not begun to run, or if the
    /// module is being unloaded. In these cases `owner` is dropped.
    ///
    /// Context: any in which `owner` may be dropped.
    pub(crate) fn enqueue<T>(&self, owner: Arc<T>)
    where
        Arc<T>: RawWorkItem<0, EnqueueOutput = Result<(), Arc<T>>> + Send + 'static,
    {
        let rcu = rcu::read_lock();
        let queue = self.0.load(Acquire);
        if queue.is_null() {
            return;
        }
        // SAFETY: By the type invariant the queue is not destroyed before a grace period has
        // passed, which `rcu` prevents.
        let rejected = unsafe { Queue::from_raw(queue) }.enqueue(owner);
        // This may be the last reference to the owner, whose drop may sleep.
        drop(rcu);
        drop(rejected);
    }

    /// Creates the queue. Sleeps.
    fn create(&self, name: &CStr) -> Result {
        let flags = bindings::wq_flags_WQ_UNBOUND
            | bindings::wq_flags_WQ_SYSFS
            // Devices are suspended while the system is frozen.
            | bindings::wq_flags_WQ_FREEZABLE;
        // SAFETY: The format takes exactly one string.
        let queue = unsafe {
            bindings::alloc_workqueue_noprof(c"%s".as_char_ptr(), flags, 0, name.as_char_ptr())
        };
        if queue.is_null() {
            return Err(ENOMEM);
        }
        // INVARIANT: The queue was created above, and only `destroy` destroys it.
        self.0.store(queue, Release);
        Ok(())
    }

    /// Waits for all queued work items, then destroys the queue. Sleeps.
    fn destroy(&self) {
        let queue = self.0.xchg(null_mut(), Full);
        if !queue.is_null() {
            synchronize_rcu();
            // SAFETY: `xchg` returned the queue to this caller only. All users of the pointer have
            // finished, because they hold an RCU read lock and a grace period has passed.
            unsafe { bindings::destroy_workqueue(queue) };
        }
    }
}

/// Keeps the module's queues.
///
/// Drop waits until all work items on the queues have run, destroys the queues, and sleeps. The
/// module drops this last.
pub(crate) struct ModuleQueues(());

impl ModuleQueues {
    /// Creates the queues. The module calls this once, before it registers its driver.
    ///
    /// Context: process; sleeps.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new() -> Result<Self> {
        // If `create` fails below, the drop of this destroys the queues that exist.
        let queues = Self(());
        DISKS.create(c"rblkback-disk")?;
        DISCARDS.create(c"rblkback-discard")?;
        Ok(queues)
    }
}

impl Drop for ModuleQueues {
    fn drop(&mut self) {
        // A discard may queue the work item of its disk. The work item of a disk queues no discard.
        DISCARDS.destroy();
        DISKS.destroy();
    }
}

/// Sets the description of the current worker to `owner`. `ps` and the kernel's reports of hung
/// tasks show it: `kworker/u8:2+backend/vbd/7/51712`.
///
/// Context: a work item, at its beginning; no effect in other contexts. Does not sleep.
pub(crate) fn describe(owner: &CStr) {
    // SAFETY: The format takes one string, and `owner` is NUL-terminated. The function copies it.
    unsafe { bindings::set_worker_desc(c"%s".as_char_ptr(), owner.as_char_ptr()) };
}
