// SPDX-License-Identifier: GPL-2.0

//! Which members of a line wait for tokens, and who is next.
//!
//! First come, first served: a member takes a ticket when it has to wait and gives
//! it up when it was served or has nothing left to ask for. The members are the
//! rings of a disk, or the disks of a guest.

/// Rings of one disk that can wait at once: the most queues that are offered.
pub const RINGS_MAX: usize = 64;

/// A ring of a disk: its queue number, below [`RINGS_MAX`].
pub type RingId = u8;

#[derive(Clone, Copy, Debug)]
struct Place {
    /// 0: does not wait.
    ticket: u64,
    since: u64,
    refused: u32,
    turn: u32,
    /// Works on what it got, whether or not it waits for more.
    working: bool,
    /// Works, and has no ticket.
    busy: bool,
}

/// Those of `N` members that wait.
#[derive(Clone, Debug)]
pub struct Queue<const N: usize> {
    places: [Place; N],
    next_ticket: u64,
    waiting: u32,
    busy: u32,
}

impl<const N: usize> Queue<N> {
    /// How many members there can be.
    pub const MEMBERS: u8 = {
        assert!(N <= u8::MAX as usize);
        N as u8
    };

    /// Nobody waits.
    pub const fn new() -> Self {
        Self {
            places: [Place {
                ticket: 0,
                since: 0,
                refused: 0,
                turn: 0,
                working: false,
                busy: false,
            }; N],
            next_ticket: 1,
            waiting: 0,
            busy: 0,
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

    /// `ring` was told to wait with `wanted` requests. Returns how many of them were
    /// not known to wait before.
    pub fn refuse(&mut self, ring: RingId, wanted: u32, now: u64) -> u32 {
        self.join(ring, now);
        self.set_working(ring, false);
        let Some(place) = self.places.get_mut(usize::from(ring)) else {
            return 0;
        };
        let newly = wanted.saturating_sub(place.refused);
        place.refused = wanted;
        newly
    }

    /// `ring` works on `got` requests; `left` is what is left of its turn.
    pub fn serve(&mut self, ring: RingId, got: u32, left: u32) {
        self.set_working(ring, true);
        if let Some(place) = self.places.get_mut(usize::from(ring)) {
            place.refused = place.refused.saturating_sub(got);
            place.turn = left;
        }
    }

    /// `ring` has nothing to ask for.
    pub fn finish(&mut self, ring: RingId) {
        self.set_working(ring, false);
        if let Some(place) = self.places.get_mut(usize::from(ring)) {
            place.refused = 0;
            place.turn = 0;
        }
    }

    /// Does `ring` work on what it got?
    pub fn is_busy(&self, ring: RingId) -> bool {
        self.places
            .get(usize::from(ring))
            .is_some_and(|place| place.working)
    }

    /// What is left of `ring`'s turn; 0: it has yet to begin one.
    pub fn turn(&self, ring: RingId) -> u32 {
        self.places
            .get(usize::from(ring))
            .map_or(0, |place| place.turn)
    }

    /// The wait of the ring whose turn goes on starts anew. Returns since when it
    /// waited.
    pub fn restart(&mut self, ring: RingId, now: u64) -> Option<u64> {
        let place = self.places.get_mut(usize::from(ring))?;
        (place.ticket != 0).then(|| core::mem::replace(&mut place.since, now))
    }

    /// Rings that wait, or work on what they got and may want more.
    pub fn present(&self) -> u32 {
        self.waiting.saturating_add(self.busy)
    }

    /// Nobody is busy any more as far as a limit is concerned.
    pub fn forget_busy(&mut self) {
        self.busy = 0;
        for place in &mut self.places {
            place.working = false;
            place.busy = false;
            place.turn = 0;
            place.refused = 0;
        }
    }

    /// Only rings without a ticket are counted as busy.
    fn set_working(&mut self, ring: RingId, working: bool) {
        let Some(place) = self.places.get_mut(usize::from(ring)) else {
            return;
        };
        place.working = working;
        let busy = working && place.ticket == 0;
        match (place.busy, busy) {
            (false, true) => self.busy = self.busy.saturating_add(1),
            (true, false) => self.busy = self.busy.saturating_sub(1),
            _ => {}
        }
        place.busy = busy;
    }
}

impl<const N: usize> Default for Queue<N> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_come_first_served() {
        let mut q = Queue::<RINGS_MAX>::new();
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
        let mut q = Queue::<RINGS_MAX>::new();
        q.join(64, 0);
        assert!(q.is_empty());
        assert_eq!(q.leave(255), None);
    }
}
