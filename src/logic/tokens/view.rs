// SPDX-License-Identifier: GPL-2.0

//! How a limit stands, in a word and in numbers, for whoever wants to see it.

use super::limits::Limit;
use super::meter::Meter;

/// The one word that says how the limit stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitState {
    /// No limit.
    Unlimited,
    /// The bucket is full.
    Idle,
    /// The bucket is not full, and nobody waits.
    Bursting,
    /// Somebody waits for a token.
    Throttled,
    /// A bucket size without a refill: no limit.
    Incomplete,
    /// The keys make no sense; the last good limit is in force.
    Invalid,
}

impl LimitState {
    /// As shown in sysfs.
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

/// How the limit stands, in numbers. Times in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct LimitView {
    /// The state.
    pub state: LimitState,
    /// What the guest is told: which limit the disk has, not how it stands now.
    pub published: &'static str,
    /// The limit in force, if any.
    pub limit: Option<Limit>,
    /// Tokens in the bucket; negative in debt; 0 without a limit.
    pub tokens: i64,
    /// Bytes that a token pays for; 0: any request.
    pub size: u32,
    /// The limit in bytes, if any.
    pub bytes_limit: Option<Limit>,
    /// Bytes in its bucket, likewise.
    pub bytes: i64,
    /// Tokens spent in the last full second.
    pub rate: u64,
    /// Time during which somebody waited.
    pub throttled: u64,
    /// The other counters.
    pub meter: Meter,
}
