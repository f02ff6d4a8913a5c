// SPDX-License-Identifier: GPL-2.0

//! What all disks of one guest share: one bucket, whoever set it.
//!
//! Any of the disks may carry a wish; the smallest refill counts, with its bucket,
//! whatever the order in which they came. A disk without a wish is under the cap
//! like all others. A request needs one token of its disk and one of the guest.
//!
//! The disks that wait are served in turn, as the rings of a disk are; which of its
//! rings goes is the disk's own business.

use super::bucket::Bucket;
use super::lane::quantum;
use super::lane::Era;
use super::lane::Lane;
use super::lane::Member;
use super::limits::Limit;
use super::meter::Meter;

/// The most disks of one guest.
pub const DISKS_MAX: usize = 64;

/// A disk's place, below [`DISKS_MAX`].
pub type DiskId = Member;

/// What the keeper of the timer has to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nobody waits: stop the timer.
    Nothing,
    /// Tell this disk to ask again.
    Wake(DiskId),
    /// Come back at this time (nanoseconds of CLOCK_MONOTONIC).
    At(u64),
}

/// The cap of one guest.
#[derive(Clone, Debug)]
pub struct Cap {
    lane: Lane<DISKS_MAX>,
    wishes: [Option<Limit>; DISKS_MAX],
}

impl Cap {
    /// No cap.
    pub const fn new() -> Self {
        Self {
            lane: Lane::new(),
            wishes: [None; DISKS_MAX],
        }
    }

    /// The cap in force.
    pub fn limit(&self) -> Option<Limit> {
        self.lane.limit()
    }

    /// The first disk of a guest begins with this wish: a full bucket, or one that
    /// was `kept`.
    pub fn start(&mut self, disk: DiskId, wish: Option<Limit>, kept: Option<u32>, now: u64) {
        if let Some(place) = self.wishes.get_mut(usize::from(disk)) {
            *place = wish;
        }
        self.lane.start(wish.map(|limit| match kept {
            Some(level) => Bucket::kept(limit, level, now),
            None => Bucket::full(limit, now),
        }));
    }

    /// `disk` wishes for this cap from now on, or for none. True if that changes
    /// the one in force: then all disks have to ask again.
    pub fn wish(&mut self, disk: DiskId, wish: Option<Limit>, now: u64) -> bool {
        if let Some(place) = self.wishes.get_mut(usize::from(disk)) {
            *place = wish;
        }
        let smallest = self
            .wishes
            .iter()
            .flatten()
            .min_by_key(|limit| (limit.refill(), limit.max()))
            .copied();
        if smallest == self.limit() {
            return false;
        }
        self.lane.set_limit(smallest, now);
        if smallest.is_none() {
            self.lane.leave_all(now);
        }
        true
    }

    /// `disk` asks for `wanted` tokens (at least one). 0: it has to wait.
    pub fn take(&mut self, disk: DiskId, wanted: u32, now: u64) -> u32 {
        let Some(limit) = self.limit() else {
            return wanted;
        };
        let quantum = quantum(limit, self.lane.present());
        let offer = self.lane.offer(disk, wanted, quantum, now);
        if offer.tokens == 0 {
            self.lane.refuse(disk, wanted, now);
        } else {
            // Its turn ends when it is used up: other rings of the disk may want the rest. If
            // none does, the disk is asked next, says so, and leaves.
            self.lane.serve(disk, offer, offer.tokens, u32::MAX, now);
        }
        offer.tokens
    }

    /// The bucket that pays now, or its absence.
    pub fn era(&self) -> Era {
        self.lane.era()
    }

    /// `tokens` of those taken in `era` were not used.
    pub fn give_back(&mut self, tokens: u32, era: Era) {
        self.lane.give_back(tokens, era);
    }

    /// `tokens` requests were let through although there may be no token.
    pub fn charge(&mut self, tokens: u32, now: u64) {
        self.lane.charge(tokens, now);
    }

    /// `disk` has nothing to ask for.
    pub fn leave(&mut self, disk: DiskId, now: u64) {
        self.lane.leave(disk, now);
    }

