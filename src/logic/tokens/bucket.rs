// SPDX-License-Identifier: GPL-2.0

//! Token arithmetic: exact, in integers.
//!
//! The level is a signed 64-bit count of nano-tokens. A refill of `r` tokens per
//! second adds exactly `r` nano-tokens per nanosecond, so no fraction is ever
//! lost and no time is ever rounded: whatever is not yet a whole token stays in
//! the level. The clock is an argument (`now`, nanoseconds of CLOCK_MONOTONIC).
//!
//! A bucket that nobody waits at is capped at `max`. While a request waits, it
//! may run over by what [`LATENESS_NS`] brings: a timer wakes late, and a cap
//! would throw that time's tokens away and lose rate at small buckets. Hence the
//! promise, for any window of `t` seconds:
//!
//! ```text
//! admitted <= max + refill * (t + 0.01) + 1
//! ```
//!
//! Ranges: `max` <= 10^9 tokens = 10^18 nano-tokens, the overrun <= 10^16, so the
//! level never comes near 2^63 = 9.2 * 10^18.

use super::limits::Limit;
use super::limits::VALUE_MAX;

/// Nano-tokens per token, and nanoseconds per second.
const NANO: i64 = 1_000_000_000;
/// Time's worth of tokens above `max` that a waiting request may gather.
pub const LATENESS_NS: i64 = 10_000_000;
/// Above 1000 tokens per second several tokens are gathered before anyone is
/// woken, so that a bucket never asks for more than 1000 wake-ups a second.
const WAKEUPS_PER_SECOND: u32 = 1000;
/// No debt is larger than the largest bucket. One request can cost up to a million
/// (tokens of one byte, or bytes); only a toolstack that asks again and again for a
/// detach can cause more than that.
const DEBT_MAX: i64 = VALUE_MAX as i64 * NANO;

/// The level of one limit.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    limit: Limit,
    level: i64,
    stamp: u64,
}

impl Bucket {
    /// A full bucket: what a new disk starts with.
    pub fn full(limit: Limit, now: u64) -> Self {
        let level = nano(limit.max());
        Self {
            limit,
            level,
            stamp: now,
        }
    }

    /// A bucket that already stood at `tokens` when somebody else kept it.
    pub fn restored(limit: Limit, tokens: u32, now: u64) -> Self {
        Self {
            limit,
            level: nano(tokens.min(limit.max())),
            stamp: now,
        }
    }

    /// A bucket with a tenth of a second's refill at most: what a disk gets that
    /// was unlimited until now, so that switching the limit off and on mints no
    /// burst.
    pub fn fresh(limit: Limit, now: u64) -> Self {
        let tenth = i64::from(limit.refill()).saturating_mul(NANO / 10);
        Self {
            limit,
            level: tenth.min(nano(limit.max())),
            stamp: now,
        }
    }

    /// The limit in force.
    pub fn limit(&self) -> Limit {
        self.limit
    }

    /// Adds what `now` brings. `waiting`: somebody waits for a token.
    pub fn accrue(&mut self, now: u64, waiting: bool) {
        let elapsed = now.saturating_sub(self.stamp);
        self.stamp = self.stamp.max(now);
        // Saturation is exact here: any product near 2^63 is far above the cap.
        let elapsed = i64::try_from(elapsed).unwrap_or(i64::MAX);
        let gain = elapsed.saturating_mul(i64::from(self.limit.refill()));
        self.level = self.level.saturating_add(gain).min(self.cap(waiting));
    }

    /// What a change of the keys makes of a disk's bucket.
    pub fn changed(
        old: Option<Self>,
        limit: Option<Limit>,
        now: u64,
        waiting: bool,
    ) -> Option<Self> {
        match (old, limit) {
            (Some(mut bucket), Some(limit)) => {
                bucket.set_limit(limit, now, waiting);
                Some(bucket)
            }
            (None, Some(limit)) => Some(Self::fresh(limit, now)),
            (_, None) => None,
        }
    }

