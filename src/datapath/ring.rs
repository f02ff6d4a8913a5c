// SPDX-License-Identifier: GPL-2.0

//! One shared ring, seen from the backend.
//!
//! A slot is copied out once; everything else looks at the copy. Our indices are private
//! ([`Indices`]) and only written to the shared page. This file has all ring barriers.
//!
//! | function | as in `ring.h` |
//! |---|---|
//! | [`Ring::unconsumed_requests`] | `RING_HAS_UNCONSUMED_REQUESTS` |
//! | [`Ring::final_check`] | `RING_FINAL_CHECK_FOR_REQUESTS` |
//! | [`Ring::peek`] | `RING_COPY_REQUEST` |
//! | [`Responses::push`] | `RING_PUSH_RESPONSES_AND_CHECK_NOTIFY` |
//!
//! The ring has two sides. The thread of the ring consumes requests ([`Ring`]), under its lock.
//! Responses are written by the thread and by ends of I/O ([`Responses`]), under a raw spinlock.
//!
//! Source: `xen/interface/io/ring.h`.

use kernel::{
    prelude::*,
    sync::{
        atomic::{
            ordering::Relaxed,
            Atomic, //
        },
        Arc, //
    }, //
};

use crate::logic::protocol::abi::response_words;
use crate::logic::protocol::abi::ring_header;
use crate::logic::protocol::abi::Abi;
use crate::logic::protocol::abi::Slot;
use crate::logic::protocol::abi::Status;
use crate::logic::protocol::abi::SLOT_FIRST;
use crate::logic::protocol::abi::SLOT_MAX;
use crate::logic::protocol::abi::SLOT_X86_32;
use crate::logic::protocol::index::must_notify;
use crate::logic::protocol::index::Indices;
use crate::logic::protocol::index::Overrun;
use crate::logic::protocol::index::ResponseIndices;
use crate::logic::protocol::request::needs_rest;
use crate::sys::raw_lock::RawSpinLock;
use crate::xenbus::evtchn::Channel;
use crate::xenbus::evtchn::Handler;
use crate::xenbus::shared_ring::SharedRing;

/// A response to a request.
#[derive(Clone, Copy)]
pub(crate) struct Response {
    /// The guest's own name for the request.
    pub(crate) id: u64,
    /// The operation code, see [`crate::logic::protocol::request::response_operation`].
    pub(crate) operation: u8,
    /// What became of it.
    pub(crate) status: Status,
}

impl Response {
    /// A response to no request.
    pub(crate) const NONE: Self = Self {
        id: 0,
        operation: 0,
        status: Status::Error,
    };
}

/// A mapped ring, and where we stand among its requests. Context: the thread of the ring, under its
/// lock.
pub(crate) struct Ring {
    shared: Arc<SharedRing>,
    abi: Abi,
    indices: Indices,
}

impl Ring {
    /// A ring of `entries` slots that is mapped and not attached yet: it holds no request.
    pub(crate) fn new(shared: Arc<SharedRing>, abi: Abi, entries: u32) -> Self {
        Self {
            indices: Indices::empty(entries),
            shared,
            abi,
        }
    }

    /// Starts at the indices that the shared page shows. To be called once the event channel is
    /// bound: until then another driver may still write responses.
    ///
    /// # Errors
    ///
    /// [`Overrun`] if the indices are impossible.
    pub(super) fn attach(&mut self) -> Result<(), Overrun> {
        let rsp_prod = self.shared.load(ring_header::RSP_PROD);
        let req_prod = self.shared.load(ring_header::REQ_PROD);
        self.indices = Indices::attach(self.indices.entries(), req_prod, rsp_prod)?;
        Ok(())
    }

    /// The guest's layout.
    pub(crate) fn abi(&self) -> Abi {
        self.abi
    }

    /// The other side of the ring. To be called once it is attached.
    pub(super) fn responses<H: Handler>(&self, channel: &Arc<Channel<H>>) -> ConnectedResponses<H> {
        ConnectedResponses {
            shared: self.shared.clone(),
            channel: channel.clone(),
            abi: self.abi,
            indices: self.indices.responses(),
        }
    }

    /// Requests that were consumed and have no response yet.
    pub(super) fn in_flight<H: Handler>(&mut self, responses: &Responses<H>) -> u32 {
        self.indices.note_responses(responses.written());
        self.indices.in_flight()
    }

    /// Requests on the ring that were not consumed yet.
    ///
    /// # Errors
    ///
    /// [`Overrun`] if the frontend's index is impossible.
    pub(super) fn unconsumed_requests<H: Handler>(
        &mut self,
        responses: &Responses<H>,
    ) -> Result<u32, Overrun> {
        let req_prod = self.shared.load(ring_header::REQ_PROD);
        // Also before the index of the responses is read: the guest may have used a slot because of a
        // response that an end of I/O has just written.
        self.shared.read_barrier();
        // What is possible by the responses that are known already is possible.
        self.indices.unread(req_prod).or_else(|_| {
            self.indices.note_responses(responses.written());
            self.indices.unread(req_prod)
        })
    }

    /// Asks for an event at the next request, then looks once more: one that came
    /// in between would bring no event.
    ///
    /// # Errors
    ///
    /// As [`Self::unconsumed_requests`].
    pub(super) fn final_check<H: Handler>(
        &mut self,
        responses: &Responses<H>,
    ) -> Result<u32, Overrun> {
        self.shared
            .store(ring_header::REQ_EVENT, self.indices.next_event());
        self.shared.full_barrier();
        self.unconsumed_requests(responses)
    }

