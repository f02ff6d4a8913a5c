// SPDX-License-Identifier: GPL-2.0

//! Sending one request to a block device.
//!
//! What a bio works on travels with it by value and comes back by value when the
//! device has answered.
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
    /// As that, and what it carries is durable itself when it is answered.
    FlushThenWriteThrough,
}

/// Where a bio's bytes lie: `len` bytes at `offset` of a page.
pub(crate) struct Piece<'a> {
    /// The page, mapped.
    pub(crate) page: ForeignPage<'a>,
    /// First byte within the page.
    pub(crate) offset: u32,
    /// Bytes.
    pub(crate) len: u32,
}

/// Owns everything that a bio works on, from [`submit`] to [`Io::end_io`]. Being
/// boxed and given away, it cannot change or lose any of it meanwhile.
pub(crate) trait Io: Sized + Send + 'static {
    /// The device it goes to.
    fn device(&self) -> &BlockDevice;

    /// What it does.
    fn direction(&self) -> Direction;

    /// The first sector, of 512 bytes.
    fn sector(&self) -> u64;

    /// How many pieces there are at most.
    fn piece_count(&self) -> u16;

    /// The pieces, in order.
    fn pieces(&self) -> impl Iterator<Item = Piece<'_>>;

    /// The device has answered. May run in hard interrupt context: must not sleep.
    fn end_io(this: KBox<Self>, outcome: Result);
}

/// Sends `owner`'s bio to the device. Waits for memory and for room in the device's
/// queue: sleeps.
///
/// # Errors
///
/// Gives `owner` back if its pieces do not fit into one bio.
pub(crate) fn submit<T: Io>(owner: KBox<T>) -> Result<(), KBox<T>> {
    let Ok(bio) = build(&*owner) else {
        return Err(owner);
    };
    // SAFETY: `bio` was made for `owner`, which lives until `end_io` takes it back:
    // device and pages stay. Submitted exactly once.
    unsafe {
        (*bio.as_ptr()).bi_private = KBox::into_raw(owner).cast();
        (*bio.as_ptr()).bi_end_io = Some(end_io::<T>);
        bindings::submit_bio(bio.as_ptr());
    }
    Ok(())
}

fn build<T: Io>(owner: &T) -> Result<NonNull<bindings::bio>> {
    let opf = match owner.direction() {
        Direction::Read => bindings::req_op_REQ_OP_READ,
        Direction::Write => bindings::req_op_REQ_OP_WRITE | DIRECT_WRITE,
        Direction::FlushThenWrite => bindings::req_op_REQ_OP_WRITE | DIRECT_WRITE | PREFLUSH,
        // A flush without data has nothing to write through.
        Direction::FlushThenWriteThrough if owner.piece_count() == 0 => {
            bindings::req_op_REQ_OP_WRITE | DIRECT_WRITE | PREFLUSH
        }
        Direction::FlushThenWriteThrough => {
            bindings::req_op_REQ_OP_WRITE | DIRECT_WRITE | PREFLUSH | FUA
        }
    };
    // SAFETY: The device is open.
    let bio = unsafe { helpers::xbk_bio_alloc(owner.device().as_ptr(), owner.piece_count(), opf) };
    let bio = NonNull::new(bio).ok_or(ENOMEM)?;
    // SAFETY: Allocated just now.
    unsafe { (*bio.as_ptr()).bi_iter.bi_sector = owner.sector() };
    for piece in owner.pieces() {
        // SAFETY: The bio is ours; the page is mapped and stays so, see `submit`.
        let added = unsafe {
            bindings::bio_add_page(bio.as_ptr(), piece.page.as_ptr(), piece.len, piece.offset)
        };
        if added != piece.len as c_int {
            // SAFETY: The bio is ours and was not submitted.
            unsafe { bindings::bio_put(bio.as_ptr()) };
            return Err(EIO);
        }
    }
    Ok(bio)
}

/// Somebody waits for the answer, and there is nothing to merge with later.
const DIRECT_WRITE: u32 =
    (1 << bindings::req_flag_bits___REQ_SYNC) | (1 << bindings::req_flag_bits___REQ_IDLE);
const PREFLUSH: u32 = 1 << bindings::req_flag_bits___REQ_PREFLUSH;
const FUA: u32 = 1 << bindings::req_flag_bits___REQ_FUA;

extern "C" fn end_io<T: Io>(bio: *mut bindings::bio) {
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
