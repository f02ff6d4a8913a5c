// SPDX-License-Identifier: GPL-2.0

//! One transfer on its way to the device and back.
//!
//! | stage | made by | owned by |
//! |---|---|---|
//! | [`Free`] memory | [`PendingRequest::new`] | the pool |
//! | [`Checked`] | [`PendingRequest::check`] | the engine |
//! | [`Admitted`], nothing mapped | [`PendingRequest::admit`], from a [`Permit`] | the engine |
//! | staged, then mapped | `Mapper::stage`, `Mapper::map_staged` | the mapper |
//! | held | the engine, while the guest is suspended | the engine |
//! | in flight | [`PendingRequest::submit`] | the bio, until the device has answered |
//! | finished | [`BioOwner::end_io`] | [`Completions`] |
//! | released | `Mapper::release` | the engine |
//! | [`Free`] again | [`PendingRequest::recycle`] | the pool |
//!
//! A bio is only submitted for an admitted request: nothing reaches the device without a permit.
//!
//! A discard needs no frames and no bio: [`Free`] memory becomes a [`Discard`]
//! ([`PendingRequest::discard`]), which waits in the [`DiscardQueue`](super::discard_queue) and is
//! finished when the device has answered.

use core::marker::PhantomData;

use kernel::{
    alloc::Flags,
    prelude::*,
    sync::Arc, //
};

use super::backing_device::BackingDevice;
use super::completions::finish;
use super::completions::Completions;
use super::completions::RequestMemory;
use super::completions::RequestSummary;
use super::frame::Frame;
use super::ring::Response;
use crate::logic::protocol::abi::Status;
use crate::logic::protocol::discard::CheckedDiscard;
use crate::logic::protocol::request::Extent;
use crate::logic::protocol::request::Operation;
use crate::logic::protocol::request::Request;
use crate::qos::permit::Permit;
use crate::sys::bio;
use crate::sys::bio::InlineBio;
use crate::sys::llist::LlistNode;
use crate::sys::llist::NodeQueue;

/// The stage of memory without a request in it.
pub(crate) struct Free;

/// The stage of a request that was checked and may not go yet.
pub(crate) struct Checked(RequestSummary);

/// The stage of a request that has a permit.
pub(crate) struct Admitted;

/// The stage of a discard that has a permit and waits or runs.
pub(crate) struct Discard;

/// A request, or the memory for one.
pub(crate) struct PendingRequest<S = Admitted> {
    memory: KBox<LlistNode<RequestMemory>>,
    stage: S,
}

impl PendingRequest<Free> {
    /// Memory for a request of `segments` segments at most. The request comes back by way of
    /// `completions`.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(
        completions: Arc<Completions>,
        device: Arc<BackingDevice>,
        segments: usize,
        flags: Flags,
    ) -> Result<Self> {
        let memory = RequestMemory {
            bio: InlineBio::new(segments, flags)?,
            completions,
            device,
            extents: KVec::from_elem(Extent::default(), segments, flags)?,
            frames: KVec::with_capacity(segments, flags)?,
            response: Response::NONE,
            nomerge: false,
            has_own_mappings: false,
            needs_thread: true,
            transfer: RequestSummary::NOTHING,
            discard: None,
            permit: None,
        };
        Ok(Self {
            memory: KBox::new(LlistNode::new(memory), flags)?,
            stage: Free,
        })
    }

    /// How many segments the memory is for.
    pub(crate) fn segments(&self) -> usize {
        self.memory.extents.len()
    }

    /// Fills the memory with the request that `check` makes of the memory's extents.
    ///
    /// # Errors
    ///
    /// What `check` says, and the memory.
    pub(crate) fn check<E>(
        mut self,
        check: impl FnOnce(&mut [Extent]) -> Result<Request<&mut [Extent]>, (E, &mut [Extent])>,
    ) -> Result<PendingRequest<Checked>, (E, Self)> {
        match check(&mut self.memory.extents) {
            Ok(request) => Ok(PendingRequest {
                stage: Checked(request.without_extents()),
                memory: self.memory,
            }),
            Err((refusal, _)) => Err((refusal, self)),
        }
    }
}

impl PendingRequest<Free> {
    /// Makes the memory a discard of `range`, which has a permit.
    pub(crate) fn discard(
        mut self,
        range: CheckedDiscard,
        permit: Permit,
        response: Response,
    ) -> PendingRequest<Discard> {
        self.memory.response = response;
        self.memory.needs_thread = true;
        self.memory.discard = Some(range);
        self.memory.permit = Some(permit);
        PendingRequest {
            memory: self.memory,
            stage: Discard,
        }
    }
}

impl PendingRequest<Discard> {
    /// The device, and what is left to discard there. A discard without a range has nothing left.
    pub(super) fn parts(&mut self) -> Option<(&BackingDevice, &mut CheckedDiscard)> {
        let RequestMemory {
            device, discard, ..
        } = &mut **self.memory;
        Some((device, discard.as_mut()?))
    }

    /// Has the discard go back to the thread of the ring, with what the guest is told. Context: any.
    pub(super) fn finish(mut self, status: Status) {
        self.memory.response.status = status;
        finish(self.memory);
    }
}

/// Requests of one stage, the first to come the first to go. Adding one never fails.
pub(crate) struct RequestQueue<S: Stage>(NodeQueue<RequestMemory>, PhantomData<S>);