    /// How many of `want` whole tokens there are.
    pub fn available(&self, want: u32) -> u32 {
        if self.level >= nano(want) {
            want
        } else {
            u32::try_from(self.tokens()).unwrap_or(0)
        }
    }

    /// Takes up to `want` whole tokens and returns how many.
    pub fn take(&mut self, want: u32) -> u32 {
        let got = self.available(want);
        self.level = self.level.saturating_sub(nano(got));
        got
    }

    /// Returns tokens that [`Self::take`] handed out and nobody used.
    pub fn give_back(&mut self, tokens: u32) {
        let level = self.level.saturating_add(nano(tokens));
        self.level = level.min(self.cap(true));
    }

    /// Takes `tokens` whether they are there or not.
    pub fn charge(&mut self, tokens: u32) {
        let level = self.level.saturating_sub(nano(tokens));
        self.level = level.max(-DEBT_MAX);
    }

    /// Whole tokens in the bucket, rounded down; negative when in debt.
    pub fn tokens(&self) -> i64 {
        self.level.div_euclid(NANO)
    }

    /// No more would fit.
    pub fn is_full(&self) -> bool {
        self.level >= nano(self.limit.max())
    }

    /// When to wake whoever waits: the time at which there is a token, or at high
    /// rates a millisecond's worth of them.
    pub fn ready_at(&self) -> u64 {
        // May be more than `max`: whoever waits may run over by more than that.
        let batch = self.limit.refill().div_ceil(WAKEUPS_PER_SECOND);
        let missing = nano(batch).saturating_sub(self.level);
        // Never 0 by the invariant of `Limit`; said again so that no division by
        // zero can be compiled in.
        let refill = u64::from(self.limit.refill()).max(1);
        let wait = u64::try_from(missing).unwrap_or(0).div_ceil(refill);
        self.stamp.saturating_add(wait)
    }

    /// Changes the limit from `now` on. What time brought until now counts at the
    /// old rate; a larger bucket gets no gift, a smaller one spills.
    pub fn set_limit(&mut self, limit: Limit, now: u64, waiting: bool) {
        self.accrue(now, waiting);
        let shrinks = limit.max() < self.limit.max();
        self.limit = limit;
        let most = if shrinks {
            nano(limit.max())
        } else {
            self.cap(waiting)
        };
        self.level = self.level.min(most);
    }

    fn cap(&self, waiting: bool) -> i64 {
        let max = nano(self.limit.max());
        if waiting {
            max.saturating_add(LATENESS_NS.saturating_mul(i64::from(self.limit.refill())))
        } else {
            max
        }
    }
}

