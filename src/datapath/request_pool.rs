// SPDX-License-Identifier: GPL-2.0

//! Memory for requests.
//!
//! Nothing is set aside for what a guest might send: memory is allocated when a request comes, in
//! one of three sizes, and some of it is kept for the next ones. Memory of the largest size is
//! there from the start and never given away, so that a ring makes progress when memory is short; and
//! so is some for a discard, if the device takes any.
//!
//! Context: the thread of the ring, under its lock.

use kernel::{
    prelude::*,
    sync::Arc, //
};

use super::backing_device::BackingDevice;
use super::completions::Completions;
use super::pending_request::Free;
use super::pending_request::PendingRequest;
use super::pending_request::RequestQueue;
use crate::logic::protocol::abi::INDIRECT_MAX;
use crate::logic::protocol::abi::SEGMENTS_MAX;

/// The sizes of memory, in segments: a direct request, an indirect one as Linux sends them by
/// default, the largest.
const SIZES: [usize; 3] = [SEGMENTS_MAX, 32, INDIRECT_MAX as usize];
const LARGEST: usize = SIZES.len() - 1;
/// How much memory of the largest size is kept at most; of each other, as much as the ring has
/// slots. A ring is emptied and filled in one go, and to allocate the memory of a request costs
/// nearly as much as all else that dom0 does for a read of 4 KiB.
const LARGEST_KEPT: usize = 4;

/// The spare memory of one ring.
pub(crate) struct RequestPool {
    completions: Arc<Completions>,
    device: Arc<BackingDevice>,
    spare: [RequestQueue<Free>; SIZES.len()],
    takes_discards: bool,
    /// For a discard, when there is no other memory: a ring makes progress with those as well.
    for_discard: Option<PendingRequest<Free>>,
    /// How many of the first two sizes are kept at most.
    kept: usize,
}

impl RequestPool {
    /// A pool for a ring of `entries` slots. Sleeps.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(
        completions: Arc<Completions>,
        device: Arc<BackingDevice>,
        entries: usize,
    ) -> Result<Self> {
        let new = |segments| {
            PendingRequest::new(completions.clone(), device.clone(), segments, GFP_KERNEL)
        };
        let first = new(usize::from(INDIRECT_MAX))?;
        let for_discard = match device.discard() {
            Some(_) => Some(new(SEGMENTS_MAX)?),
            None => None,
        };
        let mut spare = [const { RequestQueue::new() }; SIZES.len()];
        if let Some(largest) = spare.last_mut() {
            largest.push_front(first);
        }
        Ok(Self {
            completions,
            takes_discards: for_discard.is_some(),
            device,
            spare,
            for_discard,
            kept: entries,
        })
    }

    /// Memory for one more request of `segments` segments; `None` if there is none, in which case a
    /// request in flight will bring its own back. Does not sleep.
    pub(crate) fn take(&mut self, segments: usize) -> Option<PendingRequest<Free>> {
        let index = SIZES.iter().position(|size| segments <= *size)?;
        if let Some(free) = self.spare.get_mut(index)?.pop_front() {
            return Some(free);
        }
        self.allocate(index).or_else(|| {
            let larger = self.spare.iter_mut().skip(index.saturating_add(1));
            larger.into_iter().find_map(RequestQueue::pop_front)
        })
    }

    /// Memory for a discard, which a device may take minutes over: never of the largest size, with which
    /// reads and writes go on when memory is short. `None` if there is no other, in which case a discard
    /// that is under way will bring its own back. Does not sleep.
    pub(crate) fn take_for_discard(&mut self) -> Option<PendingRequest<Free>> {
        let mut smaller = self.spare.iter_mut().take(LARGEST);
        let spare = smaller.find_map(RequestQueue::pop_front);
        spare
            .or_else(|| self.allocate(0))
            .or_else(|| self.for_discard.take())
    }

    #[cold]
    fn allocate(&self, index: usize) -> Option<PendingRequest<Free>> {
        let (completions, device) = (self.completions.clone(), self.device.clone());
        let flags = GFP_NOWAIT | __GFP_NOWARN;
        PendingRequest::new(completions, device, *SIZES.get(index)?, flags).ok()
    }

    /// Frees what is spare, but for memory for one request of the largest size.
    pub(crate) fn shrink(&mut self) {
        for (spare, keep) in self.spare.iter_mut().zip([0, 0, 1]) {
            while spare.len() > keep {
                drop(spare.pop_front());
            }
        }
    }

    /// Takes back the memory of a request that has its response.
    pub(crate) fn put(&mut self, free: PendingRequest<Free>) {
        if self.takes_discards && self.for_discard.is_none() && free.segments() == SEGMENTS_MAX {
            self.for_discard = Some(free);
            return;
        }
        let index = SIZES.iter().position(|size| *size == free.segments());
        let most = match index {
            Some(LARGEST) => LARGEST_KEPT,
            _ => self.kept,
        };
        if let Some(spare) = index.and_then(|index| self.spare.get_mut(index)) {
            // What is too much is simply freed.
            if spare.len() < most {
                // The one whose memory the processor has at hand is the next.
                spare.push_front(free);
            }
        }
    }
}
