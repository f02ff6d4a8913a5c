// SPDX-License-Identifier: GPL-2.0

//! Token arithmetic: exact, in integers.
//!
//! The level is a signed 64-bit number of nano-tokens. A refill of `r` tokens per
//! second adds exactly `r` nano-tokens per nanosecond. So no fraction is lost and no
//! time is rounded: a part of a token stays in the level. The time is an argument
//! (`now`, nanoseconds of CLOCK_MONOTONIC).
//!
//! The level is at most `max` while no request waits. While a request waits, the level
//! may exceed `max` by the refill of [`LATENESS_NS`]. The reason is that a timer fires
//! late: without the excess, the tokens of that time would be lost, and a small bucket
//! would not reach its rate. So for any window of `t` seconds:
//!
//! ```text
//! admitted <= max + refill * (t + 0.01) + 1
//! ```
//!
//! Ranges: `max` <= 10^9 tokens = 10^18 nano-tokens, and the excess <= 10^16. So the
//! level stays far below 2^63 = 9.2 * 10^18.

use super::limits::Limit;
use super::limits::VALUE_MAX;

/// Nano-tokens per token, and nanoseconds per second.
const NANO: i64 = 1_000_000_000;
/// The time, in nanoseconds, whose refill the level may exceed `max` by while a request waits.
pub const LATENESS_NS: i64 = 10_000_000;
/// The largest number of wakeups per second. Above 1000 tokens per second, a wakeup comes
/// when a batch of several tokens is complete.
const WAKEUPS_PER_SECOND: u32 = 1000;
/// The largest debt, in nano-tokens: the size of the largest bucket. One request costs up to
/// a million tokens or bytes. Only repeated detach requests of the toolstack can cause a
/// larger debt.
const DEBT_MAX: i64 = VALUE_MAX as i64 * NANO;

/// The token bucket of one limit.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    limit: Limit,
    level: i64,
    stamp: u64,
}

impl Bucket {
    /// A full bucket, for a new disk.
    pub fn full(limit: Limit, now: u64) -> Self {
        let level = nano(limit.max());
        Self {
            limit,
            level,
            stamp: now,
        }
    }

    /// A bucket with `tokens`, at most `max` and below 0 in debt: the level that another driver saved.
    pub fn restored(limit: Limit, tokens: i64, now: u64) -> Self {
        let level = tokens.saturating_mul(NANO);
        Self {
            limit,
            level: level.min(nano(limit.max())).max(-DEBT_MAX),
            stamp: now,
        }
    }

    /// A bucket with the refill of a tenth of a second, at most `max`, for a disk that was
    /// unlimited. So the administrator cannot cause a burst by switching a limit off and on.
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

    /// Adds the refill up to `now`. `waiting`: whether a request waits for a token.
    pub fn accrue(&mut self, now: u64, waiting: bool) {
        let elapsed = now.saturating_sub(self.stamp);
        self.stamp = self.stamp.max(now);
        // Saturation is exact here: any product near 2^63 is far above the largest level.
        let elapsed = i64::try_from(elapsed).unwrap_or(i64::MAX);
        let gain = elapsed.saturating_mul(i64::from(self.limit.refill()));
        self.level = self.level.saturating_add(gain).min(self.level_max(waiting));
    }

    /// The bucket after a change of the limit from that of `old` to `limit`.
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

    /// The number of whole tokens in the bucket, at most `want`.
    pub fn available(&self, want: u32) -> u32 {
        if self.level >= nano(want) {
            want
        } else {
            u32::try_from(self.tokens()).unwrap_or(0)
        }
    }

    /// Takes up to `want` whole tokens. Returns the number taken.
    pub fn take(&mut self, want: u32) -> u32 {
        let got = self.available(want);
        self.level = self.level.saturating_sub(nano(got));
        got
    }

    /// Returns unused `tokens` of [`Self::take`] to the bucket.
    pub fn give_back(&mut self, tokens: u32) {
        let level = self.level.saturating_add(nano(tokens));
        self.level = level.min(self.level_max(true));
    }

