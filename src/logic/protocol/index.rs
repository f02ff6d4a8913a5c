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

/// The backend's private indices of one ring.
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

    /// Advances the response index and returns the slot for the response. `None` if no request
    /// is in flight.
    pub fn respond(&mut self) -> Option<u32> {
        if self.in_flight() == 0 {
            return None;
        }
        let slot = self.slot(self.responses);
        self.responses = self.responses.wrapping_add(1);
        Some(slot)
    }

    /// The response producer index to publish.
    pub fn rsp_prod(&self) -> u32 {
        self.responses
    }

    /// The value of `req_event` that asks for an event with the next request.
    pub fn next_event(&self) -> u32 {
        self.requests.wrapping_add(1)
    }

    fn slot(&self, index: u32) -> u32 {
        index & self.entries.wrapping_sub(1)
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
        assert_eq!(ring.respond(), Some(0));
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
        assert_eq!(ring.respond(), Some(30));
        assert_eq!(ring.rsp_prod(), u32::MAX);
    }

    #[test]
    fn a_request_has_one_response() {
        let mut ring = Indices::attach(32, 1, 0).unwrap();
        assert_eq!(ring.respond(), None);
        ring.consume();
        assert_eq!(ring.respond(), Some(0));
        assert_eq!(ring.respond(), None);
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
