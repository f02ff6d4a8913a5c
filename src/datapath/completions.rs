// SPDX-License-Identifier: GPL-2.0

//! What comes back from the device, and by which way: to the thread of the ring, or to the guest at
//! once.
//!
//! The memory of a request belongs to its stage, see [`pending_request`](super::pending_request). While
//! the request is in flight the bio owns it; the end of I/O hands it in here.

use kernel::{
    prelude::*,
    sync::Arc, //
};

use super::backing_device::BackingDevice;
use super::frame::Frame;
use super::ring::Response;
use super::ring::Responses;
use crate::logic::protocol::abi::Status;
use crate::logic::protocol::discard::CheckedDiscard;
use crate::logic::protocol::request::Extent;
use crate::logic::protocol::request::Operation;
use crate::logic::protocol::request::Request;
use crate::qos::gate::RingWaker;
use crate::qos::permit::Permit;
use crate::sys::bdev::is_unsupported;
use crate::sys::bdev::BlockDevice;
use crate::sys::bio::BioOwner;
use crate::sys::bio::BioVec;
use crate::sys::bio::Direction;
use crate::sys::bio::InlineBio;
use crate::sys::kthread::Wakeup;
use crate::sys::llist::Llist;
use crate::sys::llist::LlistHead;
use crate::sys::llist::LlistNode;
use crate::sys::preempt::PreemptGuard;
use crate::xenbus::evtchn::Handler;

/// What a checked request asks for, without its extents.
pub(super) type RequestSummary = Request<()>;

/// The memory of a request, from its first use to its last.
///
/// # Invariants
///
/// The first [`Request::extent_count`] of `extents` are those of the `transfer`.
pub(crate) struct RequestMemory {
    pub(super) bio: InlineBio,
    pub(super) completions: Arc<Completions>,
    pub(super) device: Arc<BackingDevice>,
    pub(super) extents: KVec<Extent>,
    pub(super) frames: KVec<Frame>,
    pub(super) response: Response,
    pub(super) nomerge: bool,
    /// Some of the frames may be mapped for this request alone.
    pub(super) has_own_mappings: bool,
    /// Something has to be unmapped, or copied to the guest, before the response.
    pub(super) needs_thread: bool,
    /// What goes by the bio: nothing if the memory is free, or a discard.
    pub(super) transfer: RequestSummary,
    /// What is left to discard, see [`discard_queue`](super::discard_queue).
    pub(super) discard: Option<CheckedDiscard>,
    /// The right to that. Free memory has none.
    pub(super) permit: Option<Permit>,
}

impl RequestMemory {
    /// May the end of I/O write the response? Not if more has to be done with the response.
    fn may_respond_directly(&self) -> bool {
        !self.needs_thread
            && self.response.status != Status::Unsupported
            && self.transfer.operation() != Operation::Barrier
    }
}

/// Hands a request in that is done. Context: any.
pub(super) fn finish(memory: KBox<LlistNode<RequestMemory>>) {
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
        match self.transfer.operation() {
            Operation::Read => Direction::Read,
            Operation::Write => Direction::Write,
            Operation::Flush => Direction::FlushThenWrite,
            Operation::Barrier => Direction::FlushThenWriteThrough,
        }
    }

    fn sector(&self) -> u64 {
        self.transfer.sector()
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
            Err(e) if is_unsupported(e) => Status::Unsupported,
            Err(_) => Status::Error,
        };
        // Most find the thread awake, and have nothing more to do.
        let left = LlistHead::push_awake(this, |memory| &memory.completions.requests);
        if let Err(this) = left {
            // The worker waits for a grace period before it drops its own reference, so this one is not the
            // last: what it refers to may only be dropped where one may sleep.
            let _guard = PreemptGuard::new();
            let completions = this.completions.clone();
            completions.answer(this);
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
/// Finished requests come in any context and without a lock, see [`LlistHead`]. Nothing in here allocates.
#[pin_data]
pub(crate) struct Completions {
    wakeup: Wakeup,
    requests: LlistHead<RequestMemory>,
    /// Requests that have their response and are not released. Nobody is woken for them.
    responded: LlistHead<RequestMemory>,
    #[pin]
    responses: Responses<EventWaker>,
}

impl Completions {
    /// Nothing has come back yet. Sleeps.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(super) fn new() -> Result<Arc<Self>> {
        let completions = pin_init!(Self {
            wakeup: Wakeup::new(),
            requests: LlistHead::new(),
            responded: LlistHead::new(),
            responses <- Responses::new(),
        });
        Arc::pin_init(completions, GFP_KERNEL)
    }

    /// What wakes the thread of the ring.
    pub(super) fn wakeup(&self) -> &Wakeup {
        &self.wakeup
    }

    /// Writes the response to a request that the device has answered, if an end of I/O may; otherwise takes
    /// the request in. Context: any, with preemption disabled.
    fn answer(&self, memory: KBox<LlistNode<RequestMemory>>) {
        let direct = self.requests.is_asleep() && memory.may_respond_directly();
        if !direct {
            return self.push(memory);
        }
        let (response, mut memory) = (memory.response, Some(memory));
        self.responses.respond_directly(response, || {
            // The thread releases what the request has when it runs next.
            let responded = memory.take();
            let _ = responded.map(|memory| self.responded.push(memory));
        });
        if let Some(memory) = memory {
            self.push(memory);
        }
    }

    /// Takes a finished request in and wakes the thread unless it is awake. Context: any.
    fn push(&self, memory: KBox<LlistNode<RequestMemory>>) {
        if self.requests.push(memory) {
            self.wake();
        }
    }

    /// The finished requests. From now on the thread is not woken for more of them, until
    /// [`Self::try_sleep`].
    pub(super) fn take_requests(&self) -> Llist<RequestMemory> {
        self.requests.take_all()
    }

    /// The responses of the ring.
    pub(super) fn responses(&self) -> &Responses<EventWaker> {
        &self.responses
    }

    /// Requests that have their response already.
    pub(super) fn take_responded(&self) -> Llist<RequestMemory> {
        self.responded.take_all()
    }

    /// Are there none that have their response already?
    pub(super) fn is_all_released(&self) -> bool {
        self.responded.is_empty()
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
