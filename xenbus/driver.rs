// SPDX-License-Identifier: GPL-2.0

//! Registering a xenbus backend driver.
//!
//! The bus calls [`Driver::probe`] and [`Driver::unbind`] with the device locked,
//! [`Driver::otherend_changed`] from the one xenwatch thread that serves every
//! Xen device of this domain: it must never wait for anything slow.
//!
//! C header: [`include/xen/xenbus.h`](srctree/include/xen/xenbus.h)

use kernel::{
    device as kdevice,
    driver,
    error::to_result,
    prelude::*,
    types::Opaque,
    ThisModule, //
};

use super::attribute::Groups;
use super::bindings;
use super::device::Device;

/// The device type a driver serves (`vbd`, `vif`, ..).
#[repr(transparent)]
pub(crate) struct DeviceId(bindings::xenbus_device_id);

impl DeviceId {
    /// The id for `name`. Evaluated at build time, so a name that is too long does
    /// not compile.
    #[inline]
    pub(crate) const fn new(name: &'static CStr) -> Self {
        let mut id: bindings::xenbus_device_id = pin_init::zeroed();
        let bytes = name.to_bytes();
        let mut at = 0;
        while at < bytes.len() {
            id.devicetype[at] = bytes[at];
            at += 1;
        }
        Self(id)
    }

    /// The empty id that ends a table.
    pub(crate) const fn end() -> Self {
        Self(pin_init::zeroed())
    }
}

// SAFETY: Plain bytes, never written after they were made.
unsafe impl Sync for DeviceId {}

/// A xenbus backend driver.
pub(crate) trait Driver {
    /// The driver's data for one bound device.
    type Data: Send + Sync + 'static;

    /// The device types it serves; the last is [`DeviceId::end`].
    const IDS: &'static [DeviceId];

    /// sysfs files of a bound device.
    const GROUPS: Groups<Self::Data>;

    /// A device appeared. May sleep; runs in the xenwatch thread, or in whoever
    /// loads the module or writes to `bind`.
    fn probe(dev: &Device<kdevice::Core<'_>>) -> impl PinInit<Self::Data, Error>;

    /// The frontend's `state` key changed, or may have. Runs in the xenwatch
    /// thread: must not wait.
    fn otherend_changed(data: Pin<&Self::Data>);

    /// Memory is short: what can be given back should be. Runs in whoever needs memory:
    /// must not wait. The bus does not keep the driver's data alive for this call.
    fn reclaim(dev: &Device);

    /// The driver loses the device. May sleep.
    fn unbind(dev: &Device<kdevice::Core<'_>>, data: Pin<&Self::Data>);
}

/// Connects a [`Driver`] with the bus.
pub(crate) struct Adapter<T: Driver>(T);

// SAFETY:
// - `bindings::xenbus_driver` is a `repr(C)` type made by bindgen.
// - `T::Data` is what `probe_callback` stores with `set_drvdata`.
// - `DEVICE_DRIVER_OFFSET` is the offset of its `struct device_driver`.
unsafe impl<T: Driver + 'static> driver::DriverLayout for Adapter<T> {
    type DriverType = bindings::xenbus_driver;
    type DriverData<'bound> = T::Data;
    const DEVICE_DRIVER_OFFSET: usize = core::mem::offset_of!(Self::DriverType, driver);
}

// SAFETY: `xenbus_unregister_driver` may follow every successful
// `__xenbus_register_backend`.
unsafe impl<T: Driver + 'static> driver::RegistrationOps for Adapter<T> {
    unsafe fn register(
        reg: &Opaque<Self::DriverType>,
        name: &'static CStr,
        module: &'static ThisModule,
    ) -> Result {
        if !super::is_xen_domain() {
            return Err(ENODEV);
        }
        // SAFETY: Nobody else sees `reg` before it is registered.
        unsafe {
            let drv = reg.get();
            (*drv).name = name.as_char_ptr();
            (*drv).ids = T::IDS.as_ptr().cast();
            // Another driver may take the device over: do not announce Closed
            // when we let go of it.
            (*drv).allow_rebind = true;
            (*drv).probe = Some(Self::probe_callback);
            (*drv).otherend_changed = Some(Self::otherend_changed_callback);
            (*drv).reclaim_memory = Some(Self::reclaim_callback);
            (*drv).remove = Some(Self::remove_callback);
            (*drv).driver.dev_groups = T::GROUPS.as_ptr();
        }
        // SAFETY: `reg` is pinned and stays until `unregister`, by the contract of
        // this function; `name` and `module` are static.
        to_result(unsafe {
            bindings::__xenbus_register_backend(reg.get(), module.as_ptr(), name.as_char_ptr())
        })
    }

    unsafe fn unregister(reg: &Opaque<Self::DriverType>) {
        // SAFETY: `reg` was registered, by the contract of this function.
        unsafe { bindings::xenbus_unregister_driver(reg.get()) }
    }
}

impl<T: Driver + 'static> Adapter<T> {
    extern "C" fn probe_callback(
        xdev: *mut bindings::xenbus_device,
        _id: *const bindings::xenbus_device_id,
    ) -> c_int {
        // SAFETY: The bus calls this with a live device, locked, not bound yet;
        // `Device` is a transparent wrapper.
        let dev = unsafe { &*xdev.cast::<Device<kdevice::CoreInternal<'_>>>() };
        let refused = match dev.as_ref().set_drvdata(T::probe(dev)) {
            Ok(()) => return 0,
            Err(refused) => refused,
        };
        // `xenbus_dev_probe` has read the frontend's path before it called this, frees it
        // when it takes a driver away, and forgets it when a driver refuses the device.
        //
        // SAFETY: The device is live and locked. Its path is null or comes from `kmalloc`
        // and is the device's own; the bus begins to watch it after a successful probe, so
        // nobody looks at it now, and reads it anew, whatever is there, before the next.
        unsafe {
            bindings::kfree((*xdev).otherend.cast());
            (*xdev).otherend = core::ptr::null();
        }
        refused.to_errno()
    }

    extern "C" fn otherend_changed_callback(
        xdev: *mut bindings::xenbus_device,
        _state: bindings::xenbus_state,
    ) {
        // SAFETY: The bus registers the watch that leads here after `probe`
        // succeeded, and waits for it to end before it calls `remove`.
        let dev = unsafe { &*xdev.cast::<Device<kdevice::CoreInternal<'_>>>() };
        // SAFETY: As above: `set_drvdata` was called with a `T::Data`.
        let data = unsafe { dev.as_ref().drvdata_borrow::<T::Data>() };
        T::otherend_changed(data);
    }

    extern "C" fn reclaim_callback(xdev: *mut bindings::xenbus_device) {
        // SAFETY: The bus calls this with a live device. It may have lost its driver's
        // data by now: the bus's lock covers `remove`, not what the core does after it.
        T::reclaim(unsafe { &*xdev.cast::<Device>() });
    }

    extern "C" fn remove_callback(xdev: *mut bindings::xenbus_device) {
        // SAFETY: The bus calls this with a live device after a successful probe.
        let dev = unsafe { &*xdev.cast::<Device<kdevice::CoreInternal<'_>>>() };
        // SAFETY: As above; the driver core drops the data after this returns.
        let data = unsafe { dev.as_ref().drvdata_borrow::<T::Data>() };
        T::unbind(dev, data);
    }
}
