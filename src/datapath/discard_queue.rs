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
    sync::SpinLock, //
};

use super::pending_request::Discard;
use super::pending_request::PendingRequest;
use super::pending_request::RequestQueue;
use super::run_check::Verdict;
use crate::logic::protocol::abi::Status;
use crate::sys::bdev::is_unsupported;

/// Sectors of 512 bytes that are discarded with one call at most: after each, the work item looks whether
/// it is to stop. 1 GiB. Nor are they more than the device takes as one request, unless what it discards as a
/// whole is more: the block layer would send the others one after the other, also when the guest has been
/// suspended meanwhile.
const PIECE: u64 = 1 << 21;

impl PendingRequest<Discard> {
    /// Discards the range, for as long as `verdict` says so before each piece. Returns what the guest is
    /// told, or `None` if the rest is to be held. Sleeps, for as long as the device takes.
    pub(super) fn run(&mut self, verdict: impl Fn() -> Verdict) -> Option<Status> {
        let Some((device, range)) = self.parts() else {
            return Some(Status::Error);
        };
        let secure = range.is_secure();
        let granule = device.discard_granule();
        let most = device.discard_sectors_max(secure).min(PIECE);
        while !range.is_done() {
            // Before the piece is taken off the range. One that is done needs no verdict.
            match verdict() {
                Verdict::Submit => {}
                Verdict::Hold => return None,
                Verdict::GiveUp if secure => return Some(Status::Error),
                Verdict::GiveUp => return Some(Status::Okay),
            }
            let Some((sector, sectors)) = range.next_piece(most, granule) else {
                break;
            };
            if let Err(e) = device.block_device().discard(sector, sectors, secure) {
                return Some(if is_unsupported(e) {
                    Status::Unsupported
                } else {
                    Status::Error
                });
            }
        }
        Some(Status::Okay)
    }
}

/// The discards that wait.
#[pin_data]
pub(crate) struct DiscardQueue {
    #[pin]
    waiting: SpinLock<RequestQueue<Discard>>,
}

impl DiscardQueue {
    /// An empty queue.
    pub(crate) fn new() -> impl PinInit<Self> {
        let waiting = RequestQueue::new();
        pin_init!(Self {
            waiting <- new_spinlock!(waiting, "rblkback::discards"),
        })
    }

    /// Adds one.
    pub(crate) fn put(&self, discard: PendingRequest<Discard>) {
        self.waiting.lock().push_back(discard);
    }

    /// Puts one back that [`Self::take`] gave: it is the next one again.
    pub(crate) fn put_back(&self, discard: PendingRequest<Discard>) {
        self.waiting.lock().push_front(discard);
    }

    /// Takes the one that came first.
    pub(crate) fn take(&self) -> Option<PendingRequest<Discard>> {
        self.waiting.lock().pop_front()
    }
}