fn nano(tokens: u32) -> i64 {
    i64::from(tokens).saturating_mul(NANO)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn bucket(refill: u32, max: u32) -> Bucket {
        Bucket::full(Limit::new(refill, max).unwrap(), 0)
    }

    #[test]
    fn starts_full_and_never_holds_more() {
        let mut b = bucket(10, 5);
        assert_eq!((b.tokens(), b.is_full()), (5, true));
        b.accrue(1000 * SECOND, false);
        assert_eq!(b.take(u32::MAX), 5);
        assert_eq!(b.tokens(), 0);
    }

    #[test]
    fn no_fraction_is_lost_however_often_it_is_asked() {
        // 7 tokens per second asked 1000 times at odd moments: 7 tokens exactly.
        let mut b = bucket(7, 100);
        b.take(100);
        for step in 1..=1000u64 {
            b.accrue(step * SECOND / 1000 + (step % 7), false);
        }
        b.accrue(SECOND, false);
        assert_eq!(b.take(100), 7);
    }

    #[test]
    fn one_token_comes_after_exactly_its_time() {
        let mut b = bucket(3, 1);
        b.take(1);
        let at = b.ready_at();
        assert_eq!(at, 333_333_334);
        b.accrue(at - 1, true);
        assert_eq!(b.take(1), 0);
        b.accrue(at, true);
        assert_eq!(b.take(1), 1);
    }

    #[test]
    fn a_late_wake_up_loses_nothing_while_somebody_waits() {
        let mut b = bucket(1000, 1);
        b.take(1);
        b.accrue(3_500_000, true);
        assert_eq!(b.take(10), 3);
        let mut b = bucket(1000, 1);
        b.take(1);
        b.accrue(3_500_000, false);
        assert_eq!(b.take(10), 1);
    }

    #[test]
    fn lateness_is_worth_ten_milliseconds_at_most() {
        let mut b = bucket(1000, 1);
        b.accrue(60 * SECOND, true);
        assert_eq!(b.take(100), 11);
    }

    #[test]
    fn high_rates_are_woken_a_thousand_times_a_second() {
        let mut b = bucket(100_000, 1000);
        b.take(1000);
        assert_eq!(b.ready_at(), 1_000_000);
        // Also with a bucket too small for a millisecond's worth, ...
        let mut b = bucket(100_000, 10);
        b.take(10);
        assert_eq!(b.ready_at(), 1_000_000);
        // ... and not 1500 times.
        let mut b = bucket(1500, 10);
        b.take(10);
        assert_eq!(b.ready_at(), 1_333_334);
        let mut b = bucket(1000, 100);
        b.take(100);
        assert_eq!(b.ready_at(), 1_000_000);
    }

    #[test]
    fn a_change_counts_the_past_at_the_old_rate_and_gives_nothing() {
        let limit = |refill, max| Limit::new(refill, max).unwrap();
        let mut b = bucket(10, 100);
        b.take(100);
        b.set_limit(limit(1000, 100), SECOND, false);
        assert_eq!(b.tokens(), 10);
        b.set_limit(limit(1000, 1000), SECOND, false);
        assert_eq!(b.tokens(), 10);
        b.set_limit(limit(1000, 4), SECOND, false);
        assert_eq!(b.tokens(), 4);
    }

    #[test]
    fn debt_is_kept_over_a_change_and_paid_off() {
        let mut b = bucket(10, 10);
        b.charge(32);
        assert_eq!(b.tokens(), -22);
        b.set_limit(Limit::new(1, 1).unwrap(), 0, true);
        assert_eq!(b.tokens(), -22);
        assert_eq!(b.ready_at(), 23 * SECOND);
        assert_eq!(b.take(1), 0);
    }

    #[test]
    fn a_fresh_bucket_holds_a_tenth_of_a_second() {
        let tokens = |refill, max| Bucket::fresh(Limit::new(refill, max).unwrap(), 0).tokens();
        assert_eq!(tokens(1000, 5000), 100);
        assert_eq!(tokens(1000, 50), 50);
        assert_eq!(tokens(1, 1_000_000_000), 0);
        assert_eq!(tokens(1_000_000_000, 1_000_000_000), 100_000_000);
    }

    #[test]
    fn the_largest_numbers_do_not_overflow() {
        let mut b = bucket(1_000_000_000, 1_000_000_000);
        b.accrue(u64::MAX, true);
        assert_eq!(b.take(u32::MAX), 1_010_000_000);
        assert!(b.ready_at() >= u64::MAX - SECOND);
        for _ in 0..10 {
            b.charge(u32::MAX);
        }
        assert_eq!(b.tokens(), -1_000_000_000);
    }

    #[test]
    fn a_clock_that_steps_back_neither_gives_nor_takes() {
        let mut b = bucket(10, 10);
        b.take(10);
        b.accrue(SECOND, false);
        b.accrue(0, false);
        b.accrue(SECOND, false);
        assert_eq!(b.tokens(), 10);
    }

    #[test]
    fn unused_tokens_return() {
        let mut b = bucket(10, 10);
        assert_eq!(b.take(8), 8);
        b.give_back(5);
        assert_eq!(b.tokens(), 7);
    }
}
