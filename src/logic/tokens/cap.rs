// SPDX-License-Identifier: GPL-2.0

//! The cap: a limit that all disks of one guest share.
//!
//! The keys of any disk of the guest may request a cap. The requested cap with the
//! smallest refill is in force, whatever the order of the requests. A disk that requests
//! no cap is under it as well. A request needs one token of its disk and one of the cap.
//!
//! The disks that wait are served in turn, one quantum each, as are the rings of a disk.
//! The disk decides which of its rings is served: see [`super::admission`].

use super::super::ids::DiskId;
use super::super::ids::DISKS_MAX;
use super::bucket::Bucket;
use super::limits::Limit;
use super::meter::Meter;
use super::timer_action::TimerAction;
use super::token_queue::quantum;
use super::token_queue::Generation;
use super::token_queue::TokenQueue;

/// The cap of one guest.
#[derive(Clone, Debug)]
pub struct Cap {
    queue: TokenQueue<DISKS_MAX>,
    requested: [Option<Limit>; DISKS_MAX],
}

impl Cap {
    /// No cap.
    pub const fn new() -> Self {
        Self {
            queue: TokenQueue::new(),
            requested: [None; DISKS_MAX],
        }
    }

    /// The cap in force.
    pub fn limit(&self) -> Option<Limit> {
        self.queue.limit()
    }

    /// Starts with the cap that the first disk of the guest requests: with a full bucket,
    /// or with the `saved` tokens.
    pub fn start(&mut self, disk: DiskId, limit: Option<Limit>, saved: Option<i64>, now: u64) {
        if let Some(slot) = self.requested.get_mut(usize::from(disk)) {
            *slot = limit;
        }
        self.queue.start(limit.map(|limit| match saved {
            Some(level) => Bucket::restored(limit, level, now),
            None => Bucket::full(limit, now),
        }));
    }

    /// Sets the cap that `disk` requests from `now` on, if any. Returns whether the cap in
    /// force changes: then all disks have to ask again.
    pub fn request(&mut self, disk: DiskId, limit: Option<Limit>, now: u64) -> bool {
        if let Some(slot) = self.requested.get_mut(usize::from(disk)) {
            *slot = limit;
        }
        let smallest = self
            .requested
            .iter()
            .flatten()
            .min_by_key(|limit| (limit.refill(), limit.max()))
            .copied();
        if smallest == self.limit() {
            return false;
        }
        self.queue.set_limit(smallest, now);
        if smallest.is_none() {
            self.queue.leave_all(now);
        }
        true
    }

    /// `disk` asks for `wanted` tokens (at least one). Returns the number of tokens; 0 if
    /// the disk has to wait.
    pub fn take(&mut self, disk: DiskId, wanted: u32, now: u64) -> u32 {
        let Some(limit) = self.limit() else {
            return wanted;
        };
        let quantum = quantum(limit, self.queue.active());
        let offer = self.queue.offer(disk, wanted, quantum, now);
        if offer.tokens == 0 {
            self.queue.refuse(disk, wanted, now);
        } else {
            // The disk keeps its quantum until it is used up, because other rings of the disk
            // may want the rest. If no ring does, the disk leaves when it is woken next.
            self.queue.serve(disk, offer, offer.tokens, u32::MAX, now);
        }
        offer.tokens
    }

    /// The generation of the present bucket, or of its absence.
    pub fn generation(&self) -> Generation {
        self.queue.generation()
    }

    /// Returns unused `tokens`, which were taken in `generation`.
    pub fn give_back(&mut self, tokens: u32, generation: Generation) {
        self.queue.give_back(tokens, generation);
    }

    /// Spends `tokens`, into debt if the bucket has fewer.
    pub fn charge(&mut self, tokens: u32, now: u64) {
        self.queue.charge(tokens, now);
    }

    /// Records that `disk` has no more requests.
    pub fn leave(&mut self, disk: DiskId, now: u64) {
        self.queue.leave(disk, now);
    }

