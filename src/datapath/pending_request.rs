// SPDX-License-Identifier: GPL-2.0

//! One transfer on its way to the device and back, and the list on which it comes back.
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

use kernel::{
    alloc::Flags,
    new_spinlock,
    prelude::*,
    sync::{
        atomic::{
            ordering::{
                Full,
                Relaxed, //
            },
            AtomicFlag, //
        },
        Arc,
        SpinLock, //
    }, //
};

use super::backing_device::BackingDevice;
use super::frame::Frame;
use super::ring::Response;
use super::ring::Responses;
use crate::logic::protocol::abi::Status;
use crate::logic::protocol::request::Extent;
use crate::logic::protocol::request::Operation;
use crate::logic::protocol::request::Request;
use crate::qos::gate::RingWaker;
use crate::qos::permit::Permit;
use crate::sys::bdev::BlockDevice;
use crate::sys::bio;
use crate::sys::bio::BioOwner;
use crate::sys::bio::BioVec;
use crate::sys::bio::Direction;
use crate::sys::bio::InlineBio;
use crate::sys::kthread::Wakeup;
use crate::sys::llist::LlistHead;
use crate::sys::llist::LlistNode;
use crate::xenbus::evtchn::Handler;

/// What a checked request asks for, without its extents.
pub(crate) type RequestSummary = Request<()>;

/// The memory of a request, from its first use to its last.
///
/// # Invariants
///
/// The first [`Request::extent_count`] of `extents` are those of the admitted request.
pub(crate) struct RequestMemory {
    bio: InlineBio,
    completions: Arc<Completions>,
    device: Arc<BackingDevice>,
    extents: KVec<Extent>,
    frames: KVec<Frame>,
    response: Response,
    nomerge: bool,
    /// Some of the frames may be mapped for this request alone.
    has_own_mappings: bool,
    /// Something has to be unmapped, or copied to the guest, before the response.
    needs_thread: bool,
    /// Free memory has none.
    admitted: Option<(RequestSummary, Permit)>,
}

/// The stage of memory without a request in it.
pub(crate) struct Free;

/// The stage of a request that was checked and may not go yet.
pub(crate) struct Checked(RequestSummary);

/// The stage of a request that has a permit.
pub(crate) struct Admitted;

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
            admitted: None,
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
        self.memory.admitted = Some((self.stage.0, permit));
        PendingRequest {
            memory: self.memory,
            stage: Admitted,
        }
    }
}

impl PendingRequest {
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
        self.memory
            .summary()
            .map_or((0, 0), |request| (request.sector(), request.sectors()))
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

    /// What the request does.
    pub(super) fn operation(&self) -> Operation {
        self.memory.operation()
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
        self.memory.summary().map_or(0, Request::extent_count)
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
        self.memory.admitted = None;
        PendingRequest {
            memory: self.memory,
            stage: Free,
        }
    }
}

impl RequestMemory {
    fn summary(&self) -> Option<&RequestSummary> {
        self.admitted.as_ref().map(|(request, _)| request)
    }

    fn operation(&self) -> Operation {
        self.summary().map_or(Operation::Read, Request::operation)
    }

    /// May the end of I/O write the response? Not if more has to be done with the response.
    fn may_respond_directly(&self) -> bool {
        !self.needs_thread
            && self.response.status != Status::Unsupported
            && self.operation() != Operation::Barrier
    }
}

fn finish(memory: KBox<LlistNode<RequestMemory>>) {
    // The list may be read, and the memory used again, as soon as the memory is in it.
    let completions = memory.completions.clone();
    completions.push(memory);
}

impl BioOwner for LlistNode<RequestMemory> {
    fn bio(&self) -> &InlineBio {
        &self.bio
    }

    fn device(&self) -> &BlockDevice {
        self.device.block_device()
    }

    fn direction(&self) -> Direction {
        match self.operation() {
            Operation::Read => Direction::Read,
            Operation::Write => Direction::Write,
            Operation::Flush => Direction::FlushThenWrite,
            Operation::Barrier => Direction::FlushThenWriteThrough,
        }
    }

    fn sector(&self) -> u64 {
        self.summary().map_or(0, Request::sector)
    }

    fn is_nomerge(&self) -> bool {
        self.nomerge
    }

