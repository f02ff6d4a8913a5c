// SPDX-License-Identifier: GPL-2.0

//! Submitting bios to a block device.
//!
//! The owner of a bio, and with it all memory that the bio works on, is given away with
//! [`submit`] and comes back with [`BioOwner::end_io`]. The bio itself is a part of its owner, so
//! that a request whose memory is used again allocates nothing.
//!
//! C headers: [`include/linux/bio.h`](srctree/include/linux/bio.h),
//! [`include/linux/blkdev.h`](srctree/include/linux/blkdev.h)

use core::ptr::null_mut;

use kernel::{
    error::to_result,
    page::BorrowedPage,
    prelude::*,
    types::Opaque, //
};

use super::bdev::BlockDevice;
use super::bindings;
use super::preempt::PreemptGuard;

/// Requests that the block layer is asked to set aside at a time: one look at the device's
/// free ones does for all.
const AT_ONCE: u16 = 8;

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
    /// As that, and what it carries is durable itself when it is answered.
    FlushThenWriteThrough,
}

/// An element of a bio: `len` bytes at `offset` of a page (`struct bio_vec`).
pub(crate) struct BioVec<'a> {
    /// The page.
    pub(crate) page: BorrowedPage<'a>,
    /// First byte within the page.
    pub(crate) offset: u32,
    /// Bytes.
    pub(crate) len: u32,
}

/// Memory for a bio and its elements, to be embedded in a [`BioOwner`].
pub(crate) struct InlineBio {
    bio: Opaque<bindings::bio>,
    /// The memory of the elements. [`fill`] writes them, the block layer reads them; the vector
    /// itself stays empty.
    table: KVec<bindings::bio_vec>,
}

// SAFETY: Between `submit` and `end_io` it belongs to the block layer, which sees to that
// itself; before and after it is plain memory.
unsafe impl Send for InlineBio {}

impl InlineBio {
    /// Memory for a bio of `elements` elements.
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

/// The owner of a bio and of everything that the bio works on, from [`submit`] to
/// [`BioOwner::end_io`]. It is boxed and given away, so it cannot change or lose any of that
/// meanwhile.
pub(crate) trait BioOwner: Sized + Send + 'static {
    /// The bio, which is a part of `self`.
    fn bio(&self) -> &InlineBio;

    /// The device it goes to.
    fn device(&self) -> &BlockDevice;

    /// What it does.
    fn direction(&self) -> Direction;

    /// The first sector, of 512 bytes.
    fn sector(&self) -> u64;

    /// Should the device's queue not look for a request to merge the bio with (`REQ_NOMERGE`)?
    fn is_nomerge(&self) -> bool;

    /// The elements, in order; `None` for one whose page is missing.
    fn elements(&self) -> impl Iterator<Item = Option<BioVec<'_>>>;

    /// The device has answered. Context: up to hard interrupt, with preemption disabled, so it
    /// must not sleep, and no RCU grace period ends meanwhile.
    fn end_io(this: KBox<Self>, outcome: Result);
}

/// Submits `owner`'s bio to its device. Context: process; sleeps while the device's queue is full.
///
/// # Errors
///
/// Gives `owner` back if a page is missing, if there are more elements than the bio has memory
/// for, or if the bio is no part of `owner`.
pub(crate) fn submit<T: BioOwner>(owner: KBox<T>) -> Result<(), KBox<T>> {
    let raw = KBox::into_raw(owner);
    // SAFETY: It was a box just now and is given away only below.
    let owner = unsafe { &*raw };
    let inline = owner.bio();
    if !is_part(inline, owner) || fill(owner, inline).is_err() {
        // SAFETY: Nobody else has it.
        return Err(unsafe { KBox::from_raw(raw) });
    }
    let bio = inline.bio.get();
    // SAFETY: `fill` has made a bio of it. What it works on, itself included, lives and
    // stays as it is until `end_io` takes the box back. Submitted exactly once.
    unsafe {
        (*bio).bi_private = raw.cast();
        (*bio).bi_end_io = Some(end_io::<T>);
        bindings::submit_bio(bio);
    }
    Ok(())
}

fn operation<T: BioOwner>(owner: &T) -> u32 {
    let merge = if owner.is_nomerge() { NO_MERGE } else { 0 };
    merge
        | match owner.direction() {
            Direction::Read => bindings::req_op_REQ_OP_READ,
            Direction::Write => bindings::req_op_REQ_OP_WRITE | DIRECT_WRITE,
            Direction::FlushThenWrite => bindings::req_op_REQ_OP_WRITE | DIRECT_WRITE | PREFLUSH,
            // A flush without data has nothing to write through.
            Direction::FlushThenWriteThrough if owner.elements().next().is_none() => {
                bindings::req_op_REQ_OP_WRITE | DIRECT_WRITE | PREFLUSH
            }
            Direction::FlushThenWriteThrough => {
                bindings::req_op_REQ_OP_WRITE | DIRECT_WRITE | PREFLUSH | FUA
            }
        }
}