    /// The timer action: which disk to wake, and when.
    pub fn next(&mut self, now: u64) -> TimerAction {
        let Some(head) = self.queue.head() else {
            return TimerAction::Stop;
        };
        let at = self.queue.ready_at(now);
        if at > now {
            TimerAction::ArmAt(at)
        } else {
            TimerAction::Wake(head)
        }
    }

    /// The tokens in the bucket at `now`: negative in debt, 0 without a cap.
    pub fn tokens(&mut self, now: u64) -> i64 {
        self.queue.tokens(now).unwrap_or(0)
    }

    /// The counters of the cap.
    pub fn meter(&self) -> &Meter {
        &self.queue.meter
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
    fn the_smallest_requested_cap_is_in_force_in_any_order() {
        for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2]] {
            let requested = [limit(300, 9), limit(100, 50), limit(200, 1)];
            let mut cap = Cap::new();
            for disk in order {
                cap.request(disk, requested[usize::from(disk)], 0);
            }
            assert_eq!(cap.limit(), limit(100, 50));
            assert!(cap.request(1, None, 0));
            assert_eq!(cap.limit(), limit(200, 1));
        }
    }

    #[test]
    fn disks_share_the_cap_and_are_served_in_turn() {
        let mut cap = Cap::new();
        cap.start(0, limit(10, 2), None, 0);
        assert_eq!(cap.take(0, 5, 0), 2);
        assert_eq!(cap.take(0, 3, 0), 0);
        assert_eq!(cap.take(7, 1, 0), 0);
        assert_eq!(cap.next(0), TimerAction::ArmAt(100 * MS));
        assert_eq!(cap.next(100 * MS), TimerAction::Wake(0));
        assert_eq!(cap.take(0, 3, 100 * MS), 1);
        assert_eq!(cap.take(0, 2, 100 * MS), 0);
        assert_eq!(cap.next(200 * MS), TimerAction::Wake(7));
        assert_eq!(cap.take(7, 1, 200 * MS), 1);
        cap.leave(0, 200 * MS);
        assert_eq!(cap.next(200 * MS), TimerAction::Stop);
    }

    #[test]
    fn a_quantum_belongs_to_the_disk_and_not_to_a_ring() {
        let mut cap = Cap::new();
        cap.start(0, limit(20_000, 1), None, 0);
        cap.charge(1, 0);
        let mut got = [0u32; 2];
        let mut now = 0;
        // Disk 0 asks for many tokens at once, disk 1 for one at a time.
        assert_eq!((cap.take(0, 32, now), cap.take(1, 1, now)), (0, 0));
        while got[0] + got[1] < 10_000 {
            match cap.next(now) {
                TimerAction::ArmAt(at) => now = at,
                TimerAction::Wake(disk) => {
                    let wanted = [32, 1][usize::from(disk)];
                    loop {
                        match cap.take(disk, wanted, now) {
                            0 => break,
                            some => got[usize::from(disk)] += some,
                        }
                    }
                }
                TimerAction::Stop => panic!("both disks want more"),
            }
        }
        assert!(got[0].abs_diff(got[1]) <= 32, "{got:?}");
    }

    #[test]
    fn a_cap_that_is_set_later_causes_no_burst() {
        let mut cap = Cap::new();
        assert!(cap.request(3, limit(1000, 1000), SECOND));
        assert_eq!(cap.tokens(SECOND), 100);
        assert!(!cap.request(4, limit(2000, 1), SECOND));
    }

    #[test]
    fn without_a_cap_no_disk_waits() {
        let mut cap = Cap::new();
        cap.start(0, limit(1, 1), None, 0);
        assert_eq!((cap.take(0, 9, 0), cap.take(0, 8, 0)), (1, 0));
        assert!(cap.request(0, None, 0));
        assert_eq!(cap.next(0), TimerAction::Stop);
        assert_eq!(cap.take(0, 8, 0), 8);
    }
}