    fn elements(&self) -> impl Iterator<Item = Option<BioVec<'_>>> {
        // There are as many extents as frames, see `PendingRequest::submit`.
        let both = self.frames.iter().zip(&*self.extents);
        both.map(|(frame, extent)| {
            Some(BioVec {
                page: frame.page()?,
                offset: extent.offset(),
                len: extent.bytes(),
            })
        })
    }

    fn end_io(mut this: KBox<Self>, outcome: Result) {
        this.response.status = match outcome {
            Ok(()) => Status::Okay,
            Err(e) if e == EOPNOTSUPP => Status::Unsupported,
            Err(_) => Status::Error,
        };
        let completions = this.completions.clone();
        let (response, mut memory) = (this.response, None);
        if completions.requests.is_asleep()
            && completions.responses.are_few()
            && this.may_respond_directly()
        {
            memory = Some(this);
            completions.responses.respond_directly(response, || {
                // The thread releases what the request has when it runs next.
                let responded = memory.take();
                let _ = responded.map(|memory| completions.responded.push(memory));
            });
        } else {
            completions.push(this);
        }
        if let Some(memory) = memory {
            completions.push(memory);
        }
    }
}

/// Wakes the thread of a ring when the guest sends an event.
pub(super) struct EventWaker(pub(super) Arc<Completions>);

impl Handler for EventWaker {
    fn event(&self) {
        self.0.wake();
    }
}

/// What comes back to the thread of a ring, and what wakes it; and the responses.
///
/// While the thread sleeps, and waits for nothing that a finished request brings, an end of I/O writes the
/// response by itself and wakes nobody ([`Responses::respond_directly`]).
///
/// Finished requests come in any context and without a lock, see [`LlistHead`]. Responses to
/// discards are few; their lock is a spinlock for process context, under which no other is taken.
/// Nothing in here allocates: there is capacity for a response per slot of the ring.
#[pin_data]
pub(crate) struct Completions {
    wakeup: Wakeup,
    requests: LlistHead<RequestMemory>,
    /// Requests that have their response and are not released. Nobody is woken for them.
    responded: LlistHead<RequestMemory>,
    #[pin]
    responses: Responses<EventWaker>,
    has_responses: AtomicFlag,
    #[pin]
    of_discards: SpinLock<KVec<Response>>,
}

impl Completions {
    /// Nothing has come back yet, and there is no capacity for a ring. Sleeps.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(super) fn new() -> Result<Arc<Self>> {
        let of_discards = KVec::new();
        let completions = pin_init!(Self {
            wakeup: Wakeup::new(),
            requests: LlistHead::new(),
            responded: LlistHead::new(),
            responses <- Responses::new(),
            has_responses: AtomicFlag::new(false),
            of_discards <- new_spinlock!(of_discards, "rblkback::discarded"),
        });
        Arc::pin_init(completions, GFP_KERNEL)
    }

    /// Has capacity for a ring of `entries` slots from now on. To be called while no ring is connected.
    /// Sleeps.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(super) fn reserve(&self, entries: usize) -> Result {
        // The vector is exchanged for one of the ring's at each run.
        let mut responses = KVec::with_capacity(entries, GFP_KERNEL)?;
        core::mem::swap(&mut *self.of_discards.lock(), &mut responses);
        Ok(())
    }

    /// What wakes the thread of the ring.
    pub(super) fn wakeup(&self) -> &Wakeup {
        &self.wakeup
    }

    /// Takes a finished request in and wakes the thread unless it is awake. Context: any.
    fn push(&self, memory: KBox<LlistNode<RequestMemory>>) {
        if self.requests.push(memory) {
            self.wake();
        }
    }

    /// Takes the response to a discard in and wakes the thread. Context: process.
    pub(super) fn push_response(&self, response: Response) {
        // The vector is never full: a response is of a slot.
        let _ = self.of_discards.lock().push_within_capacity(response);
        self.has_responses.store(true, Relaxed);
        self.wake();
    }

    /// The finished requests. From now on the thread is not woken for more of them, until
    /// [`Self::try_sleep`].
    pub(super) fn take_requests(&self) -> impl Iterator<Item = PendingRequest> {
        self.requests.take_all().map(|memory| PendingRequest {
            memory,
            stage: Admitted,
        })
    }

    /// The responses of the ring.
    pub(super) fn responses(&self) -> &Responses<EventWaker> {
        &self.responses
    }

    /// Requests that have their response already.
    pub(super) fn take_responded(&self) -> impl Iterator<Item = PendingRequest> {
        self.responded.take_all().map(|memory| PendingRequest {
            memory,
            stage: Admitted,
        })
    }

    /// Are there none that have their response already?
    pub(super) fn is_all_released(&self) -> bool {
        self.responded.is_empty()
    }

    /// Exchanges the responses that came in for `responses`, which is empty.
    pub(super) fn take_responses(&self, responses: &mut KVec<Response>) {
        if self.has_responses.load(Relaxed) && self.has_responses.xchg(false, Full) {
            core::mem::swap(&mut *self.of_discards.lock(), responses);
        }
    }

    /// Lets the thread sleep. Returns `false` if there are finished requests to be taken first.
    pub(super) fn try_sleep(&self) -> bool {
        self.requests.try_sleep()
    }
}

impl RingWaker for Completions {
    fn wake(&self) {
        self.wakeup.wake();
    }
}
