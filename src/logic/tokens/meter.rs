// SPDX-License-Identifier: GPL-2.0

//! The counters of a limit, which sysfs shows to the administrator.
//!
//! All times are nanoseconds of CLOCK_MONOTONIC. The counters belong to the disk, not
//! to a connection: they continue when the guest reconnects.

const SECOND: u64 = 1_000_000_000;

/// The counters of one limit.
#[derive(Clone, Copy, Debug)]
pub struct Meter {
    /// Tokens spent.
    spent: u64,
    /// The largest value that [`Self::spent`] returned.
    spent_reported: u64,
    /// The number of requests that had to wait for a token, each counted once.
    pub nr_throttled: u64,
    /// The longest time that the first request of a member waited.
    pub wait_max: u64,
    /// The number of valid changes of the limit.
    pub changes: u64,
    /// The number of times that the keys were read and one was invalid.
    pub errors: u64,
    /// The current second of the clock.
    second: u64,
    /// Tokens spent in the current second.
    this_second: u64,
    /// Tokens spent in the second before.
    last_second: u64,
    /// The time during which a member waited, without the present wait.
    throttled: u64,
    /// When the present wait began.
    throttled_since: Option<u64>,
}

impl Meter {
    /// All counters are 0.
    pub const fn new() -> Self {
        Self {
            spent: 0,
            spent_reported: 0,
            nr_throttled: 0,
            wait_max: 0,
            changes: 0,
            errors: 0,
            second: 0,
            this_second: 0,
            last_second: 0,
            throttled: 0,
            throttled_since: None,
        }
    }

    /// Counts `tokens` as spent at `now`.
    pub fn spend(&mut self, tokens: u32, now: u64) {
        self.set_second(now);
        self.spent = self.spent.wrapping_add(u64::from(tokens));
        self.this_second = self.this_second.wrapping_add(u64::from(tokens));
    }

    /// Subtracts unused `tokens` from the spent ones.
    pub fn unspend(&mut self, tokens: u32) {
        self.spent = self.spent.saturating_sub(u64::from(tokens));
        self.this_second = self.this_second.saturating_sub(u64::from(tokens));
    }

    /// Tokens spent. The value never decreases, although tokens may be given back: readers
    /// compute the difference of two values.
    pub fn spent(&mut self) -> u64 {
        self.spent_reported = self.spent_reported.max(self.spent);
        self.spent_reported
    }

    /// Records that a request waited from `since` to `now`.
    pub fn waited(&mut self, since: u64, now: u64) {
        self.wait_max = self.wait_max.max(now.saturating_sub(since));
    }

    /// Records whether a member waits for a token from `now` on.
    pub fn set_throttled(&mut self, waiting: bool, now: u64) {
        match (self.throttled_since, waiting) {
            (None, true) => self.throttled_since = Some(now),
            (Some(since), false) => {
                self.throttled = self.throttled.wrapping_add(now.saturating_sub(since));
                self.throttled_since = None;
            }
            (None, false) | (Some(_), true) => {}
        }
    }

    /// The time, up to `now`, during which at least one member waited for a token.
    pub fn throttled(&self, now: u64) -> u64 {
        let running = match self.throttled_since {
            Some(since) => now.saturating_sub(since),
            None => 0,
        };
        self.throttled.wrapping_add(running)
    }

    /// Tokens spent in the last full second of the clock.
    pub fn rate(&self, now: u64) -> u64 {
        let mut meter = *self;
        meter.set_second(now);
        meter.last_second
    }

    /// Sets the current second to that of `now`.
    fn set_second(&mut self, now: u64) {
        let second = now / SECOND;
        if second <= self.second {
            return;
        }
        let follows = second == self.second.wrapping_add(1);
        self.last_second = if follows { self.this_second } else { 0 };
        self.this_second = 0;
        self.second = second;
    }
}

impl Default for Meter {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_the_last_full_second() {
        let mut m = Meter::new();
        m.spend(10, SECOND / 2);
        m.spend(20, SECOND - 1);
        assert_eq!(m.rate(SECOND - 1), 0);
        assert_eq!(m.rate(SECOND), 30);
        m.spend(7, SECOND + 5);
        assert_eq!(m.rate(2 * SECOND), 7);
        assert_eq!(m.rate(3 * SECOND), 0);
        assert_eq!(m.spent(), 37);
    }

    #[test]
    fn throttled_time_passes_while_a_member_waits() {
        let mut m = Meter::new();
        m.set_throttled(true, 100);
        m.set_throttled(true, 150);
        assert_eq!(m.throttled(160), 60);
        m.set_throttled(false, 200);
        m.set_throttled(false, 300);
        assert_eq!(m.throttled(400), 100);
        m.set_throttled(true, 500);
        assert_eq!(m.throttled(501), 101);
    }

    #[test]
    fn unused_tokens_are_not_counted() {
        let mut m = Meter::new();
        m.spend(10, 0);
        m.unspend(4);
        assert_eq!((m.spent(), m.rate(SECOND)), (6, 6));
    }

    #[test]
    fn the_number_of_spent_tokens_never_decreases() {
        let mut m = Meter::new();
        m.spend(32, 0);
        assert_eq!(m.spent(), 32);
        m.unspend(31);
        assert_eq!(m.spent(), 32);
        m.spend(30, 0);
        assert_eq!(m.spent(), 32);
        m.spend(2, 0);
        assert_eq!(m.spent(), 33);
    }

    #[test]
    fn wait_max_is_the_longest_wait() {
        let mut m = Meter::new();
        m.waited(10, 50);
        m.waited(60, 61);
        assert_eq!(m.wait_max, 40);
    }
}
