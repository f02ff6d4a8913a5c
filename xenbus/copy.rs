// SPDX-License-Identifier: GPL-2.0

//! Grant copies: Xen copies between a granted frame and a page of dom0, and nothing is mapped.
//!
//! Many frames are copied by one hypercall. Mapping takes two hypercalls and a TLB flush, and a
//! driver in dom0 may keep a reference to a mapped page. Xen reads each byte once, and the other
//! domain cannot change the copy.
//!
//! ```text
//!          CopyBatch::copy_from_frame
//!  frame ----------------------------> Buffer <--- bio ---> device
//!        <----------------------------
//!          CopyBatch::copy_to_frame
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

/// A page of this domain that is copied to or from.
pub(crate) struct Buffer(Page);

impl Buffer {
    /// Allocates a page of zeroes. Bytes that a device does not fill must not disclose memory of
    /// this domain. Sleeps if `flags` allow it.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(flags: kernel::alloc::Flags) -> Result<Self> {
        Ok(Self(Page::alloc_page(flags | __GFP_ZERO)?))
    }

    /// Returns the page for I/O.
    pub(crate) fn page(&self) -> BorrowedPage<'_> {
        // SAFETY: `self.0` owns a valid page for as long as it is borrowed, and the pointer to the
        // page is not null.
        unsafe { BorrowedPage::from_raw(NonNull::new_unchecked(self.0.as_ptr())) }
    }

    /// Returns whether another part of this kernel has a reference to the page. Some block drivers
    /// keep one for a while after they have completed the bio.
    ///
    /// Context: any.
    pub(crate) fn is_used(&self) -> bool {
        // SAFETY: `self.0` owns a valid page.
        unsafe { bindings::xbk_page_is_used(self.0.as_ptr()) }
    }
}

/// A part of a frame that the other domain grants.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    /// The domain that grants the frame.
    pub(crate) domain: u16,
    /// The grant reference.
    pub(crate) gref: u32,
    /// The first byte within the frame, and within the buffer.
    pub(crate) offset: u32,
    /// The length in bytes. `offset + len` is at most the size of a page.
    pub(crate) len: u32,
}

/// Copies that one hypercall performs.
///
/// # Invariants
///
/// `ops` and `buffers` have the same length and the same capacity. Each operation copies to or from
/// the buffer at the same index, within that page.
pub(crate) struct CopyBatch {
    ops: KVec<bindings::gnttab_copy>,
    buffers: KVec<Buffer>,
}

// SAFETY: The batch owns its memory and its pages, and neither is bound to a thread.
unsafe impl Send for CopyBatch {}

impl CopyBatch {
    /// Creates a batch with capacity for `capacity` copies. Sleeps.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(capacity: usize) -> Result<Self> {
        // INVARIANT: Both vectors are empty and have the same capacity.
        Ok(Self {
            ops: KVec::with_capacity(capacity, GFP_KERNEL)?,
            buffers: KVec::with_capacity(capacity, GFP_KERNEL)?,
        })
    }

    /// Returns how many more copies the batch has capacity for.
    pub(crate) fn remaining(&self) -> usize {
        self.ops.capacity().saturating_sub(self.ops.len())
    }

    /// Adds a copy from `part` to `buffer`.
    ///
    /// # Errors
    ///
    /// Returns the buffer if the batch is full, or if `part` reaches beyond its frame.
    pub(crate) fn copy_from_frame(&mut self, buffer: Buffer, part: Part) -> Result<(), Buffer> {
        self.push(buffer, part, true)
    }

    /// Adds a copy from `buffer` to `part`.
    ///
    /// # Errors
    ///
    /// As for [`Self::copy_from_frame`].
    pub(crate) fn copy_to_frame(&mut self, buffer: Buffer, part: Part) -> Result<(), Buffer> {
        self.push(buffer, part, false)
    }

    fn push(&mut self, buffer: Buffer, part: Part, from_frame: bool) -> Result<(), Buffer> {
        let end = u64::from(part.offset).saturating_add(u64::from(part.len));
        if self.remaining() == 0 || end > kernel::page::PAGE_SIZE as u64 {
            return Err(buffer);
        }
        let (offset, len) = (part.offset as u16, part.len as u16);
        let mut op = MaybeUninit::<bindings::gnttab_copy>::uninit();
        // SAFETY: `op` is valid for writes, and the helper writes every field of it. `buffer` owns
        // a valid page, which has a kernel address.
        let op = unsafe {
            let page = buffer.0.as_ptr();
            let (gref, domain) = (part.gref, part.domain);
            bindings::xbk_set_copy_op(op.as_mut_ptr(), page, offset, len, gref, domain, from_frame);
            op.assume_init()
        };
        // INVARIANT: Both vectors have a free slot, checked above, so both pushes succeed. `op`
        // stays within the page, checked above.
        let _ = self.ops.push_within_capacity(op);
        let _ = self.buffers.push_within_capacity(buffer);
        Ok(())
    }

    /// Performs all copies and empties the batch. `each` is called in the order of the pushes, with
    /// the buffer and whether Xen performed the copy.
    ///
    /// Context: process. Sleeps while Xen pages a frame in; `gnttab_batch_copy` bounds that to 32
    /// seconds per frame.
    pub(crate) fn run(&mut self, mut each: impl FnMut(Buffer, bool)) {
        if self.ops.is_empty() {
            return;
        }
        // SAFETY: By the type invariant each operation copies within a page that `buffers` owns.
        unsafe { bindings::gnttab_batch_copy(self.ops.as_mut_ptr(), self.ops.len() as c_uint) };
        for (op, buffer) in self.ops.iter().zip(self.buffers.drain_all()) {
            each(buffer, op.status == bindings::GNTST_okay as i16);
        }
        self.ops.clear();
    }
}

