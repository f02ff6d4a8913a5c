// SPDX-License-Identifier: GPL-2.0

//! Xenbus backend drivers and their registration.
//!
//! The bus calls [`Driver::probe`] and [`Driver::unbind`] with the device locked. It calls
//! [`Driver::otherend_changed`] in the xenwatch thread. That is one thread for all Xen devices of
//! this domain, so the callback must not wait for a device or a guest.
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

/// A device type that a driver serves: `vbd`, `vif` and so on (`struct xenbus_device_id`).
#[repr(transparent)]
pub(crate) struct DeviceId(bindings::xenbus_device_id);

impl DeviceId {
    /// Creates the id of the device type `name`.
    ///
    /// Evaluated at build time: a name that is longer than the C array does not compile.
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

    /// Creates the empty id that ends a table.
    pub(crate) const fn end() -> Self {
        Self(pin_init::zeroed())
    }
}

// SAFETY: An id is an array of bytes that no code writes after its creation.
unsafe impl Sync for DeviceId {}

/// A xenbus backend driver.
pub(crate) trait Driver {
    /// The driver's data of one bound device.
    type Data: Send + Sync + 'static;

    /// The device types that the driver serves. The last entry is [`DeviceId::end`].
    const IDS: &'static [DeviceId];

    /// The sysfs files of a bound device.
    const GROUPS: Groups<Self::Data>;

    /// Binds the driver to `dev`, and returns the driver's data.
    ///
    /// Context: the xenwatch thread, or the process that loads the module or writes to `bind`; the
    /// device is locked. May sleep.
    fn probe(dev: &Device<kdevice::Core<'_>>) -> impl PinInit<Self::Data, Error>;

    /// The frontend's `state` key may have changed.
    ///
    /// Context: the xenwatch thread. Must not wait for a device or a guest.
    fn otherend_changed(data: Pin<&Self::Data>);

    /// The kernel is short of memory: the driver should free what `dev` can spare. The bus does not
    /// keep the driver's data alive during this call.
    ///
    /// Context: the process that allocates memory, with `reclaim_sem` of the device held. Must
    /// not wait.
    fn reclaim(dev: &Device);

    /// Unbinds the driver from `dev`. The driver core drops `data` afterwards.
    ///
    /// Context: process; the device is locked. May sleep.
    fn unbind(dev: &Device<kdevice::Core<'_>>, data: Pin<&Self::Data>);
}

/// Implements the registration and the C callbacks of the [`Driver`] `T`.
pub(crate) struct Adapter<T: Driver>(T);

// SAFETY:
// - `bindings::xenbus_driver` is a C type declared as `repr(C)`.
// - `T::Data` is the type of the data that `probe_callback` sets.
// - `DEVICE_DRIVER_OFFSET` is the offset of the embedded `struct device_driver`.
unsafe impl<T: Driver + 'static> driver::DriverLayout for Adapter<T> {
    type DriverType = bindings::xenbus_driver;
    type DriverData<'bound> = T::Data;
    const DEVICE_DRIVER_OFFSET: usize = core::mem::offset_of!(Self::DriverType, driver);
}

// SAFETY: `unregister` undoes what a successful `register` did: `xenbus_unregister_driver` is the
// counterpart of `__xenbus_register_backend`.
unsafe impl<T: Driver + 'static> driver::RegistrationOps for Adapter<T> {
    unsafe fn register(
        reg: &Opaque<Self::DriverType>,
        name: &'static CStr,
        module: &'static ThisModule,
    ) -> Result {
        if !super::is_xen_domain() {
            return Err(ENODEV);
        }
        // SAFETY: `reg` is valid, and no other code uses it before it is registered.
        unsafe {
            let drv = reg.get();
            (*drv).name = name.as_char_ptr();
            (*drv).ids = T::IDS.as_ptr().cast();
            // The bus must not announce Closed at `unbind`: another driver may take the device
            // over, and the guest keeps its frontend.
            (*drv).allow_rebind = true;
            (*drv).probe = Some(Self::probe_callback);
            (*drv).otherend_changed = Some(Self::otherend_changed_callback);
            (*drv).reclaim_memory = Some(Self::reclaim_callback);
            (*drv).remove = Some(Self::remove_callback);
            (*drv).driver.dev_groups = T::GROUPS.as_ptr();
        }
        // SAFETY: The caller keeps `reg` pinned until `unregister`. `name` and `module` are
        // `'static`.
        to_result(unsafe {
            bindings::__xenbus_register_backend(reg.get(), module.as_ptr(), name.as_char_ptr())
        })
    }

    unsafe fn unregister(reg: &Opaque<Self::DriverType>) {
        // SAFETY: The caller guarantees that `register` has registered `reg`.
        unsafe { bindings::xenbus_unregister_driver(reg.get()) }
    }
}

impl<T: Driver + 'static> Adapter<T> {
    extern "C" fn probe_callback(
        xdev: *mut bindings::xenbus_device,
        _id: *const bindings::xenbus_device_id,
    ) -> c_int {
        // SAFETY: The bus passes a valid device, which it has locked and which is not bound yet.
        // `Device` is a transparent wrapper of it.
        let dev = unsafe { &*xdev.cast::<Device<kdevice::CoreInternal<'_>>>() };
        let err = match dev.as_ref().set_drvdata(T::probe(dev)) {
            Ok(()) => return 0,
            Err(err) => err,
        };
        // `xenbus_dev_probe` has set `otherend` before it called this function. It frees the string
        // when it removes a driver, but not when `probe` fails.
        //
        // SAFETY: The device is valid and locked. `otherend` is null or a string of the device that
        // `kmalloc` allocated. No other code uses the string now: the bus watches the path only
        // after a successful `probe`, and reads the path anew before the next one.
        unsafe {
            bindings::kfree((*xdev).otherend.cast());
            (*xdev).otherend = core::ptr::null();
        }
        err.to_errno()
    }

    extern "C" fn otherend_changed_callback(
        xdev: *mut bindings::xenbus_device,
        _state: bindings::xenbus_state,
    ) {
        // SAFETY: The bus passes a valid device. It registers the watch whose callback this is
        // after `probe_callback` has set a `T::Data`, and unregisters it, waiting for the callback,
        // before it calls `remove_callback`.
        let data = unsafe {
            let dev = &*xdev.cast::<Device<kdevice::CoreInternal<'_>>>();
            dev.as_ref().drvdata_borrow::<T::Data>()
        };
        T::otherend_changed(data);
    }

    extern "C" fn reclaim_callback(xdev: *mut bindings::xenbus_device) {
        // SAFETY: The bus passes a valid device. The driver's data may be gone already, because
        // `reclaim_sem` is not held when the driver core drops it after `remove`. `Device<Normal>`
        // gives no access to the data.
        T::reclaim(unsafe { &*xdev.cast::<Device>() });
    }

    extern "C" fn remove_callback(xdev: *mut bindings::xenbus_device) {
        // SAFETY: The bus passes a valid device, which it has locked and which is bound.
        let dev = unsafe { &*xdev.cast::<Device<kdevice::CoreInternal<'_>>>() };
        // SAFETY: `probe_callback` has set a `T::Data`. The driver core drops the data after this
        // callback has returned.
        let data = unsafe { dev.as_ref().drvdata_borrow::<T::Data>() };
        T::unbind(dev, data);
    }
}
