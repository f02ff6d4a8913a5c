// SPDX-License-Identifier: GPL-2.0

//! The module's own workqueues.
//!
//! The system's queues outlive a module's code; one's own can be waited for when
//! the module goes away. There are two: what a disk does may take as long as its device to
//! open; a discard may take minutes, and many of them must not keep other disks waiting.
//!
//! C header: [`include/linux/workqueue.h`](srctree/include/linux/workqueue.h)

use core::ptr::null_mut;

use kernel::{
    bindings,
    prelude::*,
    sync::atomic::{
        ordering::{
            Acquire,
            Release, //
        },
        Atomic, //
    },
    workqueue::Queue, //
};

static DISCARDS: Atomic<*mut bindings::workqueue_struct> = Atomic::new(null_mut());
static DISKS: Atomic<*mut bindings::workqueue_struct> = Atomic::new(null_mut());

/// The module's queues, from their creation to the end of the module.
///
/// Drop waits until every work item on them has run; it sleeps. It must be the
/// last thing the module drops.
pub(crate) struct ModuleQueues(());

impl ModuleQueues {
    /// Makes the queues. Called once, before anything can use them.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new() -> Result<Self> {
        // From here on drop destroys what was made.
        let queues = Self(());
        DISKS.store(make(c"rblkback-disk")?, Release);
        DISCARDS.store(make(c"rblkback-discard")?, Release);
        Ok(queues)
    }
}

fn make(name: &'static CStr) -> Result<*mut bindings::workqueue_struct> {
    let flags = bindings::wq_flags_WQ_UNBOUND | bindings::wq_flags_WQ_SYSFS;
    // SAFETY: The format takes exactly one string.
    let queue = unsafe {
        bindings::alloc_workqueue_noprof(c"%s".as_char_ptr(), flags, 0, name.as_char_ptr())
    };
    if queue.is_null() {
        return Err(ENOMEM);
    }
    Ok(queue)
}

impl Drop for ModuleQueues {
    fn drop(&mut self) {
        // A discard's last work may still queue a disk's, not the other way round.
        for queue in [&DISCARDS, &DISKS] {
            let queue = queue.load(Acquire);
            if !queue.is_null() {
                // SAFETY: Made in `make`. No work can be queued any more: every
                // device that could holds a reference to the module.
                unsafe { bindings::destroy_workqueue(queue) };
            }
        }
    }
}

/// Names whose work is being done, for `ps` and the kernel's reports of tasks that hang:
/// `kworker/u8:2+backend/vbd/7/51712`. To be called at the start of a work item; without
/// effect anywhere else. Does not sleep.
pub(crate) fn describe(owner: &CStr) {
    // SAFETY: The format takes exactly one string, which is copied.
    unsafe { bindings::set_worker_desc(c"%s".as_char_ptr(), owner.as_char_ptr()) };
}

/// For discards.
pub(crate) fn discards() -> &'static Queue {
    // SAFETY: The module makes the queues before it registers the driver and
    // destroys them as the last thing, and all callers are called by that driver.
    unsafe { Queue::from_raw(DISCARDS.load(Acquire)) }
}

/// For what disks do.
pub(crate) fn disks() -> &'static Queue {
    // SAFETY: As in `discards`.
    unsafe { Queue::from_raw(DISKS.load(Acquire)) }
}
