// SPDX-License-Identifier: GPL-2.0

//! Taking a device off the bus.
//!
//! The bus itself removes a device when the toolstack deletes its directory, and
//! does so in the xenwatch thread. Two threads that remove the same device at the
//! same time would corrupt the bus's lists, so a driver has to do it in that same
//! thread. The only way into it is a watch: a fresh one fires once, at once.
//!
//! C header: [`include/xen/xenbus.h`](srctree/include/xen/xenbus.h)

use kernel::{
    container_of,
    error::to_result,
    prelude::*,
    str::CString,
    types::Opaque, //
};

use super::bindings;
use super::device::DeviceRef;

/// A device on its way off the bus. Owned by its watch.
#[pin_data]
struct Removal<K> {
    #[pin]
    watch: Opaque<bindings::xenbus_watch>,
    _node: CString,
    dev: DeviceRef,
    _keep: K,
}

/// Asks for `dev` to be removed from the bus, soon, in the xenwatch thread. Its driver is unbound
/// in the course of that. Harmless if the bus was faster. `keep` is dropped when that is done: it
/// has to keep the code of the caller's module. Sleeps.
///
/// # Errors
///
/// `ENOMEM`, or what xenstored answers to the watch; then the device stays until
/// the toolstack deletes its directory.
pub(crate) fn request<K: Send + 'static>(dev: DeviceRef, keep: K) -> Result {
    let node = CString::try_from(dev.nodename())?;
    let text = node.as_char_ptr();
    let removal = KBox::pin_init(
        pin_init!(Removal::<K> {
            watch <- Opaque::ffi_init(|watch: *mut bindings::xenbus_watch| {
                // SAFETY: `watch` is valid for writes; `text` belongs to `_node`,
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
    // SAFETY: The box is not moved out of; `callback` or the line below makes it a
    // box again.
    let raw = KBox::into_raw(unsafe { Pin::into_inner_unchecked(removal) });
    // SAFETY: `raw` is valid, pinned and initialised, and stays so until `callback`.
    let registered = to_result(unsafe { bindings::register_xenbus_watch((*raw).watch.get()) });
    if registered.is_err() {
        // SAFETY: Not registered, so nobody else has `raw`.
        drop(unsafe { KBox::from_raw(raw) });
    }
    registered
}

extern "C" fn will_handle(
    watch: *mut bindings::xenbus_watch,
    _path: *const c_char,
    _token: *const c_char,
) -> bool {
    // SAFETY: xenbus passes a registered watch and holds the lock of `nr_pending`.
    unsafe { (*watch).nr_pending == 0 }
}

extern "C" fn callback<K: Send + 'static>(
    watch: *mut bindings::xenbus_watch,
    _path: *const c_char,
    _token: *const c_char,
) {
    let field: *mut Opaque<bindings::xenbus_watch> = watch.cast();
    // SAFETY: Every watch with this callback is the field of a `Removal` that
    // `request` turned into a raw pointer. This runs once: in the xenwatch thread
    // `unregister_xenbus_watch` neither waits nor lets another event through.
    let removal = unsafe {
        bindings::unregister_xenbus_watch(watch);
        KBox::from_raw(container_of!(field, Removal<K>, watch))
    };
    // SAFETY: `dev` is alive. Only this thread removes xenbus devices, so it cannot
    // be removed between the question and the deed.
    unsafe {
        let dev = &raw mut (*removal.dev.as_raw()).dev;
        if bindings::xbk_device_is_registered(dev) {
            bindings::device_unregister(dev);
        }
    }
}
