// SPDX-License-Identifier: GPL-2.0

//! A token bucket and the queue of members that wait for its tokens.
//!
//! The members are the rings of a disk ([`super::admission`]) or the disks of a
//! guest ([`super::cap`]). The order of the members is in [`super::fifo`], the arithmetic
//! of tokens in [`super::bucket`], the counters in [`super::meter`].

use super::super::ids::Member;
use super::bucket::Bucket;
use super::fifo::Fifo;
use super::limits::Limit;
use super::meter::Meter;

/// The largest quantum: the most tokens that a member gets at once.
pub const QUANTUM_MAX: u32 = 32;

/// The number of the present bucket of a queue. It changes when a limit begins or ends, so that
/// unused tokens are never given back to another bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Generation(u32);

/// The tokens that a member may take now. None is taken yet.
#[derive(Clone, Copy, Debug)]
pub struct Offer {
    /// The number of tokens; 0 if the member has to wait.
    pub tokens: u32,
    /// The member is next in the queue.
    pub is_next: bool,
    /// Tokens that are left of the member's quantum.
    quantum_left: u32,
}

/// A queue of `N` members and its bucket, if there is a limit. Without a bucket, members may
/// wait for another limit of the owner of the queue: bytes, or the cap.
#[derive(Clone, Debug)]
pub struct TokenQueue<const N: usize> {
    bucket: Option<Bucket>,
    generation: Generation,
    fifo: Fifo<N>,
    /// The members that got tokens in passing, see [`Self::pass`].
    passing: Members,
    pub(super) meter: Meter,
}

/// Members below 64, a bit for each.
pub type Members = u64;

/// The bit of `member`; none for one of 64 or more, which is never served in passing.
pub fn bit_of(member: Member) -> Members {
    1_u64.checked_shl(u32::from(member)).unwrap_or(0)
}

impl<const N: usize> TokenQueue<N> {
    /// An empty queue without a bucket.
    pub const fn new() -> Self {
        Self {
            bucket: None,
            generation: Generation(0),
            fifo: Fifo::new(),
            passing: 0,
            meter: Meter::new(),
        }
    }

    /// The limit in force.
    pub fn limit(&self) -> Option<Limit> {
        self.bucket.map(|bucket| bucket.limit())
    }

    /// The generation of the present bucket, or of its absence.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// Sets the first bucket, if there is a limit.
    pub fn start(&mut self, bucket: Option<Bucket>) {
        self.replace(bucket);
    }

    /// Changes the limit. A queue without a bucket gets one with the tokens of a tenth of a
    /// second, see [`Bucket::fresh`].
    pub fn set_limit(&mut self, limit: Option<Limit>, now: u64) {
        let waiting = self.active() > 0;
        self.replace(Bucket::changed(self.bucket, limit, now, waiting));
    }

    /// Gives `member` all `wanted` tokens (at least one) without a place in the queue, if no member is
    /// there and that is what it would get there. Returns false, with no token taken, otherwise.
    ///
    /// The member is active until it leaves, as one in the queue is. But that is a bit of
    /// [`Self::passing`], which the owner of the queue may clear without what this queue needs
    /// otherwise, for example a lock.
    #[inline]
    pub fn pass(&mut self, member: Member, wanted: u32, now: u64) -> bool {
        let (bit, active) = (bit_of(member), self.passing);
        let Some(bucket) = self.bucket.as_mut() else {
            return false;
        };
        if !self.fifo.is_unused() || bit == 0 {
            return false;
        }
        // A quantum is one token or more, so that one token needs no look at it.
        if wanted > 1 && wanted > quantum(bucket.limit(), active.count_ones()) {
            return false;
        }
        bucket.accrue(now, active != 0);
        if bucket.available(wanted) < wanted {
            return false;
        }
        bucket.take(wanted);
        self.meter.spend(wanted, now);
        self.passing = active | bit;
        true
    }

    /// `member`, if it got tokens in passing, is from now on one of the queue that works.
    pub fn enter(&mut self, member: Member) {
        if self.passing & bit_of(member) != 0 {
            self.passing &= !bit_of(member);
            self.fifo.serve(member, 0, 0);
        }
    }

    /// The members that got tokens in passing and have not left.
    pub fn passing(&self) -> Members {
        self.passing
    }

    /// Some of those that got tokens in passing may have left: now only `passing` have not.
    pub fn set_passing(&mut self, passing: Members) {
        self.passing = passing;
    }

    /// The tokens that `member` may take of the `wanted` ones (at least one). A new quantum
    /// has `quantum` tokens.
    pub fn offer(&mut self, member: Member, wanted: u32, quantum: u32, now: u64) -> Offer {
        self.accrue(now);
        let quantum_left = match self.fifo.quantum_left(member) {
            0 => quantum,
            left => left.min(quantum),
        };
        let is_next = self.fifo.is_next(member);
        let most = wanted.min(quantum_left);
        let tokens = match &self.bucket {
            _ if !is_next => 0,
            None => most,
            Some(bucket) => bucket.available(most),
        };
        Offer {
            tokens,
            is_next,
            quantum_left,
        }
    }

