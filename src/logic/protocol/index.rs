// SPDX-License-Identifier: GPL-2.0

//! Ring index arithmetic of the backend.
//!
//! Indices only increase and wrap at 2^32. The slot of an index is `index % entries`.
//! The backend's indices are private and never read back from the shared page, so a
//! guest can lie only about its own `req_prod`.
//!
//! ```text
//!   responded         in flight           on the ring, unread
//! -------------+---------------------+-------------------------+-----------
//!          responses              requests               the guest's req_prod
//! ```
//!
//! The memory of the ring and its memory barriers are in `datapath::ring`.
//!
//! Source: `xen/interface/io/ring.h`.

/// An impossible `req_prod`: the guest claims more requests than the ring has free slots, or
/// fewer than it claimed before. The ring cannot be used any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overrun {
    /// The producer index that the guest published.
    pub req_prod: u32,
    /// The index of the first request that the backend has not consumed.
    pub req_cons: u32,
}

/// The backend's private indices of one ring, on the side that consumes requests.
///
/// # Invariants
///
/// `entries` is a power of two; `requests - responses <= entries`.
#[derive(Clone, Copy, Debug)]
pub struct Indices {
    entries: u32,
    requests: u32,
    responses: u32,
}

impl Indices {
    /// A ring of `entries` slots without a request.
    pub const fn empty(entries: u32) -> Self {
        Self {
            entries,
            requests: 0,
            responses: 0,
        }
    }

    /// Slots of the ring.
    pub fn entries(&self) -> u32 {
        self.entries
    }

    /// Starts at the indices of the shared page. The ring may come from another backend,
    /// which responded to every request that it had consumed. So the requests from
    /// `rsp_prod` on are unread.
    ///
    /// # Errors
    ///
    /// [`Overrun`] if `req_prod` claims more than `entries` requests without a response.
    pub fn attach(entries: u32, req_prod: u32, rsp_prod: u32) -> Result<Self, Overrun> {
        let indices = Self {
            entries,
            requests: rsp_prod,
            responses: rsp_prod,
        };
        indices.unread(req_prod)?;
        Ok(indices)
    }

    /// The number of unread requests on the ring: at most `entries`.
    ///
    /// # Errors
    ///
    /// [`Overrun`] if `req_prod` is impossible.
    pub fn unread(&self, req_prod: u32) -> Result<u32, Overrun> {
        let unread = req_prod.wrapping_sub(self.requests);
        let free = self.entries.wrapping_sub(self.in_flight());
        if unread > free {
            return Err(Overrun {
                req_prod,
                req_cons: self.requests,
            });
        }
        Ok(unread)
    }

    /// The number of consumed requests without a response.
    pub fn in_flight(&self) -> u32 {
        self.requests.wrapping_sub(self.responses)
    }

    /// The slot of the next request. The caller must know from [`Self::unread`] that there is one.
    pub fn next_request(&self) -> u32 {
        self.slot(self.requests)
    }

    /// Consumes the next request and returns its slot. The caller must know from
    /// [`Self::unread`] that there is one.
    pub fn consume(&mut self) -> u32 {
        let slot = self.slot(self.requests);
        self.requests = self.requests.wrapping_add(1);
        slot
    }

    /// Responses were written up to the index `rsp_prod` ([`ResponseIndices::rsp_prod`]). One that is not
    /// of a request in flight is ignored.
    pub fn note_responses(&mut self, rsp_prod: u32) {
        if rsp_prod.wrapping_sub(self.responses) <= self.in_flight() {
            self.responses = rsp_prod;
        }
    }

    /// The value of `req_event` that asks for an event with the next request.
    pub fn next_event(&self) -> u32 {
        self.requests.wrapping_add(1)
    }

    /// The side that writes responses, which begins where this one does.
    pub fn responses(&self) -> ResponseIndices {
        ResponseIndices {
            entries: self.entries,
            written: self.responses,
            published: self.responses,
        }
    }

    fn slot(&self, index: u32) -> u32 {
        index & self.entries.wrapping_sub(1)
    }
}

