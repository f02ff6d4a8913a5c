// SPDX-License-Identifier: GPL-2.0

//! A line before one bucket: who may take how much, who waits, what is counted.
//!
//! The members are the rings of a disk ([`super::admission`]) or the disks of a
//! guest ([`super::cap`]).

use super::super::ids::Member;
use super::bucket::Bucket;
use super::fifo::Fifo;
use super::limits::Limit;
use super::meter::Meter;

/// The most tokens a member gets at once.
pub const QUANTUM_MAX: u32 = 32;

/// Tells one bucket of a line from those before and after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Generation(u32);

/// What a member could have now. Nothing is taken yet.
#[derive(Clone, Copy, Debug)]
pub struct Offer {
    /// Tokens; 0 if it has to wait.
    pub tokens: u32,
    /// Nobody is before it.
    pub is_turn: bool,
    /// What is left of its turn.
    turn: u32,
}

/// The line and its bucket; without one, the line is only for what else its owner
/// holds members up for.
#[derive(Clone, Debug)]
pub struct TokenQueue<const N: usize> {
    bucket: Option<Bucket>,
    generation: Generation,
    queue: Fifo<N>,
    pub(super) meter: Meter,
}

impl<const N: usize> TokenQueue<N> {
    /// Nobody waits, and there is no bucket.
    pub const fn new() -> Self {
        Self {
            bucket: None,
            generation: Generation(0),
            queue: Fifo::new(),
            meter: Meter::new(),
        }
    }

    /// The limit in force.
    pub fn limit(&self) -> Option<Limit> {
        self.bucket.map(|bucket| bucket.limit())
    }

    /// The bucket that pays now, or its absence.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// Begins with this bucket, or none.
    pub fn start(&mut self, bucket: Option<Bucket>) {
        self.replace(bucket);
    }

    /// Changes the limit. What had none gets a tenth of a second's tokens.
    pub fn set_limit(&mut self, limit: Option<Limit>, now: u64) {
        let waiting = self.queue.present() > 0;
        self.replace(Bucket::changed(self.bucket, limit, now, waiting));
    }

    /// What `who` could have of the `wanted` tokens (at least one), with turns of
    /// `quantum` tokens.
    pub fn offer(&mut self, who: Member, wanted: u32, quantum: u32, now: u64) -> Offer {
        self.accrue(now);
        let turn = match self.queue.turn(who) {
            0 => quantum,
            left => left.min(quantum),
        };
        let is_turn = self.queue.is_turn_of(who);
        let most = wanted.min(turn);
        let tokens = match &self.bucket {
            _ if !is_turn => 0,
            None => most,
            Some(bucket) => bucket.available(most),
        };
        Offer {
            tokens,
            is_turn,
            turn,
        }
    }

    /// `who` takes `got` tokens (at least one) of what it was offered; it had asked
    /// for `wanted`.
    pub fn serve(&mut self, who: Member, offer: Offer, got: u32, wanted: u32, now: u64) {
        if let Some(bucket) = &mut self.bucket {
            bucket.take(got);
        }
        self.meter.spend(got, now);
        let left = if got == wanted {
            0
        } else {
            offer.turn.saturating_sub(got)
        };
        if left > 0 && self.queue.len() > 1 {
            // Its turn goes on, ahead of those who wait behind it.
            if let Some(since) = self.queue.restart(who, now) {
                self.meter.waited(since, now);
            }
        } else {
            self.end_wait(who, now);
        }
        self.queue.serve(who, got, left);
    }

    /// `who` has to wait with `wanted` requests.
    pub fn refuse(&mut self, who: Member, wanted: u32, now: u64) {
        let newly_held = self.queue.refuse(who, wanted, now);
        self.meter.held = self.meter.held.wrapping_add(u64::from(newly_held));
        self.meter.throttle(true, now);
    }

    /// `tokens` of what was served in `generation` were not used.
    pub fn give_back(&mut self, tokens: u32, generation: Generation) {
        if let (Some(bucket), true) = (&mut self.bucket, generation == self.generation) {
            bucket.give_back(tokens);
        }
        self.meter.unspend(tokens);
    }

    /// `tokens` are spent, there or not.
    pub fn charge(&mut self, tokens: u32, now: u64) {
        self.accrue(now);
        if let Some(bucket) = &mut self.bucket {
            bucket.charge(tokens);
        }
        self.meter.spend(tokens, now);
    }

    /// `who` has nothing to ask for any more.
    pub fn leave(&mut self, who: Member, now: u64) {
        self.queue.finish(who);
        self.end_wait(who, now);
    }

    /// As [`Self::leave`] where nobody waits, so that no wait ends and no clock is needed.
    /// False, with nothing done, if somebody does.
    pub fn leave_unnoticed(&mut self, who: Member) -> bool {
        let unnoticed = self.queue.is_empty();
        if unnoticed {
            self.queue.finish(who);
        }
        unnoticed
    }

    /// Nobody asks for anything any more.
    pub fn leave_all(&mut self, now: u64) {
        for who in 0..Fifo::<N>::MEMBERS {
            self.leave(who, now);
        }
    }

    /// Who is next, if anybody waits.
    pub fn head(&self) -> Option<Member> {
        self.queue.head()
    }

    /// When there are tokens for the next one. 0: there is no bucket.
    pub fn ready_at(&mut self, now: u64) -> u64 {
        let Some(bucket) = &mut self.bucket else {
            return 0;
        };
        bucket.accrue(now, true);
        bucket.ready_at()
    }

    /// Does nobody wait?
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Those who wait, or work on what they got and may want more.
    pub fn present(&self) -> u32 {
        self.queue.present()
    }

    /// Works on what it got, and has not asked since?
    pub fn is_busy(&self, who: Member) -> bool {
        self.queue.is_busy(who)
    }

    /// Nobody is busy any more as far as a limit is concerned.
    pub fn forget_busy(&mut self) {
        self.queue.forget_busy();
    }

    /// Tokens in the bucket; negative in debt.
    pub fn tokens(&mut self, now: u64) -> Option<i64> {
        self.accrue(now);
        self.bucket.map(|bucket| bucket.tokens())
    }

    /// If there is a bucket, no more would fit.
    pub fn is_full_if_any(&self) -> bool {
        self.bucket.as_ref().is_none_or(Bucket::is_full)
    }

    fn accrue(&mut self, now: u64) {
        let waiting = self.queue.present() > 0;
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

    fn end_wait(&mut self, who: Member, now: u64) {
        if let Some(since) = self.queue.leave(who) {
            self.meter.waited(since, now);
        }
        self.meter.throttle(!self.queue.is_empty(), now);
    }
}

impl<const N: usize> Default for TokenQueue<N> {
    fn default() -> Self {
        Self::new()
    }
}

/// A member that is alone gets what it asks for; those that compete get a
/// millisecond's tokens between them.
pub fn quantum(limit: Limit, present: u32) -> u32 {
    match present {
        0 | 1 => QUANTUM_MAX,
        members => (limit.refill() / 1000)
            .checked_div(members)
            .unwrap_or(1)
            .clamp(1, QUANTUM_MAX),
    }
}