/// Does `inline` lie within `owner`? Then nobody else has it. The compiler sees that it does.
fn is_part<T>(inline: &InlineBio, owner: &T) -> bool {
    let offset = core::ptr::from_ref(inline)
        .addr()
        .wrapping_sub(core::ptr::from_ref(owner).addr());
    let last = size_of::<T>().checked_sub(size_of::<InlineBio>());
    last.is_some_and(|last| offset <= last)
}

/// Makes a bio of `inline`, which is a part of `owner`.
///
/// # Errors
///
/// `EIO` if a page is missing or there are more elements than there is memory for; then it is no
/// bio.
fn fill<T: BioOwner>(owner: &T, inline: &InlineBio) -> Result {
    let bio = inline.bio.get();
    let table = inline.table.as_ptr().cast_mut();
    let most = u16::try_from(inline.table.capacity()).unwrap_or(u16::MAX);
    let (mut count, mut bytes) = (0_u16, 0_u32);
    for element in owner.elements() {
        let element = element.filter(|_| count < most).ok_or(EIO)?;
        let raw = bindings::bio_vec {
            bv_page: element.page.as_ptr(),
            bv_len: element.len,
            bv_offset: element.offset,
        };
        // SAFETY: The table has memory for `most` elements. Nobody else looks at it: `inline` is a
        // part of the owner, who is ours, and the vector is empty, so no reference covers it.
        unsafe { table.add(usize::from(count)).write(raw) };
        count = count.saturating_add(1);
        bytes = bytes.saturating_add(element.len);
    }
    // A flush without data has no table: the block layer must not see memory that was not written.
    let (table, most) = match count {
        0 => (null_mut(), 0),
        _ => (table, most),
    };
    // SAFETY: `inline` holds no bio that is in use. The first `count` elements of the table are
    // valid, have `bytes` bytes in all, and the owner keeps their pages, see `submit`. The device
    // is open.
    unsafe {
        bindings::bio_init(bio, owner.device().as_ptr(), table, most, operation(owner));
        (*bio).bi_vcnt = count;
        (*bio).bi_iter.bi_size = bytes;
        (*bio).bi_iter.bi_sector = owner.sector();
    }
    Ok(())
}

/// A guest waits for the answer, and nothing comes later that a write could be merged with.
const DIRECT_WRITE: u32 =
    (1 << bindings::req_flag_bits___REQ_SYNC) | (1 << bindings::req_flag_bits___REQ_IDLE);
const NO_MERGE: u32 = 1 << bindings::req_flag_bits___REQ_NOMERGE;
const PREFLUSH: u32 = 1 << bindings::req_flag_bits___REQ_PREFLUSH;
const FUA: u32 = 1 << bindings::req_flag_bits___REQ_FUA;

extern "C" fn end_io<T: BioOwner>(bio: *mut bindings::bio) {
    // The block layer may call this in a thread, too, that could be preempted.
    let _guard = PreemptGuard::new();
    // SAFETY: The block layer calls this once for the bio of `submit`, with the box
    // that was put into it there, and leaves both alone from here on.
    let (owner, status) = unsafe {
        let owner = KBox::from_raw((*bio).bi_private.cast::<T>());
        let status = (*bio).bi_status;
        bindings::bio_uninit(bio);
        (owner, status)
    };
    let outcome = match status {
        0 => Ok(()),
        // SAFETY: No preconditions.
        status => to_result(unsafe { bindings::blk_status_to_errno(status) }),
    };
    T::end_io(owner, outcome);
}

/// Holds submitted bios back until it is dropped, so that the device gets them together
/// (`struct blk_plug`).
///
/// # Invariants
///
/// The plug belongs to the current task, which is why it cannot be sent.
#[pin_data(PinnedDrop)]
pub(crate) struct Plug {
    #[pin]
    plug: Opaque<bindings::blk_plug>,
    _not_send: kernel::types::NotThreadSafe,
}

impl Plug {
    /// Plugs the current task.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            plug <- Opaque::ffi_init(|plug| {
                // SAFETY: `plug` is valid for writes and pinned; `drop` finishes it.
                unsafe { bindings::blk_start_plug(plug) }
            }),
            _not_send: kernel::types::NotThreadSafe,
        })
    }

    /// Calls `send` for each of `items`, of which there are `count`. It submits a bio at
    /// most.
    pub(crate) fn each<I>(
        &self,
        items: impl Iterator<Item = I>,
        count: usize,
        mut send: impl FnMut(I),
    ) {
        let (mut expected, mut left) = (0, count);
        for item in items {
            if expected == 0 {
                expected = u16::try_from(left).unwrap_or(AT_ONCE).min(AT_ONCE);
                // SAFETY: The plug is this task's (it cannot be sent), so nobody looks at it
                // now.
                unsafe { bindings::xbk_plug_expect(self.plug.get(), expected) };
            }
            expected = expected.saturating_sub(1);
            left = left.saturating_sub(1);
            send(item);
        }
    }
}

#[pinned_drop]
impl PinnedDrop for Plug {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: Started in `new` by this task (it cannot be sent).
        unsafe { bindings::blk_finish_plug(self.plug.get()) };
    }
}
