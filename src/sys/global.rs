// SPDX-License-Identifier: GPL-2.0

//! A value that there is one of, for as long as the module is loaded.

use core::ptr::null_mut;

use kernel::{
    prelude::*,
    sync::atomic::{
        ordering::{
            Acquire,
            Release, //
        },
        Atomic, //
    }, //
};

/// Where the value is found.
pub(crate) struct Global<T: Send + Sync + 'static>(Atomic<*mut T>);

impl<T: Send + Sync + 'static> Global<T> {
    /// Nothing yet.
    pub(crate) const fn new() -> Self {
        Self(Atomic::new(null_mut()))
    }

    /// Makes `value` the one. The module does this before it registers the driver, and
    /// drops what it gets after it has unregistered it.
    pub(crate) fn install(&'static self, value: Pin<KBox<T>>) -> Installed<T> {
        self.0.store((&raw const *value).cast_mut(), Release);
        Installed {
            place: self,
            value: Some(value),
        }
    }

    /// The value. Only for what the driver calls.
    pub(crate) fn get(&self) -> &T {
        // SAFETY: The module installs the value before it registers the driver and
        // takes it away after it has unregistered it; all callers are called by that
        // driver.
        unsafe { &*self.0.load(Acquire) }
    }
}

/// The value is there until this is dropped.
pub(crate) struct Installed<T: Send + Sync + 'static> {
    place: &'static Global<T>,
    value: Option<Pin<KBox<T>>>,
}

impl<T: Send + Sync + 'static> Drop for Installed<T> {
    fn drop(&mut self) {
        self.place.0.store(null_mut(), Release);
        drop(self.value.take());
    }
}
