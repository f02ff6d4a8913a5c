// SPDX-License-Identifier: GPL-2.0

//! Submitting bios to a block device.
//!
//! [`submit`] takes the owner of a bio, which owns all memory that the bio uses, and
//! [`BioOwner::end_io`] gives the owner back. The bio itself is a field of its owner, so a request
//! whose memory is reused allocates nothing.
//!
//! C headers: [`include/linux/bio.h`](srctree/include/linux/bio.h),
//! [`include/linux/blkdev.h`](srctree/include/linux/blkdev.h)

use core::ptr::null_mut;

use kernel::{
    error::to_result,
    page::{
        BorrowedPage,
        PAGE_SIZE, //
    },
    prelude::*,
    types::Opaque, //
};

use super::bdev::BlockDevice;
use super::bindings;

/// The maximum number of requests that the block layer allocates at a time for the bios of a
/// [`Plug`].
const PLUG_IOS_MAX: u16 = 8;

/// The operation of a bio.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// Reads from the device.
    Read,
    /// Writes to the device.
    Write,
    /// Flushes the device's write cache, then writes the data of the bio, if any (`REQ_PREFLUSH`).
    FlushThenWrite,
    /// As [`Self::FlushThenWrite`], and completes when the data is on stable storage (`REQ_FUA`).
    FlushThenWriteThrough,
}

/// An element of a bio: `len` bytes at `offset` of a page (`struct bio_vec`).
pub(crate) struct BioVec<'a> {
    /// The page.
    pub(crate) page: BorrowedPage<'a>,
    /// The first byte within the page.
    pub(crate) offset: u32,
    /// The length in bytes. `offset + len` is at most the size of a page.
    pub(crate) len: u32,
}

impl BioVec<'_> {
    fn is_within_page(&self) -> bool {
        self.offset.saturating_add(self.len) as usize <= PAGE_SIZE
    }
}

/// Memory for a bio and its elements. A [`BioOwner`] embeds it.
pub(crate) struct InlineBio {
    bio: Opaque<bindings::bio>,
    /// The memory of the elements, as spare capacity of an empty vector. [`fill`] writes it and the
    /// block layer reads it.
    table: KVec<bindings::bio_vec>,
}

// SAFETY: The object owns its memory, which is not bound to a thread. The block layer may complete
// a bio in another thread than that of its submission.
unsafe impl Send for InlineBio {}

impl InlineBio {
    /// Allocates memory for a bio of up to `elements` elements. Sleeps if `flags` allow it.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(elements: usize, flags: kernel::alloc::Flags) -> Result<Self> {
        Ok(Self {
            bio: Opaque::uninit(),
            table: KVec::with_capacity(elements, flags)?,
        })
    }
}

/// The owner of a bio and of everything that the bio uses.
///
/// From [`submit`] to [`BioOwner::end_io`] no code has access to the owner, so the bio, its pages
/// and the device stay valid.
pub(crate) trait BioOwner: Sized + Send + 'static {
    /// Returns the bio, which is a field of `self`.
    fn bio(&self) -> &InlineBio;

    /// Returns the device that the bio is submitted to.
    fn device(&self) -> &BlockDevice;

    /// Returns the operation.
    fn direction(&self) -> Direction;

    /// Returns the first sector, in units of 512 bytes.
    fn sector(&self) -> u64;

    /// Returns whether the block layer should not try to merge the bio (`REQ_NOMERGE`).
    fn is_nomerge(&self) -> bool;

    /// Returns the elements in order; `None` for an element whose page is missing.
    fn elements(&self) -> impl Iterator<Item = Option<BioVec<'_>>>;

    /// The device has completed the bio.
    ///
    /// Context: any, up to hard interrupt.
    fn end_io(this: KBox<Self>, outcome: Result);
}

/// Submits the bio of `owner` to its device.
///
/// Context: process; sleeps while the device's queue is full.
///
/// # Errors
///
/// Returns `owner` if a page is missing, if an element reaches beyond its page, if there are more
/// elements than the bio has memory for, or if the bio is not a field of `owner`.
pub(crate) fn submit<T: BioOwner>(owner: KBox<T>) -> Result<(), KBox<T>> {
    let inline = owner.bio();
    if !is_part(inline, &*owner) || fill(&*owner, inline).is_err() {
        return Err(owner);
    }
    let bio = inline.bio.get();
    let raw = KBox::into_raw(owner);
    // SAFETY: `fill` has initialised the bio, which is a field of `raw`. The owner, and with it all
    // that the bio uses, stays valid until `end_io` takes it back: no other code has `raw`. The bio
    // is submitted once.
    unsafe {
        (*bio).bi_private = raw.cast();
        (*bio).bi_end_io = Some(end_io::<T>);
        bindings::submit_bio(bio);
    }
    Ok(())
}

/// Returns the operation and flags of `owner`'s bio (`bi_opf`).
fn operation<T: BioOwner>(owner: &T) -> u32 {
    let merge = if owner.is_nomerge() { NO_MERGE } else { 0 };
    merge
        | match owner.direction() {
            Direction::Read => bindings::req_op_REQ_OP_READ,
            Direction::Write => bindings::req_op_REQ_OP_WRITE | DIRECT_WRITE,
            Direction::FlushThenWrite => bindings::req_op_REQ_OP_WRITE | DIRECT_WRITE | PREFLUSH,
            // REQ_FUA needs data.
            Direction::FlushThenWriteThrough if owner.elements().next().is_none() => {
                bindings::req_op_REQ_OP_WRITE | DIRECT_WRITE | PREFLUSH
            }
            Direction::FlushThenWriteThrough => {
                bindings::req_op_REQ_OP_WRITE | DIRECT_WRITE | PREFLUSH | FUA
            }
        }
}