    /// Makes `slot` a private copy of the slot of the next request. Only after
    /// [`Self::unconsumed_requests`] said that there is one. A caller that looks again later has to
    /// begin anew: the guest may have changed the slot meanwhile.
    pub(crate) fn peek(&self, slot: &mut Slot) {
        let index = self.indices.next_request();
        if let Some(at) = self.abi.slot_offset(index) {
            // Most requests need no more than the first part. Whether they do, that part itself says, and
            // nothing is read twice.
            match self.abi {
                Abi::X86_64 => {
                    let Some((first, rest)) = slot.0.split_first_chunk_mut::<SLOT_FIRST>() else {
                        return;
                    };
                    self.shared.copy_out(at, first);
                    let rest: Option<&mut [u8; SLOT_MAX - SLOT_FIRST]> = rest.first_chunk_mut();
                    if let (true, Some(rest)) = (needs_rest(first), rest) {
                        self.shared.copy_out(at.saturating_add(SLOT_FIRST), rest);
                    }
                }
                Abi::X86_32 => {
                    if let Some(bytes) = slot.0.first_chunk_mut::<SLOT_X86_32>() {
                        self.shared.copy_out(at, bytes);
                    }
                }
            }
        }
    }

    /// Consumes the request that was looked at.
    pub(super) fn consume(&mut self) {
        self.indices.consume();
    }
}

/// The side of a connected ring that writes responses.
pub(super) struct ConnectedResponses<H: Handler> {
    shared: Arc<SharedRing>,
    channel: Arc<Channel<H>>,
    abi: Abi,
    indices: ResponseIndices,
}

impl<H: Handler> ConnectedResponses<H> {
    /// Writes a response. The frontend does not see it before [`Self::push`].
    fn respond(&mut self, response: Response) {
        if let Some(at) = self.abi.slot_offset(self.indices.respond()) {
            let status = response.status.code();
            let words = response_words(response.id, response.operation, status);
            self.shared.copy_in(at, words);
        }
    }

    /// Shows the frontend all responses so far, and sends it an event if it wants one.
    fn push(&mut self) {
        let Some((old, new)) = self.indices.publish() else {
            return;
        };
        self.shared.write_barrier();
        self.shared.store(ring_header::RSP_PROD, new);
        self.shared.full_barrier();
        if must_notify(old, new, self.shared.load(ring_header::RSP_EVENT)) {
            self.channel.notify();
        }
    }
}

struct ResponsesState<H: Handler> {
    connected: Option<ConnectedResponses<H>>,
    /// Ends of I/O may write responses.
    direct: bool,
}

/// The responses of a ring: its thread writes them, and ends of I/O while the thread sleeps and waits for
/// none of them.
///
/// Lock: a raw spinlock with interrupts off, under which nothing else is taken. It is held for a few
/// responses at most.
#[pin_data]
pub(super) struct Responses<H: Handler> {
    /// The index of the next response. Written with the lock, before the guest can see the response.
    written: Atomic<u32>,
    #[pin]
    state: RawSpinLock<ResponsesState<H>>,
}

/// Responses that are written with one lock.
const AT_ONCE: usize = 32;

impl<H: Handler> Responses<H> {
    /// Of no ring yet.
    pub(super) fn new() -> impl PinInit<Self> {
        let state = ResponsesState {
            connected: None,
            direct: false,
        };
        pin_init!(Self {
            written: Atomic::new(0),
            state <- RawSpinLock::new(state, c"rblkback::responses"),
        })
    }

    /// Responses go to that ring from now on, and only the thread writes them.
    pub(super) fn connect(&self, connected: ConnectedResponses<H>) {
        let written = connected.indices.rsp_prod();
        let old = self.state.with(|state| {
            self.written.store(written, Relaxed);
            state.direct = false;
            state.connected.replace(connected)
        });
        drop(old);
    }

    /// There is no ring any more. Sleeps, because this may be the last reference to it.
    pub(super) fn disconnect(&self) {
        let old = self.state.with(|state| {
            state.direct = false;
            state.connected.take()
        });
        drop(old);
    }

    /// The index of the next response. Context: any.
    fn written(&self) -> u32 {
        self.written.load(Relaxed)
    }

    /// May ends of I/O write responses from now on? When they may not any more, none is writing one.
    pub(super) fn set_direct(&self, direct: bool) {
        self.state.with(|state| state.direct = direct);
    }

    /// Writes the response to each of `requests`. [`Self::push`] shows them, or this does with `push`.
    pub(super) fn respond<T>(&self, requests: &[T], response: impl Fn(&T) -> Response, push: bool) {
        for some in requests.chunks(AT_ONCE) {
            self.state.with(|state| {
                let Some(connected) = &mut state.connected else {
                    return;
                };
                for request in some {
                    connected.respond(response(request));
                }
                self.written.store(connected.indices.rsp_prod(), Relaxed);
                if push {
                    connected.push();
                }
            });
        }
    }

    /// Shows the frontend all responses so far, and sends it an event if it wants one.
    pub(super) fn push(&self) {
        self.state.with(|state| {
            if let Some(connected) = &mut state.connected {
                connected.push();
            }
        });
    }

    /// Writes and shows a response, and calls `done`, if an end of I/O may do that now. After
    /// [`Self::set_direct`] has said that it may not, none is between the two. Context: up to hard
    /// interrupt, as for `done`.
    pub(super) fn respond_directly(&self, response: Response, done: impl FnOnce()) {
        self.state.with(|state| {
            if let Some(connected) = state.connected.as_mut().filter(|_| state.direct) {
                connected.respond(response);
                self.written.store(connected.indices.rsp_prod(), Relaxed);
                connected.push();
                done();
            }
        });
    }
}
