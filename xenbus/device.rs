// SPDX-License-Identifier: GPL-2.0

//! Xenbus devices, as a backend driver uses them.
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
use super::store::transaction;
use super::store::DIRECT;

/// The states that a backend switches to (`enum xenbus_state`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum XenbusState {
    /// The backend waits for the frontend to publish its rings.
    InitWait,
    /// The backend serves the rings.
    Connected,
    /// The backend is disconnecting.
    Closing,
    /// The backend has unmapped the rings and all frames.
    Closed,
}

/// A xenbus device (`struct xenbus_device`).
///
/// # Invariants
///
/// The object is a valid `struct xenbus_device` that the bus created. It is freed when the
/// reference count of its `struct device` drops to zero, and `nodename` does not change before
/// that.
#[repr(transparent)]
pub(crate) struct Device<Ctx: kdevice::DeviceContext = kdevice::Normal>(
    Opaque<bindings::xenbus_device>,
    PhantomData<Ctx>,
);

impl<Ctx: kdevice::DeviceContext> Device<Ctx> {
    pub(super) fn as_raw(&self) -> *mut bindings::xenbus_device {
        self.0.get()
    }

    /// Returns the path of the backend's directory in xenstore, `backend/vbd/7/51712`.
    ///
    /// Context: any.
    pub(crate) fn nodename(&self) -> &CStr {
        // SAFETY: By the type invariant the device is valid. The bus allocates `nodename`, a
        // NUL-terminated string, together with the device and never changes it.
        unsafe { super::text((*self.as_raw()).nodename) }
    }

    /// Returns the id of the frontend's domain.
    ///
    /// Context: any.
    pub(crate) fn frontend_id(&self) -> u16 {
        // SAFETY: By the type invariant the device is valid. The bus writes the field before each
        // `probe`, possibly while the holder of a reference reads it, hence the volatile read.
        let id = unsafe { (&raw const (*self.as_raw()).otherend_id).read_volatile() };
        // A domain id has 15 bits. The field is an `int` because the bus scans it from text.
        id as u16
    }

    /// Returns whether the toolstack has deleted the backend's directory. No driver can serve the
    /// device after that.
    ///
    /// Context: any.
    pub(crate) fn is_vanished(&self) -> bool {
        // SAFETY: By the type invariant the device is valid. The xenwatch thread may set the field
        // at any time, hence the volatile read.
        unsafe { (&raw const (*self.as_raw()).vanished).read_volatile() }
    }

    /// Returns whether the last announced state is Connected. Meaningful only to the thread that
    /// announces the states.
    pub(crate) fn is_connected(&self) -> bool {
        // SAFETY: By the type invariant the device is valid. Another thread may change the field in
        // `announce` or `fail`, hence the volatile read.
        let state = unsafe { (&raw const (*self.as_raw()).state).read_volatile() };
        state == bindings::xenbus_state_XenbusStateConnected
    }

    /// Writes `state` to the key `state`. Writes nothing if that is the state already, or if the
    /// toolstack has deleted the backend's directory.
    ///
    /// `xenbus_switch_state` is not used, because it announces Closing when xenstored is busy, and a
    /// frontend that is connected would lose its disk for good.
    ///
    /// Context: process; sleeps. Only one thread at a time may call this for a device.
    ///
    /// # Errors
    ///
    /// xenstored's error; then nothing is written, and the caller may try again.
    pub(crate) fn announce(&self, state: XenbusState) -> Result {
        let state = match state {
            XenbusState::InitWait => bindings::xenbus_state_XenbusStateInitWait,
            XenbusState::Connected => bindings::xenbus_state_XenbusStateConnected,
            XenbusState::Closing => bindings::xenbus_state_XenbusStateClosing,
            XenbusState::Closed => bindings::xenbus_state_XenbusStateClosed,
        };
        // SAFETY: By the type invariant the device is valid.
        let field = unsafe { &raw mut (*self.as_raw()).state };
        // SAFETY: As above. Another thread may change the field in `fail`, hence the volatile read.
        if unsafe { field.read_volatile() } == state {
            return Ok(());
        }
        let dir = self.nodename();
        let written = transaction(|store| {
            let exists = store.read(dir, c"state")?.is_some();
            if exists {
                store.write(dir, c"state", fmt!("{}", state))?;
            }
            Ok(exists)
        })?;
        if written {
            // SAFETY: As above.
            unsafe { field.write_volatile(state) };
        }
        Ok(())
    }

