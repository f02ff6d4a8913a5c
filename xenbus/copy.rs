// SPDX-License-Identifier: GPL-2.0

//! Frames of the other domain: copied instead of mapped.
//!
//! A copy costs one call for many frames, where a mapping costs two and a flush of the
//! processors' translations; and nobody of this kernel can still look at a frame that was
//! copied. Each byte is read once, and the other domain can change a copy no more.
//!
//! ```text
//!            CopyBatch::copy_from_frame                 device
//!  frame -----------------------> Buffer <------------> disk
//!        <-----------------------
//!            CopyBatch::copy_to_frame
//! ```
//!
//! C header: [`include/xen/grant_table.h`](srctree/include/xen/grant_table.h)

use core::{
    mem::MaybeUninit,
    ptr::NonNull, //
};

use kernel::{
    page::BorrowedPage,
    page::Page,
    prelude::*, //
};

use super::bindings;
use super::grant::Mapped;

/// A page of this kernel's for what is copied.
pub(crate) struct Buffer(Page);

impl Buffer {
    /// A page of zeroes: what a device does not fill shows nothing of ours.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(flags: kernel::alloc::Flags) -> Result<Self> {
        Ok(Self(Page::alloc_page(flags | __GFP_ZERO)?))
    }

    /// The page, for I/O while `self` lives.
    pub(crate) fn page(&self) -> BorrowedPage<'_> {
        // SAFETY: A page of ours, which lives as long as `self`; its address is not null.
        unsafe { BorrowedPage::from_raw(NonNull::new_unchecked(self.0.as_ptr())) }
    }

    /// Does anybody else in this kernel refer to the page?
    pub(crate) fn is_used(&self) -> bool {
        // SAFETY: A page of ours.
        unsafe { bindings::xbk_page_is_used(self.0.as_ptr()) }
    }
}

/// A part of a frame that the other domain grants.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    /// The other domain.
    pub(crate) domain: u16,
    /// Its reference.
    pub(crate) gref: u32,
    /// First byte; the same in the buffer.
    pub(crate) offset: u32,
    /// Bytes, to the end of the frame at most.
    pub(crate) len: u32,
}

/// Parts of frames that are to be copied together.
///
/// # Invariants
///
/// `ops` and `buffers` have the same length and belong together.
pub(crate) struct CopyBatch {
    ops: KVec<bindings::gnttab_copy>,
    buffers: KVec<Buffer>,
}

// SAFETY: Owned memory and pages without ties to a thread.
unsafe impl Send for CopyBatch {}

impl CopyBatch {
    /// Room for `most` parts. Sleeps.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(most: usize) -> Result<Self> {
        Ok(Self {
            ops: KVec::with_capacity(most, GFP_KERNEL)?,
            buffers: KVec::with_capacity(most, GFP_KERNEL)?,
        })
    }

    /// How many more parts it takes.
    pub(crate) fn remaining(&self) -> usize {
        self.ops.capacity().saturating_sub(self.ops.len())
    }

    /// Adds a copy of `part` to `buffer`.
    ///
    /// # Errors
    ///
    /// Gives the buffer back if there is no room, or if there is no such part.
    pub(crate) fn copy_from_frame(&mut self, buffer: Buffer, part: Part) -> Result<(), Buffer> {
        self.push(buffer, part, true)
    }

    /// Adds a copy of `buffer` to `part`.
    ///
    /// # Errors
    ///
    /// As [`Self::copy_from_frame`].
    pub(crate) fn copy_to_frame(&mut self, buffer: Buffer, part: Part) -> Result<(), Buffer> {
        self.push(buffer, part, false)
    }

    fn push(&mut self, buffer: Buffer, part: Part, fetch: bool) -> Result<(), Buffer> {
        let end = u64::from(part.offset).saturating_add(u64::from(part.len));
        if self.remaining() == 0 || end > kernel::page::PAGE_SIZE as u64 {
            return Err(buffer);
        }
        let (offset, len) = (part.offset as u16, part.len as u16);
        let mut op = MaybeUninit::<bindings::gnttab_copy>::uninit();
        // SAFETY: The helper writes every field; the page is ours and has a kernel address.
        let op = unsafe {
            let page = buffer.0.as_ptr();
            let (gref, domain) = (part.gref, part.domain);
            bindings::xbk_set_copy_op(op.as_mut_ptr(), page, offset, len, gref, domain, fetch);
            op.assume_init()
        };
        // Both have the same capacity, and there is room.
        let _ = self.ops.push_within_capacity(op);
        let _ = self.buffers.push_within_capacity(buffer);
        Ok(())
    }

    /// Copies them all and empties the batch. `each` gets, in the order of the pushes, the
    /// buffer and whether it was copied. May sleep: Xen may ask to try again while it
    /// pages a frame in (bounded by the C function, 32 seconds a frame).
    pub(crate) fn run(&mut self, mut each: impl FnMut(Buffer, bool)) {
        if self.ops.is_empty() {
            return;
        }
        // SAFETY: By the type invariant every operation is about a page that we own, and
        // its bytes lie within that.
        unsafe { bindings::gnttab_batch_copy(self.ops.as_mut_ptr(), self.ops.len() as c_uint) };
        for (op, buffer) in self.ops.iter().zip(self.buffers.drain_all()) {
            each(buffer, op.status == bindings::GNTST_okay as i16);
        }
        self.ops.clear();
    }
}

