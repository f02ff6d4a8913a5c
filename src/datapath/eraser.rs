// SPDX-License-Identifier: GPL-2.0

//! Discards of one ring, one after the other, beside everything else.
//!
//! A device may take minutes over a discard, and the call that asks for one waits for
//! it. So they have a work item and a queue of their own: reads and
//! writes pass them by. When the ring is to be let go, the rest of a discard is given
//! up: it is a hint, and nobody should wait for it. The guest may go on under another
//! driver, so it is told of an error only if it asked for a secure one.
//!
//! Lock: a spinlock, process context only; a leaf.

use kernel::{
    new_spinlock,
    prelude::*,
    sync::{
        Arc,
        SpinLock, //
    }, //
};

use super::gate::Pass;
use super::ring::Answer;
use crate::disk::Disk;
use crate::logic::abi::Status;
use crate::logic::erasure::Erasure;

/// Sectors of 512 bytes that are discarded with one call: after each, the eraser looks
/// whether it is to stop. 1 GiB.
const PIECE: u64 = 1 << 21;

/// One admitted discard.
pub(crate) struct Errand {
    /// The disk.
    pub(super) disk: Arc<Disk>,
    /// What to discard.
    pub(super) erasure: Erasure,
    /// What the guest is told; the status is still to come.
    pub(super) answer: Answer,
    /// The right to do so.
    pub(super) _pass: Pass,
}

impl Errand {
    /// Does it. Sleeps, for as long as the device takes.
    pub(super) fn run(mut self, stop: impl Fn() -> bool) -> Answer {
        let device = self.disk.device();
        let secure = self.erasure.is_secure();
        self.answer.status = Status::Okay;
        while let Some((sector, sectors)) = self.erasure.next_piece(PIECE) {
            if stop() {
                if secure {
                    self.answer.status = Status::Error;
                }
                break;
            }
            if let Err(e) = device.discard(sector, sectors, secure) {
                self.answer.status = if e == EOPNOTSUPP {
                    Status::Unsupported
                } else {
                    Status::Error
                };
                break;
            }
        }
        self.answer
    }
}

/// The discards of a ring that wait, the first to come the first to go.
struct Waiting {
    /// As they come.
    last: KVec<Errand>,
    /// The next one at the end; refilled from `last`, turned round, when it is empty.
    first: KVec<Errand>,
}

/// The discards that wait.
#[pin_data]
pub(crate) struct Errands {
    #[pin]
    waiting: SpinLock<Waiting>,
}

impl Errands {
    /// None, with room for one per slot of a ring of `entries`. Sleeps.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(entries: usize) -> Result<impl PinInit<Self>> {
        let waiting = Waiting {
            last: KVec::with_capacity(entries, GFP_KERNEL)?,
            first: KVec::with_capacity(entries, GFP_KERNEL)?,
        };
        Ok(pin_init!(Self {
            waiting <- new_spinlock!(waiting, "rblkback::errands"),
        }))
    }

    /// Adds one.
    ///
    /// # Errors
    ///
    /// Gives its answer back if there is no room: the ring has more discards than slots.
    pub(crate) fn put(&self, errand: Errand) -> Result<(), Answer> {
        let mut waiting = self.waiting.lock();
        let left = waiting.last.push_within_capacity(errand);
        drop(waiting);
        left.map_err(|rest| rest.0.answer)
    }

    /// Takes the one that came first.
    pub(crate) fn take(&self) -> Option<Errand> {
        let mut waiting = self.waiting.lock();
        let Waiting { last, first } = &mut *waiting;
        if first.is_empty() {
            core::mem::swap(last, first);
            first.reverse();
        }
        first.pop()
    }
}
