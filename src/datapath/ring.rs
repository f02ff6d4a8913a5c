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
//! | [`Ring::push_responses`] | `RING_PUSH_RESPONSES_AND_CHECK_NOTIFY` |
//!
//! Context: the thread of the ring, under its lock. Source: `xen/interface/io/ring.h`.

use kernel::prelude::*;

use crate::logic::protocol::abi::response as offset;
use crate::logic::protocol::abi::ring_header;
use crate::logic::protocol::abi::Abi;
use crate::logic::protocol::abi::Slot;
use crate::logic::protocol::abi::Status;
use crate::logic::protocol::abi::SLOT_X86_32;
use crate::logic::protocol::index::must_notify;
use crate::logic::protocol::index::Indices;
use crate::logic::protocol::index::Overrun;
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

/// A mapped ring and where we stand on it.
pub(crate) struct Ring {
    shared: SharedRing,
    abi: Abi,
    indices: Indices,
    /// The response producer index that the frontend was told last.
    published: u32,
}

impl Ring {
    /// A ring of `entries` slots that is mapped and not attached yet: it holds no request.
    pub(crate) fn new(shared: SharedRing, abi: Abi, entries: u32) -> Self {
        Self {
            indices: Indices::empty(entries),
            shared,
            abi,
            published: 0,
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
        self.published = rsp_prod;
        Ok(())
    }

    /// The guest's layout.
    pub(crate) fn abi(&self) -> Abi {
        self.abi
    }

    /// Requests that were consumed and have no response yet.
    pub(crate) fn in_flight(&self) -> u32 {
        self.indices.in_flight()
    }

    /// Requests on the ring that were not consumed yet.
    ///
    /// # Errors
    ///
    /// [`Overrun`] if the frontend's index is impossible.
    pub(crate) fn unconsumed_requests(&self) -> Result<u32, Overrun> {
        let unread = self
            .indices
            .unread(self.shared.load(ring_header::REQ_PROD))?;
        self.shared.read_barrier();
        Ok(unread)
    }

    /// Asks for an event at the next request, then looks once more: one that came
    /// in between would bring no event.
    ///
    /// # Errors
    ///
    /// As [`Self::unconsumed_requests`].
    pub(crate) fn final_check(&self) -> Result<u32, Overrun> {
        self.shared
            .store(ring_header::REQ_EVENT, self.indices.next_event());
        self.shared.full_barrier();
        self.unconsumed_requests()
    }

    /// Makes `slot` a private copy of the slot of the next request. Only after
    /// [`Self::unconsumed_requests`] said that there is one. A caller that looks again later has to
    /// begin anew: the guest may have changed the slot meanwhile.
    pub(crate) fn peek(&self, slot: &mut Slot) {
        let index = self.indices.next_request();
        if let Some(at) = self.abi.slot_offset(index) {
            // All of it, though most requests use a third: how much that is, the slot
            // itself says, and nothing is to be read twice.
            match self.abi {
                Abi::X86_64 => self.shared.copy_out(at, &mut slot.0),
                Abi::X86_32 => {
                    if let Some(bytes) = slot.0.first_chunk_mut::<SLOT_X86_32>() {
                        self.shared.copy_out(at, bytes);
                    }
                }
            }
        }
    }

    /// Consumes the request that was looked at.
    pub(crate) fn consume(&mut self) {
        self.indices.consume();
    }

    /// Writes a response. The frontend does not see it before [`Self::push_responses`].
    /// Of the slot only the three fields of a response change, so nothing of ours
    /// leaks through its padding.
    pub(crate) fn respond(&mut self, response: Response) {
        let Some(index) = self.indices.respond() else {
            return;
        };
        let Some(at) = self.abi.slot_offset(index) else {
            return;
        };
        self.put(at, offset::ID, response.id.to_le_bytes());
        self.put(at, offset::OPERATION, [response.operation]);
        self.put(at, offset::STATUS, response.status.code().to_le_bytes());
    }

    fn put<const N: usize>(&self, slot: usize, field: usize, bytes: [u8; N]) {
        if let Some(at) = slot.checked_add(field) {
            self.shared.copy_in(at, bytes);
        }
    }

    /// Shows the frontend all responses so far. Returns whether it wants an event.
    #[must_use]
    pub(crate) fn push_responses(&mut self) -> bool {
        let old = self.published;
        let new = self.indices.rsp_prod();
        if new == old {
            return false;
        }
        self.shared.write_barrier();
        self.shared.store(ring_header::RSP_PROD, new);
        self.published = new;
        self.shared.full_barrier();
        must_notify(old, new, self.shared.load(ring_header::RSP_EVENT))
    }
}
