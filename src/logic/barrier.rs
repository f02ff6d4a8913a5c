// SPDX-License-Identifier: GPL-2.0

//! The order of write barriers among all rings of a disk.
//!
//! A `BLKIF_OP_WRITE_BARRIER` is submitted when every request that was consumed before
//! it, from any ring of the disk, has its response. No ring consumes a request until
//! the barrier itself has its response. The ring of the barrier is the owner.
//!
//! | ring | calls | when |
//! |---|---|---|
//! | owner | [`Barrier::begin`] | the ring has consumed a barrier |
//! | every ring | [`Barrier::drained`] | a barrier is active, and the ring has nothing in flight |
//! | owner | [`Barrier::may_submit`] | before the ring submits the barrier |
//! | owner | [`Barrier::end`] | the barrier has its response |
//!
//! A ring that consumes a barrier while the barrier of another ring is active holds it
//! back and calls [`Barrier::begin`] again later. A barrier that is held back is not in
//! flight, so the ring counts as drained meanwhile.
//!
//! This file has only the state. The caller holds the lock and wakes the rings.

use super::ids::RingId;
use super::ids::RINGS_MAX;

/// The active barrier of a disk, and which rings are drained.
#[derive(Clone, Copy, Debug)]
pub struct Barrier {
    rings: u32,
    owner: Option<RingId>,
    drained: u64,
}

const _: () = assert!(RINGS_MAX <= 64);

impl Barrier {
    /// No active barrier. `rings`: the number of rings, at most [`RINGS_MAX`].
    pub const fn new(rings: u32) -> Self {
        Self {
            rings,
            owner: None,
            drained: 0,
        }
    }

    /// Whether a barrier is active: no ring may consume a request.
    pub fn is_active(&self) -> bool {
        self.owner.is_some()
    }

    /// Makes the barrier of `ring` the active one if there is none. Returns whether the
    /// barrier of `ring` is active.
    pub fn begin(&mut self, ring: RingId) -> bool {
        if self.owner.is_none() {
            self.owner = Some(ring);
            self.drained = 0;
        }
        self.owner == Some(ring)
    }

    /// Records that `ring` has no request in flight. Returns the owner, to be woken, if
    /// `ring` was the last ring to drain.
    pub fn drained(&mut self, ring: RingId) -> Option<RingId> {
        let owner = self.owner?;
        let before = self.all_drained();
        self.drained |= bit(ring);
        (!before && self.all_drained()).then_some(owner)
    }

    /// Whether `ring` may submit its barrier now.
    pub fn may_submit(&self, ring: RingId) -> bool {
        self.owner == Some(ring) && self.all_drained()
    }

    /// Ends the barrier of `ring`, which has its response. No effect if `ring` is not the owner.
    pub fn end(&mut self, ring: RingId) {
        if self.owner == Some(ring) {
            self.owner = None;
        }
    }

    fn all_drained(&self) -> bool {
        self.drained.count_ones() >= self.rings
    }
}

fn bit(ring: RingId) -> u64 {
    1u64.checked_shl(u32::from(ring)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_barrier_is_submitted_when_every_ring_is_drained() {
        let mut b = Barrier::new(3);
        assert!(!b.is_active());
        assert!(b.begin(1));
        assert!(b.is_active());
        assert_eq!(b.drained(0), None);
        assert_eq!(b.drained(0), None);
        assert_eq!(b.drained(1), None);
        assert!(!b.may_submit(1));
        assert_eq!(b.drained(2), Some(1));
        assert!(b.may_submit(1) && !b.may_submit(0));
        b.end(1);
        assert!(!b.is_active() && !b.may_submit(1));
    }

    #[test]
    fn a_second_barrier_waits_for_the_first() {
        let mut b = Barrier::new(2);
        assert!(b.begin(0));
        assert!(!b.begin(1));
        b.drained(1);
        assert_eq!(b.drained(0), Some(0));
        b.end(1);
        assert!(b.may_submit(0), "ring 1 is not the owner");
        b.end(0);
        assert!(b.begin(1));
        assert!(!b.may_submit(1), "every ring has to drain again");
    }

    #[test]
    fn a_drained_ring_without_a_barrier_wakes_no_ring() {
        assert_eq!(Barrier::new(1).drained(0), None);
    }

    #[test]
    fn the_largest_number_of_rings_works() {
        let mut b = Barrier::new(RINGS_MAX as u32);
        b.begin(63);
        for ring in 0..63 {
            assert_eq!(b.drained(ring), None);
        }
        assert_eq!(b.drained(63), Some(63));
    }
}