    /// Removes the `error` key of the device: what it says is not so any more.
    ///
    /// Context: process; sleeps.
    pub(crate) fn clear_error(&self) {
        // Only the key: its directory may have permissions that somebody has set. There may be no such
        // key, and without memory for its path it stays.
        if let Ok(dir) = CString::try_from_fmt(fmt!("error/{}", self.nodename())) {
            let _ = DIRECT.remove(&dir, c"error");
        }
    }

    /// Waits until the drivers that are being tried for the device have been, and returns whether one
    /// has it.
    ///
    /// Context: process, other than `probe` or `unbind`; sleeps.
    pub(crate) fn wait_probed(&self) -> bool {
        // SAFETY: By the type invariant the device is valid.
        unsafe { bindings::xbk_device_is_bound(&raw mut (*self.as_raw()).dev) }
    }

    /// Removes the `error` key of the device if it is the one that the bus writes when `probe` fails
    /// with `error` (`xenbus_dev_probe`).
    ///
    /// Context: process; sleeps.
    pub(crate) fn clear_probe_error(&self, error: Error) {
        let node = self.nodename();
        let number = error.to_errno().unsigned_abs();
        let text = CString::try_from_fmt(fmt!("{number} xenbus_dev_probe on {node}"));
        let dir = CString::try_from_fmt(fmt!("error/{node}"));
        let (Ok(text), Ok(dir)) = (text, dir) else {
            return;
        };
        // If xenstored is busy the key stays.
        let _ = transaction(|store| match store.read(&dir, c"error")? {
            Some(value) if text.to_bytes_with_nul().strip_suffix(b"\0") == Some(value.bytes()) => {
                store.remove(&dir, c"error")
            }
            _ => Ok(()),
        });
    }

    /// Writes `text` and `error` to the log and to the `error` key of the device
    /// (`xenbus_dev_error`).
    ///
    /// Context: process; sleeps.
    pub(crate) fn report(&self, error: Error, text: fmt::Arguments<'_>) {
        let Ok(text) = CString::try_from_fmt(text) else {
            return;
        };
        // SAFETY: By the type invariant the device is valid. The format takes one string, and
        // `text` is NUL-terminated.
        unsafe {
            bindings::xenbus_dev_error(
                self.as_raw(),
                error.to_errno(),
                c"%s".as_char_ptr(),
                text.as_char_ptr(),
            )
        };
    }
}

impl Device<kdevice::Bound> {
    /// Returns a copy of the path of the frontend's directory in xenstore. The bus's own string
    /// lives only while the device is bound.
    ///
    /// Context: process; sleeps.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn frontend_path(&self) -> Result<CString> {
        // SAFETY: By the type invariant the device is valid, and by its context it is bound. The
        // bus sets `otherend`, a NUL-terminated string, before `probe` and frees it after `remove`.
        let path = unsafe { super::text((*self.as_raw()).otherend) };
        CString::try_from(path).map_err(|_| ENOMEM)
    }
}

// SAFETY: `Device` is a transparent wrapper whose layout does not depend on its context.
kernel::impl_device_context_deref!(unsafe { Device });
kernel::impl_device_context_into_aref!(Device);

// SAFETY: `struct xenbus_device` embeds a `struct device`, which is reference counted. The bus
// frees the former when the count of the latter drops to zero.
unsafe impl kernel::sync::aref::AlwaysRefCounted for Device {
    fn inc_ref(&self) {
        // SAFETY: The reference `self` guarantees that the count is not zero.
        unsafe { bindings::get_device(&raw mut (*self.as_raw()).dev) };
    }

    unsafe fn dec_ref(obj: NonNull<Self>) {
        let xdev: *mut bindings::xenbus_device = obj.cast().as_ptr();
        // SAFETY: The caller gives up one count, so the count is not zero.
        unsafe { bindings::put_device(&raw mut (*xdev).dev) }
    }
}

impl<Ctx: kdevice::DeviceContext> AsRef<kdevice::Device<Ctx>> for Device<Ctx> {
    fn as_ref(&self) -> &kdevice::Device<Ctx> {
        // SAFETY: By the type invariant the embedded `struct device` is valid.
        unsafe { kdevice::Device::from_raw(&raw mut (*self.as_raw()).dev) }
    }
}

// SAFETY: Any thread may drop a reference to a device.
unsafe impl Send for Device {}

// SAFETY: The methods of `Device<Normal>` may run concurrently: they read fields that do not
// change, read others volatile, or call C functions that may be called concurrently.
unsafe impl Sync for Device {}

/// A reference to a device. It may outlive the binding of the device to its driver.
pub(crate) type DeviceRef = ARef<Device>;
