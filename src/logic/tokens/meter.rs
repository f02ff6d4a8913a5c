// SPDX-License-Identifier: GPL-2.0

//! What is counted of a limit, for the administrator to see.
//!
//! All times are nanoseconds of CLOCK_MONOTONIC. The numbers belong to the disk,
//! not to a connection: they outlive a reconnect of the guest.

const SECOND: u64 = 1_000_000_000;

/// Counters of one disk's limit.
#[derive(Clone, Copy, Debug)]
pub struct Meter {
    /// Tokens spent.
    spent: u64,
    /// As many were shown.
    shown: u64,
    /// Requests that had to wait for a token, each counted once.
    pub held: u64,
    /// The longest time a ring's first request waited.
    pub wait_max: u64,
    /// Valid changes of the limit.
    pub changes: u64,
    /// Times the keys were read and made no sense.
    pub errors: u64,
    second: u64,
    this_second: u64,
    last_second: u64,
    throttled: u64,
    throttled_since: Option<u64>,
}

impl Meter {
    /// Nothing counted yet.
    pub const fn new() -> Self {
        Self {
            spent: 0,
            shown: 0,
            held: 0,
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

    /// `tokens` were spent at `now`.
    pub fn spend(&mut self, tokens: u32, now: u64) {
        self.turn(now);
        self.spent = self.spent.wrapping_add(u64::from(tokens));
        self.this_second = self.this_second.wrapping_add(u64::from(tokens));
    }

    /// `tokens` of those were not used after all.
    pub fn unspend(&mut self, tokens: u32) {
        self.spent = self.spent.saturating_sub(u64::from(tokens));
        self.this_second = self.this_second.saturating_sub(u64::from(tokens));
    }

    /// Tokens spent. Never fewer than it said before, although some may have been given back
    /// since: whoever takes the difference of two readings relies on that.
    pub fn spent(&mut self) -> u64 {
        self.shown = self.shown.max(self.spent);
        self.shown
    }

    /// A request waited from `since` to `now`.
    pub fn waited(&mut self, since: u64, now: u64) {
        self.wait_max = self.wait_max.max(now.saturating_sub(since));
    }

    /// Whether anybody waits for a token, from `now` on.
    pub fn throttle(&mut self, waiting: bool, now: u64) {
        match (self.throttled_since, waiting) {
            (None, true) => self.throttled_since = Some(now),
            (Some(since), false) => {
                self.throttled = self.throttled.wrapping_add(now.saturating_sub(since));
                self.throttled_since = None;
            }
            (None, false) | (Some(_), true) => {}
        }
    }

    /// Time during which somebody waited for a token, up to `now`.
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
        meter.turn(now);
        meter.last_second
    }

    fn turn(&mut self, now: u64) {
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
    fn throttled_time_runs_while_somebody_waits() {
        let mut m = Meter::new();
        m.throttle(true, 100);
        m.throttle(true, 150);
        assert_eq!(m.throttled(160), 60);
        m.throttle(false, 200);
        m.throttle(false, 300);
        assert_eq!(m.throttled(400), 100);
        m.throttle(true, 500);
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
    fn what_was_shown_as_spent_is_never_taken_back() {
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
    fn the_longest_wait_stays() {
        let mut m = Meter::new();
        m.waited(10, 50);
        m.waited(60, 61);
        assert_eq!(m.wait_max, 40);
    }
}
