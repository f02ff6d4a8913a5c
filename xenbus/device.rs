// SPDX-License-Identifier: GPL-2.0

//! A xenbus device, seen from its backend.
//!
//! C header: [`include/xen/xenbus.h`](srctree/include/xen/xenbus.h)

use core::{
    marker::PhantomData,
    ptr::NonNull, //
};

use kernel::{
    device as kdevice,
    fmt,
    prelude::*,
    str::CString,
    sync::aref::ARef,
    types::Opaque, //
};

use super::bindings;

/// The states a backend announces (`enum xenbus_state`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum XenbusState {
    /// Waits for the frontend's ring.
    InitWait,
    /// Serves the ring.
    Connected,
    /// On the way to Closed.
    Closing,
    /// Nothing is mapped.
    Closed,
}

/// A xenbus device.
///
/// # Invariants
///
/// Wraps a valid `struct xenbus_device` that the bus made; it lives as long as
/// its reference count is not zero. `nodename` and `otherend_id` never change
/// while it lives.
#[repr(transparent)]
pub(crate) struct Device<Ctx: kdevice::DeviceContext = kdevice::Normal>(
    Opaque<bindings::xenbus_device>,
    PhantomData<Ctx>,
);

impl<Ctx: kdevice::DeviceContext> Device<Ctx> {
    pub(super) fn as_raw(&self) -> *mut bindings::xenbus_device {
        self.0.get()
    }

    /// Our directory in xenstore.
    pub(crate) fn nodename(&self) -> &CStr {
        // SAFETY: By the type invariant, a NUL-terminated string that lives as
        // long as the device.
        unsafe { super::text((*self.as_raw()).nodename) }
    }

    /// The frontend's domain.
    pub(crate) fn frontend_id(&self) -> u16 {
        // SAFETY: By the type invariant. Domain ids have 15 bits; the field is an
        // int only because xenstore is text.
        unsafe { (*self.as_raw()).otherend_id as u16 }
    }

    /// Did the toolstack delete our directory? Then nobody can ever take this
    /// device over.
    pub(crate) fn is_vanished(&self) -> bool {
        // SAFETY: By the type invariant; a bool that only ever becomes true.
        unsafe { (&raw const (*self.as_raw()).vanished).read_volatile() }
    }

    /// Is Connected what was announced last? To be asked by whoever announces.
    pub(crate) fn is_connected(&self) -> bool {
        // SAFETY: By the type invariant; only `announce` and `fail` change it.
        let state = unsafe { (&raw const (*self.as_raw()).state).read_volatile() };
        state == bindings::xenbus_state_XenbusStateConnected
    }

    /// Announces `state`. Writes nothing if it is the state already, or if the
    /// toolstack has removed our directory. May sleep.
    pub(crate) fn announce(&self, state: XenbusState) {
        let state = match state {
            XenbusState::InitWait => bindings::xenbus_state_XenbusStateInitWait,
            XenbusState::Connected => bindings::xenbus_state_XenbusStateConnected,
            XenbusState::Closing => bindings::xenbus_state_XenbusStateClosing,
            XenbusState::Closed => bindings::xenbus_state_XenbusStateClosed,
        };
        // SAFETY: By the type invariant. A write that fails leaves an `error` key,
        // made by the C function; there is nothing more to do about it.
        unsafe { bindings::xenbus_switch_state(self.as_raw(), state) };
    }

    /// Does the toolstack want this device to stay? May sleep.
    pub(crate) fn is_online(&self) -> bool {
        // SAFETY: By the type invariant.
        unsafe { bindings::xenbus_dev_is_online(self.as_raw()) != 0 }
    }

    /// Leaves `text` and `error` in the log and in our `error` key. May sleep.
    pub(crate) fn report(&self, error: Error, text: fmt::Arguments<'_>) {
        let Ok(text) = CString::try_from_fmt(text) else {
            return;
        };
        // SAFETY: By the type invariant; the format takes exactly one string.
        unsafe {
            bindings::xenbus_dev_error(
                self.as_raw(),
                error.to_errno(),
                c"%s".as_char_ptr(),
                text.as_char_ptr(),
            )
        };
    }

    /// As [`Self::report`], then announces Closing: the device cannot be served.
    pub(crate) fn fail(&self, error: Error, text: fmt::Arguments<'_>) {
        let Ok(text) = CString::try_from_fmt(text) else {
            return self.announce(XenbusState::Closing);
        };
        // SAFETY: As in `report`.
        unsafe {
            bindings::xenbus_dev_fatal(
                self.as_raw(),
                error.to_errno(),
                c"%s".as_char_ptr(),
                text.as_char_ptr(),
            )
        };
    }
}

impl Device<kdevice::Bound> {
    /// The frontend's directory in xenstore, which exists only while the device is
    /// bound: hence a copy.
    pub(crate) fn frontend_path(&self) -> Result<CString> {
        // SAFETY: By the type invariant; the bus sets `otherend` before it calls
        // `probe` and frees it after `remove`.
        let path = unsafe { super::text((*self.as_raw()).otherend) };
        CString::try_from(path).map_err(|_| ENOMEM)
    }
}

// SAFETY: A transparent wrapper whose layout does not depend on the context.
kernel::impl_device_context_deref!(unsafe { Device });
kernel::impl_device_context_into_aref!(Device);

// SAFETY: `struct xenbus_device` embeds a `struct device`, which is reference
// counted.
unsafe impl kernel::sync::aref::AlwaysRefCounted for Device {
    fn inc_ref(&self) {
        // SAFETY: The shared reference shows that the count is not zero.
        unsafe { bindings::get_device(&raw mut (*self.as_raw()).dev) };
    }

    unsafe fn dec_ref(obj: NonNull<Self>) {
        let xdev: *mut bindings::xenbus_device = obj.cast().as_ptr();
        // SAFETY: The caller gives up a reference, so the count is not zero.
        unsafe { bindings::put_device(&raw mut (*xdev).dev) }
    }
}

impl<Ctx: kdevice::DeviceContext> AsRef<kdevice::Device<Ctx>> for Device<Ctx> {
    fn as_ref(&self) -> &kdevice::Device<Ctx> {
        // SAFETY: By the type invariant, a valid `struct device`.
        unsafe { kdevice::Device::from_raw(&raw mut (*self.as_raw()).dev) }
    }
}

// SAFETY: Reference counting works from every thread.
unsafe impl Send for Device {}

// SAFETY: All methods of `Device<Normal>` may run at the same time: they only read
// what never changes, or call C functions that lock for themselves.
unsafe impl Sync for Device {}

/// A device that outlives its driver's hold on it.
pub(crate) type DeviceRef = ARef<Device>;
