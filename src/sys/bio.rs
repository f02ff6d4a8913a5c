// SPDX-License-Identifier: GPL-2.0

//! Sending one request to a block device.
//!
//! A [`Bio`] is filled and submitted by value; what it is for travels with it and
//! comes back, by value too, when the device has answered.
//!
//! C header: [`include/linux/bio.h`](srctree/include/linux/bio.h)

use core::ptr::NonNull;

use kernel::{
    bindings,
    error::to_result,
    prelude::*, //
};

use super::bdev::BlockDevice;
use super::helpers;
use crate::xenbus::grant::ForeignPage;

/// What a bio does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// From the device.
    Read,
    /// To the device.
    Write,
    /// Make finished writes durable first, then write what the bio carries, if
    /// anything.
    FlushThenWrite,
}

/// Owns what a bio works on until the device has answered.
pub(crate) trait EndIo: Sized + Send + 'static {
    /// The device has answered. May run in hard interrupt context: must not sleep.
    fn end_io(this: KBox<Self>, outcome: Result);
}

/// A bio that was not submitted yet.
///
/// # Invariants
///
/// `bio` is ours and complete but for its end.
pub(crate) struct Bio {
    bio: NonNull<bindings::bio>,
}

impl Bio {
    /// An empty bio with room for `pages` pieces, for `sector` (of 512 bytes) of
    /// `device`. Never fails: it waits for the pool. Sleeps.
    pub(crate) fn new(
        device: &BlockDevice,
        direction: Direction,
        sector: u64,
        pages: u16,
    ) -> Result<Self> {
        let op = match direction {
            Direction::Read => bindings::req_op_REQ_OP_READ,
            Direction::Write | Direction::FlushThenWrite => bindings::req_op_REQ_OP_WRITE,
        };
        let flags = match direction {
            Direction::Read => 0,
            Direction::Write => DIRECT_WRITE,
            Direction::FlushThenWrite => DIRECT_WRITE | PREFLUSH,
        };
        // SAFETY: The device is open.
        let bio = unsafe { helpers::xbk_bio_alloc(device.as_ptr(), pages, op | flags) };
        let bio = NonNull::new(bio).ok_or(ENOMEM)?;
        // SAFETY: Allocated just now.
        unsafe { (*bio.as_ptr()).bi_iter.bi_sector = sector };
        // INVARIANT: Allocated just now.
        Ok(Self { bio })
    }

    /// Adds `len` bytes at `offset` of `page`.
    ///
    /// # Errors
    ///
    /// `EIO` if there is no room.
    pub(crate) fn add(&mut self, page: ForeignPage<'_>, offset: u32, len: u32) -> Result {
        // SAFETY: By the type invariant; the page is mapped, and the object that is
        // submitted with the bio keeps it so (contract of `submit`).
        let added =
            unsafe { bindings::bio_add_page(self.bio.as_ptr(), page.as_ptr(), len, offset) };
        if added == len as c_int {
            Ok(())
        } else {
            Err(EIO)
        }
    }

    /// Sends it. `owner` owns every page that was added, and the device; it comes
    /// back through [`EndIo::end_io`]. Sleeps.
    pub(crate) fn submit<T: EndIo>(self, owner: KBox<T>) {
        let bio = self.bio.as_ptr();
        core::mem::forget(self);
        // SAFETY: By the type invariant; submitted exactly once.
        unsafe {
            (*bio).bi_private = KBox::into_raw(owner).cast();
            (*bio).bi_end_io = Some(end_io::<T>);
            bindings::submit_bio(bio);
        }
    }
}

impl Drop for Bio {
    fn drop(&mut self) {
        // SAFETY: By the type invariant; it was not submitted.
        unsafe { bindings::bio_put(self.bio.as_ptr()) };
    }
}

/// Somebody waits for the answer, and there is nothing to merge with later.
const DIRECT_WRITE: u32 =
    (1 << bindings::req_flag_bits___REQ_SYNC) | (1 << bindings::req_flag_bits___REQ_IDLE);
const PREFLUSH: u32 = 1 << bindings::req_flag_bits___REQ_PREFLUSH;

extern "C" fn end_io<T: EndIo>(bio: *mut bindings::bio) {
    // SAFETY: The block layer calls this once for the bio of `submit`, with the box
    // that was put into it there.
    let (owner, status) = unsafe {
        let owner = KBox::from_raw((*bio).bi_private.cast::<T>());
        let status = bindings::blk_status_to_errno((*bio).bi_status);
        bindings::bio_put(bio);
        (owner, status)
    };
    T::end_io(owner, to_result(status));
}

/// Holds submitted bios back until it is dropped, so that the device gets them
/// together.
///
/// # Invariants
///
/// The plug belongs to the current task, which is why it cannot be sent.
#[pin_data(PinnedDrop)]
pub(crate) struct Plug {
    #[pin]
    plug: kernel::types::Opaque<bindings::blk_plug>,
    _not_send: kernel::types::NotThreadSafe,
}

impl Plug {
    /// Plugs the current task.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            plug <- kernel::types::Opaque::ffi_init(|plug| {
                // SAFETY: `plug` is valid for writes and pinned; `drop` finishes it.
                unsafe { bindings::blk_start_plug(plug) }
            }),
            _not_send: kernel::types::NotThreadSafe,
        })
    }
}

#[pinned_drop]
impl PinnedDrop for Plug {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: Started in `new` by this task (it cannot be sent).
        unsafe { bindings::blk_finish_plug(self.plug.get()) };
    }
}
