// SPDX-License-Identifier: GPL-2.0

//! Whether something was seen a moment ago, by a counter of ticks that wraps around.

/// When something was seen last.
#[derive(Clone, Copy, Debug)]
pub struct Freshness {
    seen: usize,
    /// For how many ticks what was seen is fresh.
    ticks: usize,
}

impl Freshness {
    /// It was not seen yet, at tick `now`.
    pub const fn stale(now: usize, ticks: usize) -> Self {
        Self {
            seen: now.wrapping_sub(ticks).wrapping_sub(1),
            ticks,
        }
    }

    /// It was seen at tick `moment`.
    pub fn see(&mut self, moment: usize) {
        self.seen = moment;
    }

    /// Is it fresh at tick `now`? A tick before that in which it was seen counts as long after.
    pub fn is_fresh(&self, now: usize) -> bool {
        now.wrapping_sub(self.seen) <= self.ticks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_seen_is_not_fresh() {
        for now in [0, 1, 2, 1000, usize::MAX] {
            assert!(!Freshness::stale(now, 2).is_fresh(now));
        }
    }

    #[test]
    fn what_was_seen_is_fresh_for_its_ticks_across_the_wrap() {
        for moment in [0, 7, usize::MAX - 1, usize::MAX] {
            let mut freshness = Freshness::stale(moment, 2);
            freshness.see(moment);
            for (later, fresh) in [(0, true), (1, true), (2, true), (3, false), (1000, false)] {
                assert_eq!(freshness.is_fresh(moment.wrapping_add(later)), fresh);
            }
            assert!(!freshness.is_fresh(moment.wrapping_sub(1)));
        }
    }
}
