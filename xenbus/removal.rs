// SPDX-License-Identifier: GPL-2.0

//! Removing a device from the bus.
//!
//! The bus itself removes a device in the xenwatch thread, when the toolstack has deleted the
//! device's directory. If two threads removed the same device at the same time, they would corrupt
//! the bus's lists, so a driver has to remove its devices in the xenwatch thread as well. Only the
//! callback of a watch runs there. A watch fires once as soon as it is registered.
//!
//! C header: [`include/xen/xenbus.h`](srctree/include/xen/xenbus.h)

use kernel::{
    container_of,
    error::to_result,
    prelude::*,
    str::CString,
    types::{
        ForeignOwnable,
        Opaque, //
    }, //
};

use super::bindings;
use super::device::DeviceRef;

/// A pending removal. While its watch is registered, [`callback`] owns it.
#[pin_data]
struct Removal<K> {
    #[pin]
    watch: Opaque<bindings::xenbus_watch>,
    _node: CString,
    dev: DeviceRef,
    _keep: K,
}

/// Requests the removal of `dev` from the bus. The xenwatch thread performs it some time later,
/// which unbinds the driver. It does nothing if the bus has removed the device by then.
///
/// `keep` is dropped after the removal. It must be a reference to the caller's module, whose code
/// performs the removal.
///
/// Context: process; sleeps.
///
/// # Errors
///
/// `ENOMEM`, or xenstored's error for the watch. Then the device stays until the toolstack deletes
/// its directory.
pub(crate) fn request<K: Send + 'static>(dev: DeviceRef, keep: K) -> Result {
    let node = CString::try_from(dev.nodename())?;
    let text = node.as_char_ptr();
    let removal = KBox::pin_init(
        pin_init!(Removal::<K> {
            watch <- Opaque::ffi_init(|watch: *mut bindings::xenbus_watch| {
                // SAFETY: `watch` is valid for writes. `text` points to the heap memory of `_node`,
                // which lives as long as the watch.
                unsafe {
                    watch.write(pin_init::zeroed());
                    (*watch).node = text;
                    (*watch).will_handle = Some(will_handle);
                    (*watch).callback = Some(callback::<K>);
                }
            }),
            _node: node,
            dev,
            _keep: keep,
        }),
        GFP_KERNEL,
    )?;
    let raw = removal.into_foreign();
    // SAFETY: `raw` is a pinned and initialised `Removal`, which lives until `callback` frees it.
    let registered = to_result(unsafe {
        bindings::register_xenbus_watch((*raw.cast::<Removal<K>>()).watch.get())
    });
    if registered.is_err() {
        // SAFETY: `raw` came from `into_foreign` above. The watch is not registered, so `callback`
        // is never called for it.
        drop(unsafe { Pin::<KBox<Removal<K>>>::from_foreign(raw) });
    }
    registered
}

extern "C" fn will_handle(
    watch: *mut bindings::xenbus_watch,
    _path: *const c_char,
    _token: *const c_char,
) -> bool {
    // SAFETY: xenbus passes a registered watch, which is valid. The xenwatch thread may change
    // `nr_pending` meanwhile, hence the volatile read.
    unsafe { (&raw const (*watch).nr_pending).read_volatile() == 0 }
}

extern "C" fn callback<K: Send + 'static>(
    watch: *mut bindings::xenbus_watch,
    _path: *const c_char,
    _token: *const c_char,
) {
    let field: *mut Opaque<bindings::xenbus_watch> = watch.cast();
    // SAFETY: xenbus passes a registered watch. A watch with this callback is the field of a
    // `Removal<K>` that `request` passed to `into_foreign`. The callback runs once: it runs in the
    // xenwatch thread, where `unregister_xenbus_watch` does not wait for callbacks, and it cancels
    // further events.
    let removal = unsafe {
        bindings::unregister_xenbus_watch(watch);
        let removal: *mut Removal<K> = container_of!(field, Removal<K>, watch);
        Pin::<KBox<Removal<K>>>::from_foreign(removal.cast())
    };
    // SAFETY: `removal.dev` is a reference to the device. Only this thread removes xenbus devices,
    // so the device stays registered between the check and the removal.
    unsafe {
        let dev = &raw mut (*removal.dev.as_raw()).dev;
        if bindings::xbk_device_is_registered(dev) {
            bindings::device_unregister(dev);
        }
    }
}
