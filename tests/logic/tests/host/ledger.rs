// SPDX-License-Identifier: GPL-2.0

//! A record of the admitted requests, which checks the bound of the limit exactly.
//!
//! The bound, for any window from one admission to a later one:
//!
//! ```text
//! admitted <= max + refill * 10 ms     (the limit in force at the window's start)
//!           + refill * T               (summed over the limits in force in the window)
//!           + min(max, refill / 10)    (each time that a limit is set after none)
//! ```
//!
//! The documented bound allows one token more, for rounding. The arithmetic of the bucket
//! is exact, so the ledger does not allow it.

use super::NANO;
use rblkback_logic::tokens::limits::Limit;

/// Ten milliseconds, in nanoseconds.
pub const LATENESS: i128 = 10_000_000;

#[derive(Clone, Copy, Debug)]
pub struct Entry {
    pub at: u64,
    pub ring: u8,
    pub count: u32,
}

#[derive(Clone, Debug)]
pub struct Ledger {
    pub entries: Vec<Entry>,
    pub keep_entries: bool,
    limit: Option<Limit>,
    at: u64,
    /// Nano-tokens that refill and new limits brought since the start.
    brought: i128,
    /// Nano-tokens spent since the start.
    spent: i128,
    /// Nano-tokens charged without a request for tokens.
    charged: i128,
    /// The smallest remainder of all windows that have begun, plus `spent - brought`.
    bound: Option<i128>,
}

impl Ledger {
    pub fn new(limit: Option<Limit>) -> Self {
        Self {
            entries: Vec::new(),
            keep_entries: true,
            limit,
            at: 0,
            brought: 0,
            spent: 0,
            charged: 0,
            bound: None,
        }
    }

    pub fn set(&mut self, limit: Option<Limit>, now: u64) {
        self.advance(now);
        if let (None, Some(limit)) = (self.limit, limit) {
            let tenth = i128::from(limit.refill()) * NANO / 10;
            self.brought += tenth.min(i128::from(limit.max()) * NANO);
        }
        self.limit = limit;
    }

    /// Checks the bound for every window that ends at this admission, also for the one that begins
    /// here.
    pub fn admit(&mut self, ring: u8, count: u32, now: u64) {
        self.advance(now);
        let limit = self.limit.expect("tokens without a limit");
        let cap = i128::from(limit.max()) * NANO + i128::from(limit.refill()) * LATENESS;
        let begins = cap + self.spent - self.brought;
        let bound = self.bound.map_or(begins, |bound| bound.min(begins));
        self.bound = Some(bound);
        self.spent += i128::from(count) * NANO;
        let over = self.spent - self.brought - bound;
        assert!(
            over <= 0,
            "{over} nano-tokens too many at {now} under {limit:?}"
        );
        if self.keep_entries {
            self.entries.push(Entry {
                at: now,
                ring,
                count,
            });
        }
    }

    pub fn charge(&mut self, count: u32) {
        self.charged += i128::from(count) * NANO;
    }

    /// Whole tokens spent since the start.
    pub fn spent(&self) -> u64 {
        u64::try_from(self.spent / NANO).expect("a count")
    }

    /// The time in nanoseconds that refills `left` tokens and all charged tokens under the
    /// limit in force.
    pub fn time_for(&self, left: u64) -> u64 {
        let Some(limit) = self.limit else {
            return 0;
        };
        let missing = i128::from(left) * NANO + self.charged;
        u64::try_from(missing / i128::from(limit.refill()) + 1).expect("a time")
    }

    /// Adds the refill up to `now`.
    fn advance(&mut self, now: u64) {
        if let Some(limit) = self.limit {
            self.brought += i128::from(now - self.at) * i128::from(limit.refill());
        }
        self.at = now;
    }
}
