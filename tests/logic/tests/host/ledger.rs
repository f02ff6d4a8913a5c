// SPDX-License-Identifier: GPL-2.0

//! What was admitted, held against the rule, exactly.
//!
//! For any window from one admission to a later one:
//!
//! ```text
//! admitted <= max + refill * 10 ms     (the limit in force at the window's start)
//!           + refill * T               (summed over the limits in force meanwhile)
//!           + min(max, refill / 10)    (each time a limit comes after none)
//! ```
//!
//! The rule allows one token more, for rounding. The arithmetic is exact, so the
//! ledger does not.

use super::NANO;
use rblkback_logic::tokens::limits::Limit;

/// Ten milliseconds.
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
    /// Nano-tokens that time and gifts brought since the beginning.
    brought: i128,
    /// Nano-tokens spent since the beginning.
    spent: i128,
    /// Nano-tokens charged without having been asked for.
    charged: i128,
    /// The least that any window that has begun has left, plus `spent - brought`.
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
        self.pass(now);
        if let (None, Some(limit)) = (self.limit, limit) {
            let tenth = i128::from(limit.refill()) * NANO / 10;
            self.brought += tenth.min(i128::from(limit.max()) * NANO);
        }
        self.limit = limit;
    }

    /// Ends every window: also those that begin here begin at the next admission.
    pub fn admit(&mut self, ring: u8, count: u32, now: u64) {
        self.pass(now);
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

    /// Whole tokens spent since the beginning.
    pub fn spent(&self) -> u64 {
        u64::try_from(self.spent / NANO).expect("a count")
    }

    /// Nanoseconds that bring `left` tokens under the limit in force, and those
    /// that may still be owed.
    pub fn time_for(&self, left: u64) -> u64 {
        let Some(limit) = self.limit else {
            return 0;
        };
        let missing = i128::from(left) * NANO + self.charged;
        u64::try_from(missing / i128::from(limit.refill()) + 1).expect("a time")
    }

    fn pass(&mut self, now: u64) {
        if let Some(limit) = self.limit {
            self.brought += i128::from(now - self.at) * i128::from(limit.refill());
        }
        self.at = now;
    }
}