    /// Whom to tell, and when.
    pub fn next(&mut self, now: u64) -> Next {
        let Some(head) = self.lane.head() else {
            return Next::Nothing;
        };
        let at = self.lane.ready_at(now);
        if at > now {
            Next::At(at)
        } else {
            Next::Wake(head)
        }
    }

    /// Tokens left at `now`; 0 without a cap.
    pub fn tokens(&mut self, now: u64) -> i64 {
        self.lane.tokens(now).unwrap_or(0)
    }

    /// What was counted.
    pub fn meter(&self) -> &Meter {
        &self.lane.meter
    }
}

impl Default for Cap {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const MS: u64 = 1_000_000;

    fn limit(refill: u32, max: u32) -> Option<Limit> {
        Limit::new(refill, max)
    }

    #[test]
    fn the_smallest_wish_counts_whatever_the_order() {
        for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2]] {
            let wishes = [limit(300, 9), limit(100, 50), limit(200, 1)];
            let mut cap = Cap::new();
            for disk in order {
                cap.wish(disk, wishes[usize::from(disk)], 0);
            }
            assert_eq!(cap.limit(), limit(100, 50));
            assert!(cap.wish(1, None, 0));
            assert_eq!(cap.limit(), limit(200, 1));
        }
    }

    #[test]
    fn disks_share_and_are_served_in_turn() {
        let mut cap = Cap::new();
        cap.start(0, limit(10, 2), None, 0);
        assert_eq!(cap.take(0, 5, 0), 2);
        assert_eq!(cap.take(0, 3, 0), 0);
        assert_eq!(cap.take(7, 1, 0), 0);
        assert_eq!(cap.next(0), Next::At(100 * MS));
        assert_eq!(cap.next(100 * MS), Next::Wake(0));
        assert_eq!(cap.take(0, 3, 100 * MS), 1);
        assert_eq!(cap.take(0, 2, 100 * MS), 0);
        assert_eq!(cap.next(200 * MS), Next::Wake(7));
        assert_eq!(cap.take(7, 1, 200 * MS), 1);
        cap.leave(0, 200 * MS);
        assert_eq!(cap.next(200 * MS), Next::Nothing);
    }

    #[test]
    fn a_turn_is_the_disks_and_not_one_of_its_rings() {
        let mut cap = Cap::new();
        cap.start(0, limit(20_000, 1), None, 0);
        cap.charge(1, 0);
        let mut got = [0u32; 2];
        let mut now = 0;
        // Disk 0 asks for all it can have at once, disk 1 for one at a time.
        assert_eq!((cap.take(0, 32, now), cap.take(1, 1, now)), (0, 0));
        while got[0] + got[1] < 10_000 {
            match cap.next(now) {
                Next::At(at) => now = at,
                Next::Wake(disk) => {
                    let wanted = [32, 1][usize::from(disk)];
                    loop {
                        match cap.take(disk, wanted, now) {
                            0 => break,
                            some => got[usize::from(disk)] += some,
                        }
                    }
                }
                Next::Nothing => panic!("both want more"),
            }
        }
        assert!(got[0].abs_diff(got[1]) <= 32, "{got:?}");
    }

    #[test]
    fn a_cap_that_comes_later_mints_no_burst() {
        let mut cap = Cap::new();
        assert!(cap.wish(3, limit(1000, 1000), SECOND));
        assert_eq!(cap.tokens(SECOND), 100);
        assert!(!cap.wish(4, limit(2000, 1), SECOND));
    }

    #[test]
    fn without_a_cap_nobody_waits() {
        let mut cap = Cap::new();
        cap.start(0, limit(1, 1), None, 0);
        assert_eq!((cap.take(0, 9, 0), cap.take(0, 8, 0)), (1, 0));
        assert!(cap.wish(0, None, 0));
        assert_eq!(cap.next(0), Next::Nothing);
        assert_eq!(cap.take(0, 8, 0), 8);
    }
}