/// The size of a [`Snapshot`] in bytes.
pub(crate) const SNAPSHOT_SIZE: usize = 2048;

/// The alignment equals the size, so a value never crosses a page boundary.
#[repr(C, align(2048))]
struct Bytes([u8; SNAPSHOT_SIZE]);

const _: () = assert!(core::mem::size_of::<Bytes>() == SNAPSHOT_SIZE);

/// Memory for a private copy of the beginning of a frame.
pub(crate) struct Snapshot(KBox<Bytes>);

impl Snapshot {
    /// Allocates the memory. Sleeps.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new() -> Result<Self> {
        Ok(Self(KBox::new(Bytes([0; SNAPSHOT_SIZE]), GFP_KERNEL)?))
    }

    /// Copies the first `len` bytes of a mapped frame. Each byte is read exactly once.
    ///
    /// Context: any.
    ///
    /// # Errors
    ///
    /// `EINVAL` if `len` is larger than [`SNAPSHOT_SIZE`] or not a multiple of 8.
    pub(crate) fn read(&mut self, frame: &Mapped, len: usize) -> Result<&[u8]> {
        let bytes = self.0 .0.get_mut(..len).ok_or(EINVAL)?;
        if len % 8 != 0 {
            return Err(EINVAL);
        }
        // SAFETY: By the invariant of `Mapped` the page is valid and mapped at its kernel address.
        let from = unsafe { bindings::xbk_page_address(frame.as_page()) }.cast::<u64>();
        for (index, word) in bytes.chunks_exact_mut(8).enumerate() {
            // SAFETY: `len` is at most `SNAPSHOT_SIZE`, which is less than a page, so the word is
            // within the page. The page is aligned and stays mapped while `frame` is borrowed. The
            // other domain may write to it meanwhile, hence the volatile read.
            let value = unsafe { from.add(index).read_volatile() };
            word.copy_from_slice(&value.to_ne_bytes());
        }
        Ok(bytes)
    }

    /// Has Xen copy the first `len` bytes of the frame that `domain` grants with `gref`. Each byte
    /// is read exactly once.
    ///
    /// Context: process. Sleeps as [`CopyBatch::run`] does.
    ///
    /// # Errors
    ///
    /// `EINVAL` if `len` is larger than [`SNAPSHOT_SIZE`]; `EFAULT` if Xen refuses.
    pub(crate) fn take(&mut self, domain: u16, gref: u32, len: usize) -> Result<&[u8]> {
        let bytes = self.0 .0.get_mut(..len).ok_or(EINVAL)?;
        // SAFETY: `bytes` is `len` bytes of kernel memory, borrowed mutably. They are within one
        // page because of the alignment of `Bytes`.
        let status =
            unsafe { bindings::xbk_copy_from(bytes.as_mut_ptr().cast(), len as u16, gref, domain) };
        if status != bindings::GNTST_okay as c_int {
            return Err(EFAULT);
        }
        Ok(bytes)
    }
}