/// The private indices on the side that writes responses.
#[derive(Clone, Copy, Debug)]
pub struct ResponseIndices {
    entries: u32,
    written: u32,
    published: u32,
}

impl ResponseIndices {
    /// The slot of the next response, which has one from now on. The caller has a request for it that
    /// was consumed and has no response yet.
    pub fn respond(&mut self) -> u32 {
        let slot = self.written & self.entries.wrapping_sub(1);
        self.written = self.written.wrapping_add(1);
        slot
    }

    /// The response producer index.
    pub fn rsp_prod(&self) -> u32 {
        self.written
    }

    /// The response producer index that was published last, and the one to publish now. `None` if there
    /// is nothing new.
    pub fn publish(&mut self) -> Option<(u32, u32)> {
        let old = core::mem::replace(&mut self.published, self.written);
        (old != self.written).then_some((old, self.written))
    }
}

/// Whether the frontend needs an event after `rsp_prod` advanced from `old` to `new`: only if
/// its `rsp_event` is after `old` and not after `new`.
pub fn must_notify(old: u32, new: u32, rsp_event: u32) -> bool {
    new.wrapping_sub(rsp_event) < new.wrapping_sub(old)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unread_requests_are_limited_by_the_ring_size() {
        let ring = Indices::attach(32, 0, 0).unwrap();
        assert_eq!(ring.unread(32), Ok(32));
        assert!(ring.unread(33).is_err());
    }

    #[test]
    fn a_producer_that_goes_backwards_is_an_overrun() {
        let mut ring = Indices::attach(32, 5, 0).unwrap();
        ring.consume();
        ring.consume();
        assert_eq!(
            ring.unread(1),
            Err(Overrun {
                req_prod: 1,
                req_cons: 2
            })
        );
    }

    #[test]
    fn requests_in_flight_occupy_slots() {
        let mut ring = Indices::attach(32, 32, 0).unwrap();
        for _ in 0..32 {
            ring.consume();
        }
        assert_eq!(ring.in_flight(), 32);
        assert!(ring.unread(33).is_err());
        ring.note_responses(1);
        assert_eq!(ring.unread(33), Ok(1));
    }

    #[test]
    fn indices_wrap_at_two_to_the_32() {
        let mut ring = Indices::attach(32, 1, u32::MAX - 1).unwrap();
        assert_eq!(ring.unread(1), Ok(3));
        assert_eq!(ring.consume(), 30);
        assert_eq!(ring.consume(), 31);
        assert_eq!(ring.consume(), 0);
        assert_eq!(ring.unread(1), Ok(0));
        let mut responses = ring.responses();
        assert_eq!(responses.respond(), 30);
        assert_eq!(responses.rsp_prod(), u32::MAX);
        assert_eq!(responses.publish(), Some((u32::MAX - 1, u32::MAX)));
        assert_eq!(responses.publish(), None);
    }

    #[test]
    fn responses_are_those_of_requests_in_flight() {
        let mut ring = Indices::attach(32, 1, 0).unwrap();
        ring.note_responses(1);
        assert_eq!(ring.in_flight(), 0);
        ring.consume();
        ring.note_responses(2);
        assert_eq!(ring.in_flight(), 1);
        ring.note_responses(1);
        assert_eq!(ring.in_flight(), 0);
    }

    #[test]
    fn attaching_to_impossible_indices_fails() {
        assert!(Indices::attach(32, 33, 0).is_err());
        assert!(Indices::attach(32, 0, 1).is_err());
        assert!(Indices::attach(32, 7, 7).is_ok());
    }

    #[test]
    fn the_frontend_is_notified_only_at_its_event_index() {
        assert!(must_notify(0, 1, 1));
        assert!(must_notify(0, 5, 3));
        assert!(!must_notify(0, 5, 6));
        assert!(!must_notify(5, 7, 5));
        assert!(!must_notify(5, 5, 5));
        assert!(must_notify(u32::MAX, 1, 0));
    }
}
