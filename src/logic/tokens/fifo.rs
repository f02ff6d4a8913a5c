// SPDX-License-Identifier: GPL-2.0

//! Which members of a line wait for tokens, and who is next.
//!
//! First come, first served: a member takes a ticket when it has to wait and gives
//! it up when it was served or has nothing left to ask for. The members are the
//! rings of a disk, or the disks of a guest.

use super::super::ids::Member;

#[derive(Clone, Copy, Debug)]
struct Entry {
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
pub struct Fifo<const N: usize> {
    entries: [Entry; N],
    next_ticket: u64,
    waiting: u32,
    busy: u32,
}

impl<const N: usize> Fifo<N> {
    /// How many members there can be.
    pub const MEMBERS: u8 = {
        assert!(N <= u8::MAX as usize);
        N as u8
    };

    /// Nobody waits.
    pub const fn new() -> Self {
        Self {
            entries: [Entry {
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

    /// The member whose turn it is.
    pub fn head(&self) -> Option<Member> {
        if self.is_empty() {
            return None;
        }
        let mut head: Option<(u64, Member)> = None;
        let mut member: Member = 0;
        for entry in &self.entries {
            if entry.ticket != 0 && head.is_none_or(|(ticket, _)| entry.ticket < ticket) {
                head = Some((entry.ticket, member));
            }
            member = member.wrapping_add(1);
        }
        head.map(|(_, member)| member)
    }

    /// May `member` be served now, ahead of everybody who waits?
    pub fn is_turn_of(&self, member: Member) -> bool {
        self.is_empty() || self.head() == Some(member)
    }

    /// `member` waits from `now` on; no change if it waits already.
    pub fn join(&mut self, member: Member, now: u64) {
        let Some(entry) = self.entries.get_mut(usize::from(member)) else {
            return;
        };
        if entry.ticket == 0 {
            entry.ticket = self.next_ticket;
            entry.since = now;
            self.next_ticket = self.next_ticket.wrapping_add(1);
            self.waiting = self.waiting.saturating_add(1);
        }
    }

    /// `member` waits no more. Returns since when it did.
    pub fn leave(&mut self, member: Member) -> Option<u64> {
        let entry = self.entries.get_mut(usize::from(member))?;
        if entry.ticket == 0 {
            return None;
        }
        entry.ticket = 0;
        self.waiting = self.waiting.saturating_sub(1);
        Some(entry.since)
    }

    /// `member` was told to wait with `wanted` requests. Returns how many of them were
    /// not known to wait before.
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

    /// `member` works on `got` requests; `left` is what is left of its turn.
    pub fn serve(&mut self, member: Member, got: u32, left: u32) {
        self.set_working(member, true);
        if let Some(entry) = self.entries.get_mut(usize::from(member)) {
            entry.refused = entry.refused.saturating_sub(got);
            entry.turn = left;
        }
    }

    /// `member` has nothing to ask for.
    pub fn finish(&mut self, member: Member) {
        self.set_working(member, false);
        if let Some(entry) = self.entries.get_mut(usize::from(member)) {
            entry.refused = 0;
            entry.turn = 0;
        }
    }

    /// Does `member` work on what it got?
    pub fn is_busy(&self, member: Member) -> bool {
        self.entries
            .get(usize::from(member))
            .is_some_and(|entry| entry.working)
    }

    /// What is left of `member`'s turn; 0: it has yet to begin one.
    pub fn turn(&self, member: Member) -> u32 {
        self.entries
            .get(usize::from(member))
            .map_or(0, |entry| entry.turn)
    }

    /// The wait of the member whose turn goes on starts anew. Returns since when it
    /// waited.
    pub fn restart(&mut self, member: Member, now: u64) -> Option<u64> {
        let entry = self.entries.get_mut(usize::from(member))?;
        (entry.ticket != 0).then(|| core::mem::replace(&mut entry.since, now))
    }

    /// Rings that wait, or work on what they got and may want more.
    pub fn present(&self) -> u32 {
        self.waiting.saturating_add(self.busy)
    }

    /// Nobody is busy any more as far as a limit is concerned.
    pub fn forget_busy(&mut self) {
        self.busy = 0;
        for entry in &mut self.entries {
            entry.working = false;
            entry.busy = false;
            entry.turn = 0;
            entry.refused = 0;
        }
    }

    /// Only rings without a ticket are counted as busy.
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
        let mut q = Fifo::<RINGS_MAX>::new();
        q.join(64, 0);
        assert!(q.is_empty());
        assert_eq!(q.leave(255), None);
    }
}
