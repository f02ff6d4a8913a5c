// SPDX-License-Identifier: GPL-2.0

//! A value of which there is one while the module is loaded.
//!
//! The module installs the value when it is loaded. Code that the bus calls, and which gets no
//! pointer to the module's data, finds it here.

use core::{
    mem::ManuallyDrop,
    ptr::null_mut, //
};

use kernel::{
    prelude::*,
    sync::{
        atomic::{
            ordering::{
                Acquire,
                Full, //
            },
            Atomic, //
        },
        rcu,
        Arc, //
    }, //
};

/// The place where the value is found.
///
/// # Invariants
///
/// The pointer is null, or came from [`Arc::into_raw`] and stands for a reference that
/// [`Installed`] gives up only after it has cleared the pointer and waited for an RCU grace
/// period.
pub(crate) struct Global<T: Send + Sync + 'static>(Atomic<*mut T>);

impl<T: Send + Sync + 'static> Global<T> {
    /// A place without a value.
    pub(crate) const fn new() -> Self {
        // INVARIANT: The pointer is null.
        Self(Atomic::new(null_mut()))
    }

    /// Puts `value` here until the result is dropped. Context: process.
    ///
    /// # Errors
    ///
    /// `EBUSY` if there is a value already.
    pub(crate) fn install(&'static self, value: Arc<T>) -> Result<Installed<T>> {
        let raw = Arc::into_raw(value).cast_mut();
        // INVARIANT: The pointer stands for the reference that `into_raw` left to us.
        if self.0.cmpxchg(null_mut(), raw, Full).is_err() {
            // SAFETY: `into_raw` gave this pointer above, and it went nowhere.
            drop(unsafe { Arc::from_raw(raw) });
            return Err(EBUSY);
        }
        Ok(Installed(self))
    }

    /// The value, if there is one. Context: any.
    pub(crate) fn get(&self) -> Option<Arc<T>> {
        let _rcu = rcu::read_lock();
        let raw = self.0.load(Acquire);
        if raw.is_null() {
            return None;
        }
        // SAFETY: By the type invariant the pointer stands for a reference, which is not given up
        // before the grace period that `_rcu` holds up. `ManuallyDrop` leaves it where it is.
        let value = ManuallyDrop::new(unsafe { Arc::from_raw(raw) });
        Some(Arc::clone(&value))
    }
}

/// Keeps a value in its place. Drop takes it away and sleeps; who holds an [`Arc`] of the value
/// may keep it longer.
pub(crate) struct Installed<T: Send + Sync + 'static>(&'static Global<T>);

impl<T: Send + Sync + 'static> Drop for Installed<T> {
    fn drop(&mut self) {
        let raw = self.0 .0.xchg(null_mut(), Full);
        // A reader may have the pointer and no reference of its own yet.
        rcu::synchronize_rcu();
        // SAFETY: By the type invariant the pointer stands for a reference; `xchg` made it ours.
        drop(unsafe { Arc::from_raw(raw) });
    }
}
