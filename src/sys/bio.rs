// SPDX-License-Identifier: GPL-2.0

//! Sending requests to a block device.
//!
//! What a bio works on travels with it by value and comes back by value when the
//! device has answered. The bio itself is a part of it, so that a request whose memory is
//! used again needs none of the kernel's.
//!
//! C headers: [`include/linux/bio.h`](srctree/include/linux/bio.h),
//! [`include/linux/blkdev.h`](srctree/include/linux/blkdev.h)

use kernel::{
    bindings,
    error::to_result,
    prelude::*,
    types::Opaque, //
};

use super::bdev::BlockDevice;
use super::helpers;
use super::thread::Uninterrupted;
use crate::xenbus::grant::IoPage;

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

/// Where a bio's bytes lie: `len` bytes at `offset` of a page.
pub(crate) struct Piece<'a> {
    /// The page.
    pub(crate) page: IoPage<'a>,
    /// First byte within the page.
    pub(crate) offset: u32,
    /// Bytes.
    pub(crate) len: u32,
}

/// Room for a bio and its pieces.
pub(crate) struct BioRoom {
    bio: Opaque<bindings::bio>,
    /// Written by [`fill`], read by the block layer. Has no elements of its own, only their
    /// room.
    pieces: KVec<bindings::bio_vec>,
}

// SAFETY: Between `submit` and `end_io` it belongs to the block layer, which sees to that
// itself; before and after it is plain memory.
unsafe impl Send for BioRoom {}

impl BioRoom {
    /// Room for `pieces` pieces.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(pieces: usize, flags: kernel::alloc::Flags) -> Result<Self> {
        Ok(Self {
            bio: Opaque::uninit(),
            pieces: KVec::with_capacity(pieces, flags)?,
        })
    }
}

/// Owns everything that a bio works on, from [`submit`] to [`Io::end_io`]. Being
/// boxed and given away, it cannot change or lose any of it meanwhile.
pub(crate) trait Io: Sized + Send + 'static {
    /// The bio; a part of `self`.
    fn room(&self) -> &BioRoom;

    /// The device it goes to.
    fn device(&self) -> &BlockDevice;

    /// What it does.
    fn direction(&self) -> Direction;

    /// The first sector, of 512 bytes.
    fn sector(&self) -> u64;

    /// Is there nothing to merge it with?
    fn is_alone(&self) -> bool;

    /// The pieces, in order; `None` for one that is not there.
    fn pieces(&self) -> impl Iterator<Item = Option<Piece<'_>>>;

    /// The device has answered. May run in hard interrupt context: must not sleep, is not
    /// preempted, and no grace period of RCU ends meanwhile.
    fn end_io(this: KBox<Self>, outcome: Result);
}

/// Sends `owner`'s bio to the device. Waits for room in the device's queue: sleeps.
///
/// # Errors
///
/// Gives `owner` back if a piece is not there, if they do not fit into the bio's room, or if
/// that is no part of it.
pub(crate) fn submit<T: Io>(owner: KBox<T>) -> Result<(), KBox<T>> {
    let raw = KBox::into_raw(owner);
    // SAFETY: It was a box just now and is given away only below.
    let owner = unsafe { &*raw };
    let room = owner.room();
    if !is_part(room, owner) || fill(owner, room).is_err() {
        // SAFETY: Nobody else has it.
        return Err(unsafe { KBox::from_raw(raw) });
    }
    let bio = room.bio.get();
    // SAFETY: `fill` has made a bio of it. What it works on, itself included, lives and
    // stays as it is until `end_io` takes the box back. Submitted exactly once.
    unsafe {
        (*bio).bi_private = raw.cast();
        (*bio).bi_end_io = Some(end_io::<T>);
        bindings::submit_bio(bio);
    }
    Ok(())
}

fn operation<T: Io>(owner: &T) -> u32 {
    let merge = if owner.is_alone() { NO_MERGE } else { 0 };
    merge
        | match owner.direction() {
            Direction::Read => bindings::req_op_REQ_OP_READ,
            Direction::Write => bindings::req_op_REQ_OP_WRITE | DIRECT_WRITE,
            Direction::FlushThenWrite => bindings::req_op_REQ_OP_WRITE | DIRECT_WRITE | PREFLUSH,
            // A flush without data has nothing to write through.
            Direction::FlushThenWriteThrough if owner.pieces().next().is_none() => {
                bindings::req_op_REQ_OP_WRITE | DIRECT_WRITE | PREFLUSH
            }
            Direction::FlushThenWriteThrough => {
                bindings::req_op_REQ_OP_WRITE | DIRECT_WRITE | PREFLUSH | FUA
            }
        }
}

/// Does `room` lie within `owner`? Then it is nobody else's. The compiler sees that it does.
fn is_part<T>(room: &BioRoom, owner: &T) -> bool {
    let offset = core::ptr::from_ref(room)
        .addr()
        .wrapping_sub(core::ptr::from_ref(owner).addr());
    let last = size_of::<T>().checked_sub(size_of::<BioRoom>());
    last.is_some_and(|last| offset <= last)
}

/// Makes a bio of `room`, which is a part of `owner`.
///
/// # Errors
///
/// `EIO` if a piece is not there or there are more than it has room for; then it is no bio.
fn fill<T: Io>(owner: &T, room: &BioRoom) -> Result {
    let bio = room.bio.get();
    let table = room.pieces.as_ptr().cast_mut();
    let most = u16::try_from(room.pieces.capacity()).unwrap_or(u16::MAX);
    let (mut count, mut bytes) = (0_u16, 0_u32);
    for piece in owner.pieces() {
        let piece = piece.filter(|_| count < most).ok_or(EIO)?;
        let element = bindings::bio_vec {
            bv_page: piece.page.as_ptr(),
            bv_len: piece.len,
            bv_offset: piece.offset,
        };
        // SAFETY: The table has room for `most` elements, and nobody else looks at them: the
        // room is a part of the owner, who is ours, and no reference covers them, for the
        // vector has none.
        unsafe { table.add(usize::from(count)).write(element) };
        count = count.saturating_add(1);
        bytes = bytes.saturating_add(piece.len);
    }
    // SAFETY: No bio is in use in the room; the table has room for `most` elements, of which
    // the first `count` are valid, with `bytes` bytes in all, and whose pages the owner keeps,
    // see `submit`; the device is open.
    unsafe {
        bindings::bio_init(bio, owner.device().as_ptr(), table, most, operation(owner));
        (*bio).bi_vcnt = count;
        (*bio).bi_iter.bi_size = bytes;
        (*bio).bi_iter.bi_sector = owner.sector();
    }
    Ok(())
}

/// Somebody waits for the answer, and there is nothing to merge with later.
const DIRECT_WRITE: u32 =
    (1 << bindings::req_flag_bits___REQ_SYNC) | (1 << bindings::req_flag_bits___REQ_IDLE);
const NO_MERGE: u32 = 1 << bindings::req_flag_bits___REQ_NOMERGE;
const PREFLUSH: u32 = 1 << bindings::req_flag_bits___REQ_PREFLUSH;
const FUA: u32 = 1 << bindings::req_flag_bits___REQ_FUA;

extern "C" fn end_io<T: Io>(bio: *mut bindings::bio) {
    // The block layer may call this in a thread, too, that could be preempted.
    let _here = Uninterrupted::new();
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

/// Holds submitted bios back until it is dropped, so that the device gets them
/// together.
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
                unsafe { helpers::xbk_plug_expect(self.plug.get(), expected) };
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
