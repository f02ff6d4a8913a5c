// SPDX-License-Identifier: GPL-2.0

//! A write barrier orders all rings of a disk.
//!
//! `BLKIF_OP_WRITE_BARRIER` goes to the disk when everything that was taken before
//! it, from whatever ring, is answered, and nothing is taken until it is answered
//! itself. The ring that finds one *claims* the disk; the rings take nothing more
//! and say so when they have nothing in flight; when all are quiet the claimant goes.
//!
//! | who | does | when |
//! |---|---|---|
//! | claimant | [`Barrier::claim`] | it has taken a barrier |
//! | every ring | [`Barrier::quiet`] | claimed, and nothing of it is in flight |
//! | claimant | sends the barrier | [`Barrier::may_go`] |
//! | claimant | [`Barrier::done`] | the barrier is answered |
//!
//! A ring that finds a barrier while another one has claimed the disk keeps it and
//! claims later; it is quiet meanwhile, for what it keeps is not in flight.

use super::queue::RingId;
use super::queue::RINGS_MAX;

/// Who has claimed a disk, and which of its rings are quiet.
#[derive(Clone, Copy, Debug)]
pub struct Barrier {
    rings: u32,
    claimant: Option<RingId>,
    quiet: u64,
}

const _: () = assert!(RINGS_MAX <= 64);

impl Barrier {
    /// Nobody claims anything. `rings`: how many there are, at most [`RINGS_MAX`].
    pub const fn new(rings: u32) -> Self {
        Self {
            rings,
            claimant: None,
            quiet: 0,
        }
    }

    /// Must no ring take anything?
    pub fn is_claimed(&self) -> bool {
        self.claimant.is_some()
    }

    /// `ring` has taken a barrier. Returns whether the disk is now, or was already,
    /// claimed for it.
    pub fn claim(&mut self, ring: RingId) -> bool {
        if self.claimant.is_none() {
            self.claimant = Some(ring);
            self.quiet = 0;
        }
        self.claimant == Some(ring)
    }

    /// Nothing of `ring` is in flight. Returns whom to wake, if this was the last
    /// one to say so.
    pub fn quiet(&mut self, ring: RingId) -> Option<RingId> {
        let claimant = self.claimant?;
        let before = self.all_quiet();
        self.quiet |= bit(ring);
        (!before && self.all_quiet()).then_some(claimant)
    }

    /// May `ring` send its barrier now?
    pub fn may_go(&self, ring: RingId) -> bool {
        self.claimant == Some(ring) && self.all_quiet()
    }

    /// The barrier of `ring` was answered.
    pub fn done(&mut self, ring: RingId) {
        if self.claimant == Some(ring) {
            self.claimant = None;
        }
    }

    fn all_quiet(&self) -> bool {
        self.quiet.count_ones() >= self.rings
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
        assert!(!b.is_claimed());
        assert!(b.claim(1));
        assert!(b.is_claimed());
        assert_eq!(b.quiet(0), None);
        assert_eq!(b.quiet(0), None);
        assert_eq!(b.quiet(1), None);
        assert!(!b.may_go(1));
        assert_eq!(b.quiet(2), Some(1));
        assert!(b.may_go(1) && !b.may_go(0));
        b.done(1);
        assert!(!b.is_claimed() && !b.may_go(1));
    }

    #[test]
    fn the_second_claimant_waits_for_the_first() {
        let mut b = Barrier::new(2);
        assert!(b.claim(0));
        assert!(!b.claim(1));
        b.quiet(1);
        assert_eq!(b.quiet(0), Some(0));
        b.done(1);
        assert!(b.may_go(0), "not its to end");
        b.done(0);
        assert!(b.claim(1));
        assert!(!b.may_go(1), "quiet again from the start");
    }

    #[test]
    fn a_quiet_ring_without_a_claim_wakes_nobody() {
        assert_eq!(Barrier::new(1).quiet(0), None);
    }

    #[test]
    fn the_last_of_the_most_rings_counts() {
        let mut b = Barrier::new(RINGS_MAX as u32);
        b.claim(63);
        for ring in 0..63 {
            assert_eq!(b.quiet(ring), None);
        }
        assert_eq!(b.quiet(63), Some(63));
    }
}
