// SPDX-License-Identifier: GPL-2.0

//! The module's own workqueue.
//!
//! The system's queues outlive a module's code; one's own can be waited for when
//! the module goes away. It may be used while memory is short: requests of a guest
//! must get through then, too.
//!
//! C header: [`include/linux/workqueue.h`](srctree/include/linux/workqueue.h)

use core::ptr::{
    null_mut,
    NonNull, //
};

use kernel::{
    bindings,
    prelude::*,
    sync::atomic::{
        ordering::Relaxed,
        Atomic, //
    },
    workqueue::Queue, //
};

/// Address of the queue; 0 before it was made.
static QUEUE: Atomic<usize> = Atomic::new(0);

/// The module's queue, from its creation to the end of the module.
///
/// Drop waits until every work item on it has run; it sleeps. It must be the last
/// thing the module drops.
pub(crate) struct ModuleQueue(NonNull<bindings::workqueue_struct>);

// SAFETY: The pointer is only used to destroy the queue, which any thread may do.
unsafe impl Send for ModuleQueue {}
// SAFETY: A shared `ModuleQueue` offers nothing.
unsafe impl Sync for ModuleQueue {}

impl ModuleQueue {
    /// Makes the queue. Called once, before anything can use it.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new() -> Result<Self> {
        let flags = bindings::wq_flags_WQ_UNBOUND
            | bindings::wq_flags_WQ_MEM_RECLAIM
            | bindings::wq_flags_WQ_SYSFS;
        // SAFETY: The format takes exactly one string.
        let queue = unsafe {
            bindings::alloc_workqueue_noprof(
                c"%s".as_char_ptr(),
                flags,
                0,
                c"rblkback".as_char_ptr(),
            )
        };
        let queue = NonNull::new(queue).ok_or(ENOMEM)?;
        QUEUE.store(queue.as_ptr().addr(), Relaxed);
        Ok(Self(queue))
    }
}

impl Drop for ModuleQueue {
    fn drop(&mut self) {
        // SAFETY: Made in `new`. No work can be queued any more: every device that
        // could holds a reference to the module.
        unsafe { bindings::destroy_workqueue(self.0.as_ptr()) };
    }
}

/// The module's queue.
pub(crate) fn get() -> &'static Queue {
    let queue: *mut bindings::workqueue_struct =
        null_mut::<bindings::workqueue_struct>().with_addr(QUEUE.load(Relaxed));
    // SAFETY: The module makes the queue before it registers the driver and destroys
    // it as the last thing, and all callers are called by that driver.
    unsafe { Queue::from_raw(queue) }
}
