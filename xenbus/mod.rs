// SPDX-License-Identifier: GPL-2.0

//! Safe wrappers over the C Xen API that the `kernel` crate does not have yet.
//!
//! The files are written as if they were in `rust/kernel/xen/`: one file per C subsystem, named
//! after what it wraps. They know nothing of block devices and use nothing else of this module.
//! Only this folder and `src/sys` contain `unsafe`.
//!
//! | file | wraps |
//! |---|---|
//! | [`driver`] | registering a backend driver, its callbacks |
//! | [`attribute`] | sysfs files of a bound device |
//! | [`device`] | `struct xenbus_device`, its state and its `error` key |
//! | [`removal`] | removing a device from the bus |
//! | [`store`] | reading and writing xenstore, transactions |
//! | [`watch`] | a watch on a xenstore path |
//! | [`evtchn`] | an event channel to the frontend |
//! | [`shared_ring`] | ring pages that a frontend granted |
//! | [`grant`] | mapping and unmapping granted frames |
//! | [`page_cache`] | pages without memory, for frames to be mapped at |
//! | [`copy`] | grant copies, without mapping |
//! | [`domain`] | whether another domain runs, has shut down, or is dying |
//!
//! C headers: [`include/xen/`](srctree/include/xen/)

use kernel::prelude::*;

pub(crate) mod attribute;
mod bindings;
pub(crate) mod copy;
pub(crate) mod device;
pub(crate) mod domain;
pub(crate) mod driver;
pub(crate) mod evtchn;
pub(crate) mod grant;
pub(crate) mod page_cache;
pub(crate) mod removal;
pub(crate) mod shared_ring;
pub(crate) mod store;
pub(crate) mod watch;

/// Returns the string at `text`.
///
/// This is `CStr::from_ptr` without the overflow check, which could panic.
///
/// # Safety
///
/// `text` must point to a NUL-terminated string that stays valid and unchanged for `'a`.
unsafe fn text<'a>(text: *const c_char) -> &'a CStr {
    // SAFETY: The caller guarantees a NUL-terminated string, so its `len + 1` bytes are valid for
    // `'a` and the last of them is the only NUL.
    unsafe {
        let len = kernel::bindings::strlen(text);
        CStr::from_bytes_with_nul_unchecked(core::slice::from_raw_parts(
            text.cast(),
            len.wrapping_add(1),
        ))
    }
}

/// Returns the bytes of the string at `text`, without the NUL terminator.
///
/// # Safety
///
/// As for [`text`].
unsafe fn bytes<'a>(text: *const c_char) -> &'a [u8] {
    // SAFETY: The caller guarantees a NUL-terminated string, so `strlen` bytes are valid for `'a`.
    unsafe { core::slice::from_raw_parts(text.cast(), kernel::bindings::strlen(text)) }
}

/// Returns whether this kernel runs on Xen. If not, nothing else of this folder may be called.
///
/// Context: any.
pub(crate) fn is_xen_domain() -> bool {
    // SAFETY: The helper only reads a variable, which the kernel sets before it loads any module.
    unsafe { bindings::xbk_xen_domain() }
}
