// SPDX-License-Identifier: GPL-2.0

//! A write barrier orders all rings of a disk.
//!
//! `BLKIF_OP_WRITE_BARRIER` goes to the disk when everything that was taken before
//! it, from whatever ring, is answered, and nothing is taken until it is answered
//! itself. The ring that finds one *claims* the disk; the rings take nothing more
//! and say so when they have nothing in flight; when all are quiet the owner goes.
//!
//! | who | does | when |
//! |---|---|---|
//! | owner | [`Barrier::claim`] | it has taken a barrier |
//! | every ring | [`Barrier::quiet`] | claimed, and nothing of it is in flight |
//! | owner | sends the barrier | [`Barrier::may_submit`] |
//! | owner | [`Barrier::done`] | the barrier is answered |
//!
//! A ring that finds a barrier while another one has claimed the disk keeps it and
//! claims later; it is quiet meanwhile, for what it keeps is not in flight.

use super::ids::RingId;
use super::ids::RINGS_MAX;

/// Who has claimed a disk, and which of its rings are quiet.
#[derive(Clone, Copy, Debug)]
pub struct Barrier {
    rings: u32,
    owner: Option<RingId>,
    drained: u64,
}

const _: () = assert!(RINGS_MAX <= 64);

impl Barrier {
    /// Nobody claims anything. `rings`: how many there are, at most [`RINGS_MAX`].
    pub const fn new(rings: u32) -> Self {
        Self {
            rings,
            owner: None,
            drained: 0,
        }
    }

    /// Must no ring take anything?
    pub fn is_active(&self) -> bool {
        self.owner.is_some()
    }

    /// `ring` has taken a barrier. Returns whether the disk is now, or was already,
    /// claimed for it.
    pub fn begin(&mut self, ring: RingId) -> bool {
        if self.owner.is_none() {
            self.owner = Some(ring);
            self.drained = 0;
        }
        self.owner == Some(ring)
    }

    /// Nothing of `ring` is in flight. Returns whom to wake, if this was the last
    /// one to say so.
    pub fn drained(&mut self, ring: RingId) -> Option<RingId> {
        let owner = self.owner?;
        let before = self.all_drained();
        self.drained |= bit(ring);
        (!before && self.all_drained()).then_some(owner)
    }

    /// May `ring` send its barrier now?
    pub fn may_submit(&self, ring: RingId) -> bool {
        self.owner == Some(ring) && self.all_drained()
    }

    /// The barrier of `ring` was answered.
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
    fn a_barrier_goes_when_every_ring_is_quiet() {
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
    fn the_second_claimant_waits_for_the_first() {
        let mut b = Barrier::new(2);
        assert!(b.begin(0));
        assert!(!b.begin(1));
        b.drained(1);
        assert_eq!(b.drained(0), Some(0));
        b.end(1);
        assert!(b.may_submit(0), "not its to end");
        b.end(0);
        assert!(b.begin(1));
        assert!(!b.may_submit(1), "quiet again from the start");
    }

    #[test]
    fn a_quiet_ring_without_a_claim_wakes_nobody() {
        assert_eq!(Barrier::new(1).drained(0), None);
    }

    #[test]
    fn the_last_of_the_most_rings_counts() {
        let mut b = Barrier::new(RINGS_MAX as u32);
        b.begin(63);
        for ring in 0..63 {
            assert_eq!(b.drained(ring), None);
        }
        assert_eq!(b.drained(63), Some(63));
    }
}
