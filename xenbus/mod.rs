// SPDX-License-Identifier: GPL-2.0

//! Safe wrappers over the C Xen API that the `kernel` crate does not have yet.
//!
//! They are written as if they stood in `rust/kernel/xen/`: one file per C subsystem, named after
//! what it wraps. Nothing in here knows about block devices, and nothing uses the rest of this
//! module. Only this folder and `src/sys` contain `unsafe`.
//!
//! | file | wraps |
//! |---|---|
//! | [`driver`] | registering a backend driver, its callbacks |
//! | [`attribute`] | sysfs files of a bound device |
//! | [`device`] | `struct xenbus_device`, its state and its error key |
//! | [`removal`] | taking a device off the bus |
//! | [`store`] | reading and writing xenstore, transactions |
//! | [`watch`] | a watch on a xenstore path |
//! | [`evtchn`] | an event channel to the other domain |
//! | [`shared_ring`] | ring pages that a frontend granted |
//! | [`grant`] | mapping and unmapping data pages |
//! | [`copy`] | copying them instead |
//!
//! C headers: [`include/xen/`](srctree/include/xen/)

use kernel::prelude::*;

pub(crate) mod attribute;
mod bindings;
pub(crate) mod copy;
pub(crate) mod device;
pub(crate) mod driver;
pub(crate) mod evtchn;
pub(crate) mod grant;
pub(crate) mod removal;
pub(crate) mod shared_ring;
pub(crate) mod store;
pub(crate) mod watch;

/// The string at `text`. As `CStr::from_ptr`, without its overflow check, which
/// would be a way to panic.
///
/// # Safety
///
/// `text` is NUL-terminated and stays unchanged for `'a`.
unsafe fn text<'a>(text: *const c_char) -> &'a CStr {
    // SAFETY: By the contract: the bytes up to the terminator, and the terminator.
    unsafe {
        let len = kernel::bindings::strlen(text);
        CStr::from_bytes_with_nul_unchecked(core::slice::from_raw_parts(
            text.cast(),
            len.wrapping_add(1),
        ))
    }
}

/// The bytes of the string at `text`, without its terminator.
///
/// # Safety
///
/// As for [`text`].
unsafe fn bytes<'a>(text: *const c_char) -> &'a [u8] {
    // SAFETY: By the contract.
    unsafe { core::slice::from_raw_parts(text.cast(), kernel::bindings::strlen(text)) }
}

/// Does this kernel run on Xen? Nothing else in this folder may be used if not.
pub(crate) fn is_xen_domain() -> bool {
    // SAFETY: Reads a variable that is set before any module can be loaded.
    unsafe { bindings::xbk_xen_domain() }
}