/// Bytes of a [`Snapshot`].
pub(crate) const SNAPSHOT_SIZE: usize = 2048;

// As large as it is aligned, so that it lies within one page.
#[repr(C, align(2048))]
struct Bytes([u8; SNAPSHOT_SIZE]);

const _: () = assert!(core::mem::size_of::<Bytes>() == SNAPSHOT_SIZE);

/// Room for a private copy of what a frame of the other domain holds.
pub(crate) struct Snapshot(KBox<Bytes>);

impl Snapshot {
    /// Empty room. Sleeps.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new() -> Result<Self> {
        Ok(Self(KBox::new(Bytes([0; SNAPSHOT_SIZE]), GFP_KERNEL)?))
    }

    /// Copies the first `len` bytes of a frame that is mapped, each read exactly once.
    /// Does not sleep.
    ///
    /// # Errors
    ///
    /// `EINVAL` if `len` is too large or no multiple of 8.
    pub(crate) fn read(&mut self, frame: &Mapped, len: usize) -> Result<&[u8]> {
        let bytes = self.0 .0.get_mut(..len).ok_or(EINVAL)?;
        if len % 8 != 0 {
            return Err(EINVAL);
        }
        // SAFETY: The page is mapped while we have its `Mapped`, at its kernel address.
        let from = unsafe { bindings::xbk_page_address(frame.as_page()) }.cast::<u64>();
        for (index, word) in bytes.chunks_exact_mut(8).enumerate() {
            // SAFETY: Within the page: `len` is at most `SNAPSHOT_SIZE`, half of one.
            let value = unsafe { from.add(index).read_volatile() };
            word.copy_from_slice(&value.to_ne_bytes());
        }
        Ok(bytes)
    }

    /// Lets Xen copy the first `len` bytes of the frame that `gref` of `domain`
    /// grants: each is read once, and the other domain can change the copy no more.
    /// May sleep, as [`CopyBatch::run`] does.
    ///
    /// # Errors
    ///
    /// `EINVAL` if `len` is too large, `EFAULT` if Xen refuses.
    pub(crate) fn take(&mut self, domain: u16, gref: u32, len: usize) -> Result<&[u8]> {
        let bytes = self.0 .0.get_mut(..len).ok_or(EINVAL)?;
        // SAFETY: `bytes` is kernel memory within one page, for it lies in a `Bytes`.
        let status =
            unsafe { bindings::xbk_copy_from(bytes.as_mut_ptr().cast(), len as u16, gref, domain) };
        if status != bindings::GNTST_okay as c_int {
            return Err(EFAULT);
        }
        Ok(bytes)
    }
}
