// SPDX-License-Identifier: GPL-2.0

//! Copies what requests move, where mapping would cost more: frames that do not stay mapped.
//!
//! Pages for that are allocated as requests come and given back when they are not needed. If there
//! is no page, or a ring uses as many as it may, frames are mapped instead: nothing waits for
//! memory.
//!
//! Context: the thread of the ring, under its lock.

use kernel::prelude::*;

use super::frame::Frame;
use super::pending_request::PendingRequest;
use crate::logic::protocol::abi::INDIRECT_MAX;
use crate::logic::protocol::request::Extent;
use crate::xenbus::copy::Buffer;
use crate::xenbus::copy::CopyBatch;
use crate::xenbus::copy::Part;

/// Parts copied with one call.
const BATCH: usize = INDIRECT_MAX as usize;

/// What a ring needs to copy.
pub(crate) struct Copier {
    domain: u16,
    batch: CopyBatch,
    /// Which request each part of the batch is of, by its place among those that are released.
    owners: KVec<usize>,
    spare: KVec<Buffer>,
    /// Pages that requests have.
    lent: usize,
    /// Pages that it may have in all.
    most: usize,
    /// It copied since this was asked last.
    active: bool,
}

impl Copier {
    /// For a ring of `domain`, whose requests may use `most` pages at a time. Sleeps.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(domain: u16, most: usize) -> Result<Self> {
        Ok(Self {
            domain,
            batch: CopyBatch::new(BATCH)?,
            owners: KVec::with_capacity(BATCH, GFP_KERNEL)?,
            spare: KVec::with_capacity(most.saturating_add(BATCH), GFP_KERNEL)?,
            lent: 0,
            most,
            active: false,
        })
    }

    /// Are there pages for `frames` frames? Does not sleep.
    pub(crate) fn reserve(&mut self, frames: usize) -> bool {
        self.lent.saturating_add(frames) <= self.most && self.allocate(frames)
    }

    /// Are there pages for the `frames` frames of a request that cannot be mapped? One such request
    /// at a time may have more pages than the ring may use otherwise. Does not sleep.
    pub(crate) fn reserve_instead(&mut self, frames: usize) -> bool {
        let most = self.most.saturating_add(BATCH);
        self.lent.saturating_add(frames) <= most && self.allocate(frames)
    }

    /// Does a request have a page?
    pub(crate) fn is_in_use(&self) -> bool {
        self.lent > 0
    }

    fn allocate(&mut self, frames: usize) -> bool {
        while self.spare.len() < frames {
            let Ok(buffer) = Buffer::new(GFP_NOWAIT | __GFP_NOWARN) else {
                return false;
            };
            // The vector has capacity for as many as there may be.
            let _ = self.spare.push_within_capacity(buffer);
        }
        true
    }

    /// A page for `extent`, after [`Self::reserve`] had one. `fetch`: it is to hold what
    /// the guest's frame does, as soon as [`Self::copy_from_guest`] was called.
    pub(crate) fn prepare(&mut self, extent: &Extent, fetch: bool) -> Option<Frame> {
        let buffer = self.spare.pop()?;
        self.lent = self.lent.saturating_add(1);
        self.active = true;
        if !fetch {
            return Some(Frame::Copied(buffer));
        }
        match self
            .batch
            .copy_from_frame(buffer, part(self.domain, extent))
        {
            Ok(()) => Some(Frame::CopyPending),
            Err(buffer) => {
                self.put(buffer);
                None
            }
        }
    }

    /// Copies what was prepared for it into `expected`, in the order of the calls. May
    /// sleep.
    pub(crate) fn copy_from_guest<'h>(
        &mut self,
        mut expected: impl Iterator<Item = &'h mut Frame>,
    ) {
        let Self {
            batch, spare, lent, ..
        } = self;
        batch.run(|buffer, good| match (expected.next(), good) {
            (Some(frame), true) => *frame = Frame::Copied(buffer),
            (frame, _) => {
                if let Some(frame) = frame {
                    *frame = Frame::Missing;
                }
                put(spare, lent, buffer);
            }
        });
    }

    /// Takes a page back.
    pub(crate) fn put(&mut self, buffer: Buffer) {
        put(&mut self.spare, &mut self.lent, buffer);
    }

    /// Takes the page back that request number `owner` had for `extent`, after the guest's frame
    /// got what it holds, by [`Self::copy_to_guest`]. Returns whether it will; it does if
    /// [`Self::must_copy_first`] said no.
    #[must_use]
    pub(crate) fn stage_copy_to_guest(
        &mut self,
        buffer: Buffer,
        extent: &Extent,
        owner: usize,
    ) -> bool {
        match self.batch.copy_to_frame(buffer, part(self.domain, extent)) {
            Ok(()) => self.owners.push_within_capacity(owner).is_ok(),
            Err(buffer) => {
                self.put(buffer);
                false
            }
        }
    }

    /// Must what is in the batch be copied before `frames` more go there?
    pub(crate) fn must_copy_first(&self, frames: u16) -> bool {
        self.batch.remaining() < usize::from(frames)
    }

    /// Copies to the guest what was released. A request of which a part cannot be copied
    /// fails. May sleep.
    pub(crate) fn copy_to_guest(&mut self, requests: &mut [PendingRequest]) {
        let Self {
            batch,
            owners,
            spare,
            lent,
            ..
        } = self;
        let mut owners_left = owners.iter();
        batch.run(|buffer, good| {
            let owner = owners_left.next();
            if !good {
                if let Some(request) = owner.and_then(|owner| requests.get_mut(*owner)) {
                    request.fail();
                }
            }
            put(spare, lent, buffer);
        });
        owners.clear();
    }

    /// Pages that no request uses.
    pub(crate) fn spare(&self) -> usize {
        self.spare.len()
    }

    /// Gives pages back until `keep` spare ones are left.
    pub(crate) fn shrink(&mut self, keep: usize) {
        self.spare.truncate(keep);
    }

    /// Gives all spare pages back if it has not copied since this was called last.
    pub(crate) fn expire(&mut self) {
        if !core::mem::take(&mut self.active) {
            self.shrink(0);
        }
    }
}

/// Keeps the page for later. A page that this kernel still refers to is not used again; it is freed
/// with the last reference.
fn put(spare: &mut KVec<Buffer>, lent: &mut usize, buffer: Buffer) {
    *lent = lent.saturating_sub(1);
    if !buffer.is_used() {
        // One too many is simply freed.
        drop(spare.push_within_capacity(buffer));
    }
}

fn part(domain: u16, extent: &Extent) -> Part {
    Part {
        domain,
        gref: extent.gref(),
        offset: extent.offset(),
        len: extent.bytes(),
    }
}