/// A stage that says nothing but its name.
pub(crate) trait Stage {
    /// The stage.
    const STAGE: Self;
}

impl Stage for Free {
    const STAGE: Self = Self;
}

impl Stage for Admitted {
    const STAGE: Self = Self;
}

impl Stage for Discard {
    const STAGE: Self = Self;
}

impl<S: Stage> RequestQueue<S> {
    /// No requests.
    pub(crate) const fn new() -> Self {
        Self(NodeQueue::new(), PhantomData)
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Are there none?
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds one at the end.
    pub(crate) fn push_back(&mut self, request: PendingRequest<S>) {
        self.0.push_back(request.memory);
    }

    /// Adds one that is the next to go.
    pub(crate) fn push_front(&mut self, request: PendingRequest<S>) {
        self.0.push_front(request.memory);
    }

    /// Removes the next one.
    pub(crate) fn pop_front(&mut self) -> Option<PendingRequest<S>> {
        let memory = self.0.pop_front()?;
        Some(PendingRequest {
            memory,
            stage: S::STAGE,
        })
    }
}

impl PendingRequest<Checked> {
    /// What the request asks for.
    pub(crate) fn summary(&self) -> &RequestSummary {
        &self.stage.0
    }

    /// Admits the request. `response` is what the guest is told if the request does not get to the
    /// device.
    pub(crate) fn admit(mut self, permit: Permit, response: Response) -> PendingRequest {
        self.memory.response = response;
        // INVARIANT: `check` has put the extents there.
        self.memory.transfer = self.stage.0;
        self.memory.permit = Some(permit);
        PendingRequest {
            memory: self.memory,
            stage: Admitted,
        }
    }
}

impl PendingRequest {
    /// A request that was submitted or given up, as [`Completions`] hands it out.
    pub(super) fn finished(memory: KBox<LlistNode<RequestMemory>>) -> Self {
        Self {
            memory,
            stage: Admitted,
        }
    }

    /// Sends the request to the device. A request that does not get there goes the same way back
    /// as one that does, so that what was mapped of it is unmapped first. Context: process; sleeps
    /// while the device's queue is full.
    pub(super) fn submit(self) {
        // `bio::submit` notices a frame that is missing, but not one that was never asked for.
        let left = if self.memory.frames.len() == usize::from(self.frame_count()) {
            bio::submit(self.memory).err()
        } else {
            Some(self.memory)
        };
        if let Some(memory) = left {
            finish(memory);
        }
    }

    /// Has the request go back as one that did not get to the device: its guest never runs again.
    pub(super) fn give_up(self) {
        finish(self.memory);
    }

    /// The first sector of 512 bytes, and how many are moved.
    pub(super) fn range(&self) -> (u64, u32) {
        let transfer = &self.memory.transfer;
        (transfer.sector(), transfer.sectors())
    }

    /// Whether the device's queue need not look for a request to merge this one with.
    pub(super) fn set_nomerge(&mut self, nomerge: bool) {
        self.memory.nomerge = nomerge;
    }

    /// Whether some of the frames may be mapped for this request alone.
    pub(super) fn set_own_mappings(&mut self, own: bool) {
        self.memory.has_own_mappings = own;
    }

    /// Whether something has to be unmapped, or copied to the guest, before the response.
    pub(super) fn set_needs_thread(&mut self, needs: bool) {
        self.memory.needs_thread = needs;
    }

    /// Has something to be unmapped, or copied to the guest, before the response?
    pub(super) fn needs_thread(&self) -> bool {
        self.memory.needs_thread
    }

    /// What the request does.
    pub(super) fn operation(&self) -> Operation {
        self.memory.transfer.operation()
    }

    /// What the guest is told.
    pub(super) fn response(&self) -> Response {
        self.memory.response
    }

    /// Did the device do it?
    pub(super) fn is_good(&self) -> bool {
        self.memory.response.status == Status::Okay
    }

    /// The guest cannot be given what it asked for.
    pub(super) fn fail(&mut self) {
        self.memory.response.status = Status::Error;
    }

    /// Does the request write to the guest's memory?
    pub(super) fn writes_to_guest(&self) -> bool {
        self.operation() == Operation::Read
    }

    /// How many frames the request needs.
    pub(super) fn frame_count(&self) -> u16 {
        self.memory.transfer.extent_count()
    }

    /// What the request needs, and the list of the frames that it has.
    pub(super) fn frames(&mut self) -> (&[Extent], &mut KVec<Frame>) {
        let count = usize::from(self.frame_count());
        let RequestMemory {
            extents, frames, ..
        } = &mut **self.memory;
        (extents.get(..count).unwrap_or(&[]), frames)
    }

    /// Does this kernel still use a page that is to be unmapped?
    pub(super) fn is_page_used(&self) -> bool {
        self.memory.has_own_mappings && self.memory.frames.iter().any(Frame::is_page_used)
    }

    /// Gives the memory back. To be called when the frames were released.
    pub(super) fn recycle(mut self) -> PendingRequest<Free> {
        self.memory.transfer = RequestSummary::NOTHING;
        self.memory.discard = None;
        self.memory.permit = None;
        PendingRequest {
            memory: self.memory,
            stage: Free,
        }
    }
}
