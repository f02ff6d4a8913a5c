// SPDX-License-Identifier: GPL-2.0

//! Discards of one ring, which run one after the other, beside all other requests.
//!
//! A device may take minutes over a discard, and the call that asks for one waits for it. So
//! discards have a work item and a workqueue of their own; reads and writes pass them by. When the
//! ring is to be disconnected, the rest of a discard is given up: a discard is a hint, and nothing
//! should wait for it. The guest may go on under another driver, so it gets an error only if it
//! asked for a secure discard. While the guest is suspended, what is left of a discard waits
//! ([`super::run_check`]).
//!
//! Lock: a spinlock for process context, under which no other is taken.

use kernel::{
    new_spinlock,
    prelude::*,
    sync::{
        Arc,
        SpinLock, //
    }, //
};

use super::backing_device::BackingDevice;
use super::ring::Response;
use super::run_check::Verdict;
use crate::logic::protocol::abi::Status;
use crate::logic::protocol::discard::CheckedDiscard;
use crate::qos::permit::Permit;

/// Sectors of 512 bytes that are discarded with one call: after each, the work item
/// looks whether it is to stop. 1 GiB.
const PIECE: u64 = 1 << 21;

/// One admitted discard.
pub(crate) struct DiscardRequest {
    /// The device.
    pub(super) device: Arc<BackingDevice>,
    /// What to discard.
    pub(super) range: CheckedDiscard,
    /// What the guest is told; the status is still to come.
    pub(super) response: Response,
    /// The right to do so.
    pub(super) _permit: Permit,
}

impl DiscardRequest {
    /// Discards the range, for as long as `verdict` says so before each piece. Returns `None` if the rest
    /// is to be held. Sleeps, for as long as the device takes.
    pub(super) fn run(&mut self, verdict: impl Fn() -> Verdict) -> Option<Response> {
        let device = self.device.block_device();
        let secure = self.range.is_secure();
        self.response.status = Status::Okay;
        let granule = self.device.discard_granule();
        while !self.range.is_done() {
            // Before the piece is taken off the range. One that is done needs no verdict.
            match verdict() {
                Verdict::Submit => {}
                Verdict::Hold => return None,
                Verdict::GiveUp => {
                    if secure {
                        self.response.status = Status::Error;
                    }
                    break;
                }
            }
            let Some((sector, sectors)) = self.range.next_piece(PIECE, granule) else {
                break;
            };
            if let Err(e) = device.discard(sector, sectors, secure) {
                self.response.status = if e == EOPNOTSUPP {
                    Status::Unsupported
                } else {
                    Status::Error
                };
                break;
            }
        }
        Some(self.response)
    }
}

/// The discards of a ring that wait, the first to come the first to go.
struct Waiting {
    /// As they come.
    last: KVec<DiscardRequest>,
    /// The next one at the end; refilled from `last`, turned round, when it is empty.
    first: KVec<DiscardRequest>,
}

impl Waiting {
    fn new(entries: usize) -> Result<Self> {
        Ok(Self {
            last: KVec::with_capacity(entries, GFP_KERNEL)?,
            first: KVec::with_capacity(entries, GFP_KERNEL)?,
        })
    }
}

/// The discards that wait.
#[pin_data]
pub(crate) struct DiscardQueue {
    #[pin]
    waiting: SpinLock<Waiting>,
}

impl DiscardQueue {
    /// An empty queue, without capacity.
    pub(crate) fn new() -> impl PinInit<Self> {
        let waiting = Waiting {
            last: KVec::new(),
            first: KVec::new(),
        };
        pin_init!(Self {
            waiting <- new_spinlock!(waiting, "rblkback::discards"),
        })
    }

    /// Has capacity for one discard per slot of a ring of `entries` from now on. To be called while no
    /// discard waits. Sleeps.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn reserve(&self, entries: usize) -> Result {
        let mut waiting = Waiting::new(entries)?;
        core::mem::swap(&mut *self.waiting.lock(), &mut waiting);
        Ok(())
    }

    /// Adds one.
    ///
    /// # Errors
    ///
    /// Gives the response back if the queue is full: the ring has more discards than slots.
    pub(crate) fn put(&self, discard: DiscardRequest) -> Result<(), Response> {
        let mut waiting = self.waiting.lock();
        let left = waiting.last.push_within_capacity(discard);
        drop(waiting);
        left.map_err(|rest| rest.0.response)
    }

    /// Puts one back that [`Self::take`] gave: it is the next one again.
    pub(crate) fn put_back(&self, discard: DiscardRequest) {
        let mut waiting = self.waiting.lock();
        // There is capacity for one per slot.
        let left = waiting.first.push_within_capacity(discard);
        drop(waiting);
        drop(left);
    }

    /// Takes the one that came first.
    pub(crate) fn take(&self) -> Option<DiscardRequest> {
        let mut waiting = self.waiting.lock();
        let Waiting { last, first } = &mut *waiting;
        if first.is_empty() {
            core::mem::swap(last, first);
            first.reverse();
        }
        first.pop()
    }
}
