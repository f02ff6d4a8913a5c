// SPDX-License-Identifier: GPL-2.0

//! Checks the times at which requests were admitted against a token bucket.
//!
//! With `u(i) = i - refill * t(i)`, the requests `i..=j` are within a bucket of `max` tokens when
//! `j - i + 1 <= max + refill * (t(j) - t(i))`, that is `u(j) - u(i) + 1 <= max`. The worst window
//! that ends at `j` starts where `u` was lowest, so one pass over all requests checks every window.
//! All arithmetic is in nano-tokens and exact.

use anyhow::Context;
use anyhow::Result;
use serde::Serialize;

use crate::check;

const TOKEN: i128 = 1_000_000_000;

/// The window in which most requests were admitted beyond the refill, or most were missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Worst {
    /// Tokens more (or less) than `refill * T`.
    pub tokens: f64,
    /// Nanoseconds on the trace clock.
    pub from: u64,
    pub to: u64,
}

/// The most requests seen in any closed window beyond what was refilled in it: a bucket of `max`
/// tokens never exceeds `max`.
pub fn worst_excess(times: &[u64], refill: u64) -> Worst {
    let mut lowest: Option<(i128, u64)> = None;
    let mut worst: Option<(i128, u64, u64)> = None;
    for (i, &t) in times.iter().enumerate() {
        let u = i as i128 * TOKEN - i128::from(refill) * i128::from(t);
        if lowest.is_none_or(|(low, _)| u < low) {
            lowest = Some((u, t));
        }
        let (low, from) = lowest.unwrap_or((u, t));
        let excess = u - low + TOKEN;
        if worst.is_none_or(|(most, ..)| excess > most) {
            worst = Some((excess, from, t));
        }
    }
    to_worst(worst)
}

/// The most tokens that a guest with requests always waiting was kept from using in any window.
pub fn worst_shortfall(times: &[u64], refill: u64) -> Worst {
    let mut highest: Option<(i128, u64)> = None;
    let mut worst: Option<(i128, u64, u64)> = None;
    for (i, &t) in times.iter().enumerate() {
        let u = i as i128 * TOKEN - i128::from(refill) * i128::from(t);
        if highest.is_none_or(|(high, _)| u > high) {
            highest = Some((u, t));
        }
        let (high, from) = highest.unwrap_or((u, t));
        let shortfall = high - u;
        if worst.is_none_or(|(most, ..)| shortfall > most) {
            worst = Some((shortfall, from, t));
        }
    }
    to_worst(worst)
}

/// How many of the sorted `times` lie in `from..to`.
pub fn count_between(times: &[u64], from: u64, to: u64) -> u64 {
    let below = |limit| times.partition_point(|&t| t < limit);
    below(to).saturating_sub(below(from)) as u64
}

fn to_worst(worst: Option<(i128, u64, u64)>) -> Worst {
    worst.map_or_else(Worst::default, |(tokens, from, to)| Worst {
        tokens: tokens as f64 / TOKEN as f64,
        from,
        to,
    })
}

/// Nanoseconds from a request's admission to its bio, at most.
const LONGEST_WAY: u64 = 10_000_000;

/// The most requests of a disk beyond refill * T in any window, on the disk where that is most.
#[derive(Default)]
pub struct Excess {
    pub admitted: f64,
    pub sent: f64,
    /// The longest time from a request's admission to its bio, in nanoseconds: dom0's processor
    /// is not always there for it.
    pub way: u64,
}

impl Excess {
    /// Adds a disk, of which each request was admitted and sent to the device at these times.
    pub fn note(&mut self, admitted: &[u64], sent: &[u64], refill: u64) {
        self.admitted = self.admitted.max(worst_excess(admitted, refill).tokens);
        self.sent = self.sent.max(worst_excess(sent, refill).tokens);
        let ways = admitted.iter().zip(sent).map(|(a, s)| s.saturating_sub(*a));
        self.way = self.way.max(ways.max().unwrap_or(0));
    }

    /// Holds what is admitted and what is sent to the device to the bound.
    pub fn check(&self, refill: u64, max: u64) -> Result<()> {
        // Ten milliseconds of lateness, and one.
        let bound = max as f64 + refill as f64 / 100.0 + 1.0;
        let what = "requests beyond refill * T in any window";
        check::within(&format!("{what}, admitted"), self.admitted, 0.0..=bound)?;
        check::within("nanoseconds to the device", self.way, 0..=LONGEST_WAY)?;
        check::within(
            &format!("{what}, sent to the device"),
            self.sent,
            0.0..=bound,
        )
        .with_context(|| format!("admitted {}, {} ns to the device", self.admitted, self.way))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn an_even_stream_needs_one_token() {
        let times: Vec<u64> = (0..1000).map(|i| i * MS).collect();
        assert_eq!(worst_excess(&times, 1000).tokens, 1.0);
        assert_eq!(worst_shortfall(&times, 1000).tokens, 0.0);
    }

    #[test]
    fn a_burst_after_idle_counts_whole() {
        let mut times: Vec<u64> = (0..100).map(|i| i * MS).collect();
        times.extend([200 * MS; 50]);
        let worst = worst_excess(&times, 1000);
        assert_eq!(
            (worst.tokens, worst.from, worst.to),
            (50.0, 200 * MS, 200 * MS)
        );
        assert_eq!(worst_shortfall(&times, 1000).tokens, 100.0);
    }

    #[test]
    fn one_stolen_token_is_seen_anywhere() {
        for at in [1, 500, 998] {
            let mut times: Vec<u64> = (0..1000).map(|i| i * MS).collect();
            times[at] -= MS / 2;
            assert_eq!(worst_excess(&times, 1000).tokens, 1.5);
        }
    }

    #[test]
    fn equal_to_the_plain_check_of_every_window() {
        let mut seed = 1_u64;
        let mut t = 0;
        let times: Vec<u64> = (0..200)
            .map(|_| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                t += (seed >> 33) % (3 * MS);
                t
            })
            .collect();
        let plain = (0..times.len())
            .flat_map(|i| (i..times.len()).map(move |j| (i, j)))
            .map(|(i, j)| (j - i + 1) as f64 - 1000.0 * (times[j] - times[i]) as f64 / 1e9)
            .fold(f64::MIN, f64::max);
        assert!((worst_excess(&times, 1000).tokens - plain).abs() < 1e-6);
    }

    #[test]
    fn counting_is_half_open() {
        assert_eq!(count_between(&[1, 2, 3, 4], 2, 4), 2);
        assert_eq!(count_between(&[], 0, 9), 0);
    }
}
