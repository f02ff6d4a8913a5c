// SPDX-License-Identifier: GPL-2.0

//! The order of the members of a token queue that wait for tokens.
//!
//! The order is first come, first served. A member gets a ticket when it has to wait. It
//! returns the ticket when it is served or has no more requests. The members are the rings
//! of a disk, or the disks of a guest. Tokens are counted in [`super::token_queue`].

use super::super::ids::Member;

#[derive(Clone, Copy, Debug)]
struct Entry {
    /// The position in the order; 0: the member does not wait.
    ticket: u64,
    /// When the wait began.
    since: u64,
    /// Requests of the member that were refused and are counted as such.
    refused: u32,
    /// Tokens that are left of the member's quantum; 0: no quantum has begun.
    quantum_left: u32,
    /// The member works on requests that got tokens. It may also wait for more.
    working: bool,
    /// The member works, and has no ticket.
    busy: bool,
}

/// Those of `N` members that wait or work.
#[derive(Clone, Debug)]
pub struct Fifo<const N: usize> {
    entries: [Entry; N],
    /// Members below this number have waited at some time: only they can be next.
    known: usize,
    next_ticket: u64,
    waiting: u32,
    busy: u32,
}

impl<const N: usize> Fifo<N> {
    /// The number of members.
    pub const MEMBERS: u8 = {
        assert!(N <= u8::MAX as usize);
        N as u8
    };

    /// An empty queue.
    pub const fn new() -> Self {
        Self {
            entries: [Entry {
                ticket: 0,
                since: 0,
                refused: 0,
                quantum_left: 0,
                working: false,
                busy: false,
            }; N],
            known: 0,
            next_ticket: 1,
            waiting: 0,
            busy: 0,
        }
    }

    /// The number of members that wait.
    pub fn len(&self) -> u32 {
        self.waiting
    }

    /// Whether no member waits.
    pub fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    /// The member that is next: the one that waits longest.
    pub fn head(&self) -> Option<Member> {
        if self.is_empty() {
            return None;
        }
        let mut head: Option<(u64, Member)> = None;
        let mut member: Member = 0;
        for entry in self.entries.iter().take(self.known) {
            if entry.ticket != 0 && head.is_none_or(|(ticket, _)| entry.ticket < ticket) {
                head = Some((entry.ticket, member));
            }
            member = member.wrapping_add(1);
        }
        head.map(|(_, member)| member)
    }

    /// Whether `member` may be served now: it is next, or no member waits.
    pub fn is_next(&self, member: Member) -> bool {
        self.is_empty() || self.head() == Some(member)
    }

    /// Adds `member`, which waits from `now` on. No effect if `member` waits already.
    pub fn join(&mut self, member: Member, now: u64) {
        let Some(entry) = self.entries.get_mut(usize::from(member)) else {
            return;
        };
        if entry.ticket == 0 {
            entry.ticket = self.next_ticket;
            entry.since = now;
            self.known = self.known.max(usize::from(member).saturating_add(1));
            self.next_ticket = self.next_ticket.wrapping_add(1);
            self.waiting = self.waiting.saturating_add(1);
        }
    }

    /// Removes `member`. Returns when its wait began.
    pub fn leave(&mut self, member: Member) -> Option<u64> {
        let entry = self.entries.get_mut(usize::from(member))?;
        if entry.ticket == 0 {
            return None;
        }
        entry.ticket = 0;
        self.waiting = self.waiting.saturating_sub(1);
        Some(entry.since)
    }

    /// Records that `member` has to wait with `wanted` requests. Returns the number of
    /// requests that were not refused before.
    pub fn refuse(&mut self, member: Member, wanted: u32, now: u64) -> u32 {
        self.join(member, now);
        self.set_working(member, false);
        let Some(entry) = self.entries.get_mut(usize::from(member)) else {
            return 0;
        };
        let newly = wanted.saturating_sub(entry.refused);
        entry.refused = wanted;
        newly
    }

    /// Records that `member` works on `got` requests and has `left` tokens left of its quantum.
    pub fn serve(&mut self, member: Member, got: u32, left: u32) {
        self.set_working(member, true);
        if let Some(entry) = self.entries.get_mut(usize::from(member)) {
            entry.refused = entry.refused.saturating_sub(got);
            entry.quantum_left = left;
        }
    }

    /// Records that `member` has no more requests.
    pub fn finish(&mut self, member: Member) {
        self.set_working(member, false);
        if let Some(entry) = self.entries.get_mut(usize::from(member)) {
            entry.refused = 0;
            entry.quantum_left = 0;
        }
    }

    /// Whether `member` works on requests that got tokens.
    pub fn is_busy(&self, member: Member) -> bool {
        self.entries
            .get(usize::from(member))
            .is_some_and(|entry| entry.working)
    }

    /// Tokens that are left of the quantum of `member`; 0: no quantum has begun.
    pub fn quantum_left(&self, member: Member) -> u32 {
        self.entries
            .get(usize::from(member))
            .map_or(0, |entry| entry.quantum_left)
    }

    /// Restarts the wait of `member`, which keeps its position because its quantum is not
    /// used up. Returns when the previous wait began.
    pub fn restart(&mut self, member: Member, now: u64) -> Option<u64> {
        let entry = self.entries.get_mut(usize::from(member))?;
        (entry.ticket != 0).then(|| core::mem::replace(&mut entry.since, now))
    }

    /// The number of active members: those that wait, and those that work and may want more tokens.
    pub fn active(&self) -> u32 {
        self.waiting.saturating_add(self.busy)
    }

    /// Whether no member is active.
    pub fn is_unused(&self) -> bool {
        self.waiting | self.busy == 0
    }

    /// Marks no member as working, because there is no limit any more.
    pub fn clear_busy(&mut self) {
        self.busy = 0;
        for entry in &mut self.entries {
            entry.working = false;
            entry.busy = false;
            entry.quantum_left = 0;
            entry.refused = 0;
        }
    }

    /// Sets whether `member` works. Only members without a ticket are counted as busy.
    fn set_working(&mut self, member: Member, working: bool) {
        let Some(entry) = self.entries.get_mut(usize::from(member)) else {
            return;
        };
        entry.working = working;
        let busy = working && entry.ticket == 0;
        match (entry.busy, busy) {
            (false, true) => self.busy = self.busy.saturating_add(1),
            (true, false) => self.busy = self.busy.saturating_sub(1),
            _ => {}
        }
        entry.busy = busy;
    }
}

impl<const N: usize> Default for Fifo<N> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::ids::RINGS_MAX;
    use super::*;

    #[test]
    fn first_come_first_served() {
        let mut q = Fifo::<RINGS_MAX>::new();
        assert!(q.is_next(9));
        q.join(5, 10);
        q.join(2, 20);
        q.join(5, 30);
        assert_eq!((q.len(), q.head()), (2, Some(5)));
        assert!(q.is_next(5));
        assert!(!q.is_next(2));
        assert!(!q.is_next(9));
        assert_eq!(q.leave(5), Some(10));
        assert_eq!(q.leave(5), None);
        assert_eq!(q.head(), Some(2));
        q.join(5, 40);
        assert_eq!(q.head(), Some(2));
    }

    #[test]
    fn a_member_out_of_range_changes_nothing() {
        let mut q = Fifo::<RINGS_MAX>::new();
        q.join(64, 0);
        assert!(q.is_empty());
        assert_eq!(q.leave(255), None);
    }
}
