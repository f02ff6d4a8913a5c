// SPDX-License-Identifier: GPL-2.0

//! A spinlock that stays one on PREEMPT_RT, for what hard interrupts do in a few instructions.
//!
//! C header: [`include/linux/spinlock.h`](srctree/include/linux/spinlock.h)

use core::cell::UnsafeCell;

use kernel::{
    prelude::*,
    types::Opaque, //
};

use super::bindings;

/// A value behind a raw spinlock that disables interrupts.
#[pin_data]
pub(crate) struct RawSpinLock<T> {
    #[pin]
    lock: Opaque<bindings::raw_spinlock_t>,
    value: UnsafeCell<T>,
}

// SAFETY: The value is `Send`, and the lock is not bound to a thread.
unsafe impl<T: Send> Send for RawSpinLock<T> {}
// SAFETY: The lock gives access to the value to one thread at a time. The value is `Send`.
unsafe impl<T: Send> Sync for RawSpinLock<T> {}

impl<T> RawSpinLock<T> {
    /// A lock around `value`. `name` is what lockdep calls it.
    pub(crate) fn new(value: T, name: &'static CStr) -> impl PinInit<Self> {
        pin_init!(Self {
            lock <- Opaque::ffi_init(move |lock| {
                // SAFETY: `lock` is valid for writes and pinned, and the name is static.
                unsafe { bindings::xbk_raw_lock_init(lock, name.as_char_ptr()) }
            }),
            value: UnsafeCell::new(value),
        })
    }

    /// Runs `f` with the value. `f` does not sleep, and takes no time: interrupts are off.
    ///
    /// Context: any.
    pub(crate) fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        // SAFETY: `new` has initialised the lock, and `f` cannot take it again: it has no access to
        // the lock's value other than by its argument, and a caller that did would deadlock.
        let flags = unsafe { bindings::xbk_raw_lock(self.lock.get()) };
        // SAFETY: The lock is held, so no other reference to the value exists.
        let outcome = f(unsafe { &mut *self.value.get() });
        // SAFETY: The lock was taken above, and `flags` are what that returned.
        unsafe { bindings::xbk_raw_unlock(self.lock.get(), flags) };
        outcome
    }
}
