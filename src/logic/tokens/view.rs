// SPDX-License-Identifier: GPL-2.0

//! The state of a limit, in a word and in numbers, for sysfs and xenstore.

use super::limits::Limit;
use super::meter::Meter;

/// The state of a limit, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitState {
    /// No limit.
    Unlimited,
    /// The bucket is full.
    Idle,
    /// The bucket is not full, and no ring waits.
    Bursting,
    /// A ring waits for a token.
    Throttled,
    /// The keys give a bucket size without a refill: no limit.
    Incomplete,
    /// A key is invalid; the last valid limit is in force.
    Invalid,
}

impl LimitState {
    /// The word in sysfs and xenstore.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unlimited => "unlimited",
            Self::Idle => "idle",
            Self::Bursting => "bursting",
            Self::Throttled => "throttled",
            Self::Incomplete => "incomplete",
            Self::Invalid => "invalid",
        }
    }
}

/// The state of a limit, in numbers. Times are in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct LimitView {
    /// The state in one word.
    pub state: LimitState,
    /// The word that is published for the guest in xenstore. It says whether the disk has a limit,
    /// but not whether a ring waits.
    pub published: &'static str,
    /// The limit in force, if any.
    pub limit: Option<Limit>,
    /// Tokens in the bucket: negative in debt, 0 without a limit.
    pub tokens: i64,
    /// Bytes per token; 0: every request costs one token.
    pub size: u32,
    /// The limit in bytes per second, if any.
    pub bytes_limit: Option<Limit>,
    /// Bytes in its bucket: negative in debt, 0 without a limit.
    pub bytes: i64,
    /// Tokens spent in the last full second of the clock.
    pub rate: u64,
    /// The time during which at least one ring waited.
    pub throttled: u64,
    /// The other counters.
    pub meter: Meter,
}