    /// Takes `tokens`, into debt if the bucket has fewer.
    pub fn charge(&mut self, tokens: u32) {
        let level = self.level.saturating_sub(nano(tokens));
        self.level = level.max(-DEBT_MAX);
    }

    /// Whole tokens in the bucket, rounded down; negative when in debt.
    pub fn tokens(&self) -> i64 {
        self.level.div_euclid(NANO)
    }

    /// Whether the bucket has `max` tokens or more.
    pub fn is_full(&self) -> bool {
        self.level >= nano(self.limit.max())
    }

    /// The time at which to wake the next member: when there is one token or, at high
    /// rates, the refill of one millisecond. In nanoseconds of CLOCK_MONOTONIC.
    pub fn ready_at(&self) -> u64 {
        // The batch may exceed `max`: the allowed excess while a request waits is larger.
        let batch = self.limit.refill().div_ceil(WAKEUPS_PER_SECOND);
        let missing = nano(batch).saturating_sub(self.level);
        // The refill is never 0, by the invariant of `Limit`. `max` is for the compiler,
        // which otherwise adds a panic for a division by zero.
        let refill = u64::from(self.limit.refill()).max(1);
        let wait = u64::try_from(missing).unwrap_or(0).div_ceil(refill);
        self.stamp.saturating_add(wait)
    }

    /// Changes the limit from `now` on. The time until `now` counts at the old rate. A
    /// larger bucket gets no extra tokens; a smaller one loses what exceeds its `max`.
    pub fn set_limit(&mut self, limit: Limit, now: u64, waiting: bool) {
        self.accrue(now, waiting);
        let shrinks = limit.max() < self.limit.max();
        self.limit = limit;
        let most = if shrinks {
            nano(limit.max())
        } else {
            self.level_max(waiting)
        };
        self.level = self.level.min(most);
    }

    /// The largest level, in nano-tokens.
    fn level_max(&self, waiting: bool) -> i64 {
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
    fn a_new_bucket_is_full_and_never_exceeds_max() {
        let mut b = bucket(10, 5);
        assert_eq!((b.tokens(), b.is_full()), (5, true));
        b.accrue(1000 * SECOND, false);
        assert_eq!(b.take(u32::MAX), 5);
        assert_eq!(b.tokens(), 0);
    }

    #[test]
    fn frequent_refills_lose_no_fraction() {
        // 7 tokens per second, refilled 1000 times at irregular intervals: exactly 7 tokens.
        let mut b = bucket(7, 100);
        b.take(100);
        for step in 1..=1000u64 {
            b.accrue(step * SECOND / 1000 + (step % 7), false);
        }
        b.accrue(SECOND, false);
        assert_eq!(b.take(100), 7);
    }

    #[test]
    fn a_token_is_ready_after_exactly_its_time() {
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
    fn a_late_wakeup_loses_no_token_while_a_request_waits() {
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
    fn the_excess_is_ten_milliseconds_of_refill_at_most() {
        let mut b = bucket(1000, 1);
        b.accrue(60 * SECOND, true);
        assert_eq!(b.take(100), 11);
    }

    #[test]
    fn high_rates_need_at_most_a_thousand_wakeups_per_second() {
        let mut b = bucket(100_000, 1000);
        b.take(1000);
        assert_eq!(b.ready_at(), 1_000_000);
        // The same if the bucket is smaller than the refill of a millisecond, ...
        let mut b = bucket(100_000, 10);
        b.take(10);
        assert_eq!(b.ready_at(), 1_000_000);
        // ... and at rates that are not a multiple of 1000.
        let mut b = bucket(1500, 10);
        b.take(10);
        assert_eq!(b.ready_at(), 1_333_334);
        let mut b = bucket(1000, 100);
        b.take(100);
        assert_eq!(b.ready_at(), 1_000_000);
    }

    #[test]
    fn a_change_counts_the_past_at_the_old_rate_and_adds_no_token() {
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
    fn debt_outlasts_a_change_and_is_paid_off() {
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
    fn an_older_time_changes_nothing() {
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