    /// `member` takes `got` tokens (at least one) of `offer`, which was for `wanted` tokens.
    pub fn serve(&mut self, member: Member, offer: Offer, got: u32, wanted: u32, now: u64) {
        if let Some(bucket) = &mut self.bucket {
            bucket.take(got);
        }
        self.meter.spend(got, now);
        let left = if got == wanted {
            0
        } else {
            offer.quantum_left.saturating_sub(got)
        };
        if left > 0 && self.fifo.len() > 1 {
            // The member stays first in the queue until its quantum is used up.
            if let Some(since) = self.fifo.restart(member, now) {
                self.meter.waited(since, now);
            }
        } else {
            self.end_wait(member, now);
        }
        self.fifo.serve(member, got, left);
    }

    /// Records that `member` has to wait with `wanted` requests.
    pub fn refuse(&mut self, member: Member, wanted: u32, now: u64) {
        let newly_throttled = self.fifo.refuse(member, wanted, now);
        self.meter.nr_throttled = self
            .meter
            .nr_throttled
            .wrapping_add(u64::from(newly_throttled));
        self.meter.set_throttled(true, now);
    }

    /// Returns unused `tokens`, which were taken in `generation`. They are lost if that
    /// bucket is gone.
    pub fn give_back(&mut self, tokens: u32, generation: Generation) {
        if let (Some(bucket), true) = (&mut self.bucket, generation == self.generation) {
            bucket.give_back(tokens);
        }
        self.meter.unspend(tokens);
    }

    /// Spends `tokens`, into debt if the bucket has fewer.
    pub fn charge(&mut self, tokens: u32, now: u64) {
        self.accrue(now);
        if let Some(bucket) = &mut self.bucket {
            bucket.charge(tokens);
        }
        self.meter.spend(tokens, now);
    }

    /// Records that `member` has no more requests.
    pub fn leave(&mut self, member: Member, now: u64) {
        self.passing &= !bit_of(member);
        self.fifo.finish(member);
        self.end_wait(member, now);
    }

    /// As [`Self::leave`], but only if no member waits: then no wait ends, and the time is
    /// not needed. Returns false, without any effect, if a member waits.
    pub fn leave_idle(&mut self, member: Member) -> bool {
        let idle = self.fifo.is_empty();
        if idle {
            self.passing &= !bit_of(member);
            self.fifo.finish(member);
        }
        idle
    }

    /// Records that no member has any requests.
    pub fn leave_all(&mut self, now: u64) {
        for member in 0..Fifo::<N>::MEMBERS {
            self.leave(member, now);
        }
    }

    /// The next member, if any waits.
    pub fn head(&self) -> Option<Member> {
        self.fifo.head()
    }

    /// The time at which there are tokens for the next member; 0 if there is no bucket.
    pub fn ready_at(&mut self, now: u64) -> u64 {
        let Some(bucket) = &mut self.bucket else {
            return 0;
        };
        bucket.accrue(now, true);
        bucket.ready_at()
    }

    /// Whether no member waits.
    pub fn is_empty(&self) -> bool {
        self.fifo.is_empty()
    }

    /// The number of active members, see [`Fifo::active`], and of those that got tokens in passing.
    pub fn active(&self) -> u32 {
        match self.passing {
            0 => self.fifo.active(),
            passing => self.fifo.active().saturating_add(passing.count_ones()),
        }
    }

    /// Whether no member waits, and none works that is in the queue.
    pub fn is_idle(&self) -> bool {
        self.fifo.is_unused()
    }

    /// Whether `member` works on requests that got tokens, and has not asked since.
    pub fn is_busy(&self, member: Member) -> bool {
        self.fifo.is_busy(member)
    }

    /// Marks no member as working, because there is no limit any more.
    pub fn clear_busy(&mut self) {
        self.fifo.clear_busy();
    }

    /// Tokens in the bucket; negative in debt.
    pub fn tokens(&mut self, now: u64) -> Option<i64> {
        self.accrue(now);
        self.bucket.map(|bucket| bucket.tokens())
    }

    /// Whether the bucket is full, or there is no bucket.
    pub fn is_full_if_any(&self) -> bool {
        self.bucket.as_ref().is_none_or(Bucket::is_full)
    }

    fn accrue(&mut self, now: u64) {
        let waiting = self.active() > 0;
        if let Some(bucket) = &mut self.bucket {
            bucket.accrue(now, waiting);
        }
    }

    fn replace(&mut self, bucket: Option<Bucket>) {
        if bucket.is_some() != self.bucket.is_some() {
            self.generation = Generation(self.generation.0.wrapping_add(1));
        }
        self.bucket = bucket;
    }

    fn end_wait(&mut self, member: Member, now: u64) {
        if let Some(since) = self.fifo.leave(member) {
            self.meter.waited(since, now);
        }
        self.meter.set_throttled(!self.fifo.is_empty(), now);
    }
}

impl<const N: usize> Default for TokenQueue<N> {
    fn default() -> Self {
        Self::new()
    }
}

/// The quantum of a member under `limit`, with `active` members: [`QUANTUM_MAX`] for a single
/// member; otherwise the tokens of a millisecond, divided among the members, at least 1.
pub fn quantum(limit: Limit, active: u32) -> u32 {
    match active {
        0 | 1 => QUANTUM_MAX,
        members => (limit.refill() / 1000)
            .checked_div(members)
            .unwrap_or(1)
            .clamp(1, QUANTUM_MAX),
    }
}
