// SPDX-License-Identifier: GPL-2.0

//! Values that exist while the module is loaded, one of each kind.
//!
//! The module installs the value when it is loaded. Callbacks that get no pointer to the module's
//! data look it up here.

use core::ptr::null_mut;

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
        Arc,
        ArcBorrow, //
    }, //
};

use super::compat::synchronize_rcu;

/// A static variable for a value.
///
/// # Invariants
///
/// The pointer is null, or came from [`Arc::into_raw`] and owns a reference. [`Installed`] gives
/// that reference up only after it has cleared the pointer and an RCU grace period has passed.
pub(crate) struct Global<T: Send + Sync + 'static>(Atomic<*mut T>);

impl<T: Send + Sync + 'static> Global<T> {
    /// Creates a variable without a value.
    pub(crate) const fn new() -> Self {
        // INVARIANT: The pointer is null.
        Self(Atomic::new(null_mut()))
    }

    /// Installs `value`. The variable has the value until the returned object is dropped.
    ///
    /// # Errors
    ///
    /// `EBUSY` if the variable has a value already.
    pub(crate) fn install(&'static self, value: Arc<T>) -> Result<Installed<T>> {
        let raw = Arc::as_ptr(&value).cast_mut();
        // INVARIANT: On success the pointer takes over the reference of `value`.
        if self.0.cmpxchg(null_mut(), raw, Full).is_err() {
            return Err(EBUSY);
        }
        // This ends `value` without giving its reference up. It returns `raw`.
        let _ = Arc::into_raw(value);
        Ok(Installed(self))
    }

    /// Returns a reference to the value, or `None` if there is none.
    ///
    /// Context: any.
    pub(crate) fn get(&self) -> Option<Arc<T>> {
        let _rcu = rcu::read_lock();
        let raw = self.0.load(Acquire);
        if raw.is_null() {
            return None;
        }
        // SAFETY: By the type invariant the pointer came from `Arc::into_raw` and owns a reference.
        // That reference is not given up before a grace period has passed, which `_rcu` prevents.
        Some(unsafe { ArcBorrow::from_raw(raw) }.into())
    }
}

/// Keeps a value in a [`Global`].
///
/// Drop removes the value from the variable and sleeps. References from [`Global::get`] stay valid.
pub(crate) struct Installed<T: Send + Sync + 'static>(&'static Global<T>);

impl<T: Send + Sync + 'static> Drop for Installed<T> {
    fn drop(&mut self) {
        let raw = self.0 .0.xchg(null_mut(), Full);
        // A reader may have loaded the pointer and not taken its own reference yet.
        synchronize_rcu();
        // SAFETY: `install` has stored a pointer from `Arc::into_raw`, and only this drop clears
        // it. By the type invariant the pointer owned a reference, which is given up here.
        drop(unsafe { Arc::from_raw(raw) });
    }
}
