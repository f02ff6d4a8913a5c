// SPDX-License-Identifier: GPL-2.0

//! The module's own workqueues.
//!
//! The system's queues outlive a module's code, so the module has queues of its own and waits
//! for them when it goes away.
//!
//! | queue | runs | why it is separate |
//! |---|---|---|
//! | [`DISKS`] | each disk's work item | opening a device may take as long as the device likes |
//! | [`DISCARDS`] | discards | one may take minutes; other disks must not wait for it |
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

/// A queue that exists while the module is loaded.
///
/// # Invariants
///
/// The pointer is null or a workqueue that [`ModuleQueues`] destroys only after it has cleared
/// the pointer and waited for an RCU grace period.
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

    /// Queues the work item of `owner`. Does nothing if the item is queued already: it has yet to
    /// look, and will see what was written before this call. Does nothing either if the module is
    /// on its way out. Context: any.
    pub(crate) fn enqueue<T>(&self, owner: Arc<T>)
    where
        Arc<T>: RawWorkItem<0, EnqueueOutput = Result<(), Arc<T>>> + Send + 'static,
    {
        let rcu = rcu::read_lock();
        let queue = self.0.load(Acquire);
        if queue.is_null() {
            return;
        }
        // SAFETY: By the type invariant the queue exists until the read lock is released.
        let left = unsafe { Queue::from_raw(queue) }.enqueue(owner);
        // The last reference may be among what is dropped here: not under the read lock.
        drop(rcu);
        drop(left);
    }

    fn create(&self, name: &CStr) -> Result {
        let flags = bindings::wq_flags_WQ_UNBOUND | bindings::wq_flags_WQ_SYSFS;
        // SAFETY: The format takes exactly one string.
        let queue = unsafe {
            bindings::alloc_workqueue_noprof(c"%s".as_char_ptr(), flags, 0, name.as_char_ptr())
        };
        if queue.is_null() {
            return Err(ENOMEM);
        }
        // INVARIANT: The queue was made just now, and only `destroy` ends it.
        self.0.store(queue, Release);
        Ok(())
    }

    /// Waits for every work item that is queued, then destroys the queue. Sleeps.
    fn destroy(&self) {
        let queue = self.0.xchg(null_mut(), Full);
        if !queue.is_null() {
            rcu::synchronize_rcu();
            // SAFETY: By the type invariant this was the last pointer to the queue.
            unsafe { bindings::destroy_workqueue(queue) };
        }
    }
}

/// Keeps the module's queues. Drop waits until every work item on them has run; it sleeps. The
/// module drops this last.
pub(crate) struct ModuleQueues(());

impl ModuleQueues {
    /// Creates the queues. The module calls this once, before it registers its driver. Sleeps.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new() -> Result<Self> {
        // From here on drop destroys what was created.
        let queues = Self(());
        DISKS.create(c"rblkback-disk")?;
        DISCARDS.create(c"rblkback-discard")?;
        Ok(queues)
    }
}

impl Drop for ModuleQueues {
    fn drop(&mut self) {
        // A discard's last run may still queue its disk's work item, not the other way round.
        DISCARDS.destroy();
        DISKS.destroy();
    }
}

/// Names the object whose work is being done, for `ps` and for the kernel's reports of hung
/// tasks: `kworker/u8:2+backend/vbd/7/51712`. A work item calls it when it begins; it has no
/// effect anywhere else. Does not sleep.
pub(crate) fn describe(owner: &CStr) {
    // SAFETY: The format takes exactly one string, which the function copies.
    unsafe { bindings::set_worker_desc(c"%s".as_char_ptr(), owner.as_char_ptr()) };
}