/// Returns whether `inline` is a part of `owner`. Then the code that owns `owner` owns `inline` as
/// well. For an `inline` that is a field, the compiler evaluates this at build time.
fn is_part<T>(inline: &InlineBio, owner: &T) -> bool {
    let offset = core::ptr::from_ref(inline)
        .addr()
        .wrapping_sub(core::ptr::from_ref(owner).addr());
    let last = size_of::<T>().checked_sub(size_of::<InlineBio>());
    last.is_some_and(|last| offset <= last)
}

/// Initialises the bio `inline`, which is a part of `owner`, for submission.
///
/// # Errors
///
/// `EIO` if a page is missing, if an element reaches beyond its page, or if there are more elements
/// than `inline` has memory for. Then the bio is not initialised.
fn fill<T: BioOwner>(owner: &T, inline: &InlineBio) -> Result {
    let bio = inline.bio.get();
    let table = inline.table.as_ptr().cast_mut();
    let capacity = u16::try_from(inline.table.capacity()).unwrap_or(u16::MAX);
    let (mut count, mut bytes) = (0_u16, 0_u32);
    for element in owner.elements() {
        let element = element.filter(|element| count < capacity && element.is_within_page());
        let element = element.ok_or(EIO)?;
        let raw = bindings::bio_vec {
            bv_page: element.page.as_ptr(),
            bv_len: element.len,
            bv_offset: element.offset,
        };
        // SAFETY: The table has memory for `capacity` elements. No other code accesses it: the only
        // caller, `submit`, owns `owner`, and the vector is empty, so no reference covers it.
        unsafe { table.add(usize::from(count)).write(raw) };
        count = count.saturating_add(1);
        bytes = bytes.saturating_add(element.len);
    }
    // A flush without data gets no table: the block layer must not read elements that `fill` has
    // not written.
    let (table, capacity) = match count {
        0 => (null_mut(), 0),
        _ => (table, capacity),
    };
    // SAFETY: The bio is not in use, because `submit` owns `owner`. The first `count` elements of
    // the table are initialised, are within their pages and have `bytes` bytes in total. `owner`
    // keeps their pages valid and the device open until `end_io`.
    unsafe {
        bindings::bio_init(
            bio,
            owner.device().as_ptr(),
            table,
            capacity,
            operation(owner),
        );
        (*bio).bi_vcnt = count;
        (*bio).bi_iter.bi_size = bytes;
        (*bio).bi_iter.bi_sector = owner.sector();
    }
    Ok(())
}

/// The flags of direct I/O: a process of the guest may wait for the write, and the block layer
/// should not delay it in the hope of a merge.
const DIRECT_WRITE: u32 =
    (1 << bindings::req_flag_bits___REQ_SYNC) | (1 << bindings::req_flag_bits___REQ_IDLE);
const NO_MERGE: u32 = 1 << bindings::req_flag_bits___REQ_NOMERGE;
const PREFLUSH: u32 = 1 << bindings::req_flag_bits___REQ_PREFLUSH;
const FUA: u32 = 1 << bindings::req_flag_bits___REQ_FUA;

/// The `bi_end_io` callback.
extern "C" fn end_io<T: BioOwner>(bio: *mut bindings::bio) {
    // SAFETY: The block layer calls this once for each bio that `submit` has submitted, and does
    // not use the bio any more. `submit` has set `bi_private` to the owner, a `KBox<T>`.
    let (owner, status) = unsafe {
        let owner = KBox::from_raw((*bio).bi_private.cast::<T>());
        let status = (*bio).bi_status;
        bindings::bio_uninit(bio);
        (owner, status)
    };
    let outcome = match status {
        0 => Ok(()),
        // SAFETY: The call has no preconditions.
        status => to_result(unsafe { bindings::blk_status_to_errno(status) }),
    };
    T::end_io(owner, outcome);
}

/// Delays the bios that the current task submits until the plug is dropped, so that the device gets
/// them together (`struct blk_plug`).
///
/// # Invariants
///
/// `blk_start_plug` was called for `plug` in the current task. The type is not `Send`, so this is
/// the task that created the plug.
#[pin_data(PinnedDrop)]
pub(crate) struct Plug {
    #[pin]
    plug: Opaque<bindings::blk_plug>,
    _not_send: kernel::types::NotThreadSafe,
}

impl Plug {
    /// Plugs the current task.
    ///
    /// Context: process.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            plug <- Opaque::ffi_init(|plug| {
                // SAFETY: `plug` is valid for writes and pinned. `drop` finishes it before the
                // memory is freed.
                unsafe { bindings::blk_start_plug(plug) }
            }),
            _not_send: kernel::types::NotThreadSafe,
        })
    }

    /// Calls `submit` for each of the `count` items. Each call may submit one bio. The block layer
    /// allocates requests for up to [`PLUG_IOS_MAX`] of the bios at a time.
    pub(crate) fn each<I>(
        &self,
        items: impl Iterator<Item = I>,
        count: usize,
        mut submit: impl FnMut(I),
    ) {
        let (mut expected, mut remaining) = (0, count);
        for item in items {
            if expected == 0 {
                expected = u16::try_from(remaining).unwrap_or(PLUG_IOS_MAX);
                expected = expected.min(PLUG_IOS_MAX);
                // SAFETY: By the type invariant the plug is initialised and is that of the current
                // task. Only the current task accesses its plug.
                unsafe { bindings::xbk_plug_expect(self.plug.get(), expected) };
            }
            expected = expected.saturating_sub(1);
            remaining = remaining.saturating_sub(1);
            submit(item);
        }
    }
}

#[pinned_drop]
impl PinnedDrop for Plug {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: By the type invariant the current task started the plug.
        unsafe { bindings::blk_finish_plug(self.plug.get()) };
    }
}
