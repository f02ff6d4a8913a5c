// SPDX-License-Identifier: GPL-2.0

//! Which rings of a disk wait for tokens, and who is next.
//!
//! First come, first served: a ring takes a ticket when it has to wait and gives
//! it up when it was served or has nothing left to ask for.

/// Rings of one disk that can wait at once: the most queues that are offered.
pub const RINGS_MAX: usize = 64;

/// A ring of a disk: its queue number, below [`RINGS_MAX`].
pub type RingId = u8;

#[derive(Clone, Copy, Debug)]
struct Place {
    /// 0: does not wait.
    ticket: u64,
    since: u64,
    held: u32,
}

/// The rings that wait.
#[derive(Clone, Debug)]
pub struct Queue {
    places: [Place; RINGS_MAX],
    next_ticket: u64,
    waiting: u32,
}

impl Queue {
    /// Nobody waits.
    pub const fn new() -> Self {
        Self {
            places: [Place {
                ticket: 0,
                since: 0,
                held: 0,
            }; RINGS_MAX],
            next_ticket: 1,
            waiting: 0,
        }
    }

    /// How many rings wait.
    pub fn len(&self) -> u32 {
        self.waiting
    }

    /// Does nobody wait?
    pub fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    /// The ring whose turn it is.
    pub fn head(&self) -> Option<RingId> {
        if self.is_empty() {
            return None;
        }
        let mut head: Option<(u64, RingId)> = None;
        let mut ring: RingId = 0;
        for place in &self.places {
            if place.ticket != 0 && head.is_none_or(|(ticket, _)| place.ticket < ticket) {
                head = Some((place.ticket, ring));
            }
            ring = ring.wrapping_add(1);
        }
        head.map(|(_, ring)| ring)
    }

    /// May `ring` be served now, ahead of everybody who waits?
    pub fn is_turn_of(&self, ring: RingId) -> bool {
        self.is_empty() || self.head() == Some(ring)
    }

    /// `ring` waits from `now` on; no change if it waits already.
    pub fn join(&mut self, ring: RingId, now: u64) {
        let Some(place) = self.places.get_mut(usize::from(ring)) else {
            return;
        };
        if place.ticket == 0 {
            place.ticket = self.next_ticket;
            place.since = now;
            self.next_ticket = self.next_ticket.wrapping_add(1);
            self.waiting = self.waiting.saturating_add(1);
        }
    }

    /// `ring` waits no more. Returns since when it did.
    pub fn leave(&mut self, ring: RingId) -> Option<u64> {
        let place = self.places.get_mut(usize::from(ring))?;
        if place.ticket == 0 {
            return None;
        }
        place.ticket = 0;
        self.waiting = self.waiting.saturating_sub(1);
        Some(place.since)
    }

    /// Notes that of the `wanted` requests on `ring` `got` may go, and returns how
    /// many of the others were not known to wait before.
    pub fn hold(&mut self, ring: RingId, wanted: u32, got: u32) -> u32 {
        let Some(place) = self.places.get_mut(usize::from(ring)) else {
            return 0;
        };
        let known = place.held.saturating_sub(got);
        place.held = wanted.saturating_sub(got);
        place.held.saturating_sub(known)
    }
}

impl Default for Queue {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_come_first_served() {
        let mut q = Queue::new();
        assert!(q.is_turn_of(9));
        q.join(5, 10);
        q.join(2, 20);
        q.join(5, 30);
        assert_eq!((q.len(), q.head()), (2, Some(5)));
        assert!(q.is_turn_of(5));
        assert!(!q.is_turn_of(2));
        assert!(!q.is_turn_of(9));
        assert_eq!(q.leave(5), Some(10));
        assert_eq!(q.leave(5), None);
        assert_eq!(q.head(), Some(2));
        q.join(5, 40);
        assert_eq!(q.head(), Some(2));
    }

    #[test]
    fn a_ring_out_of_range_changes_nothing() {
        let mut q = Queue::new();
        q.join(64, 0);
        assert!(q.is_empty());
        assert_eq!(q.leave(255), None);
        assert_eq!(q.hold(200, 5, 0), 0);
    }

    #[test]
    fn each_held_request_is_counted_once() {
        let mut q = Queue::new();
        assert_eq!(q.hold(0, 32, 0), 32);
        assert_eq!(q.hold(0, 32, 0), 0);
        assert_eq!(q.hold(0, 32, 1), 0);
        // 31 known ones wait; 2 more arrived, 1 of the known may go.
        assert_eq!(q.hold(0, 33, 1), 2);
        assert_eq!(q.hold(0, 32, 32), 0);
        assert_eq!(q.hold(0, 4, 1), 3);
    }
}
