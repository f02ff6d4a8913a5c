// SPDX-License-Identifier: GPL-2.0

//! What sysfs and xenstore show of the limit of a disk. Nothing here decides on a request.

use super::super::bucket::Bucket;
use super::super::view::LimitState;
use super::super::view::LimitView;
use super::Admission;

impl Admission {
    /// The state of the limit at `now`.
    pub fn view(&mut self, now: u64) -> LimitView {
        let waiting = self.queue.active() > 0;
        if let Some(bytes) = &mut self.bytes {
            bytes.accrue(now, waiting);
        }
        let tokens = self.queue.tokens(now);
        LimitView {
            state: self.state(),
            published: self.published(),
            limit: self.queue.limit(),
            tokens: tokens.unwrap_or(0),
            size: self.size,
            bytes_limit: self.bytes.map(|bucket| bucket.limit()),
            bytes: self.bytes.map_or(0, |bucket| bucket.tokens()),
            rate: self.queue.meter.rate(now),
            throttled: self.queue.meter.throttled(now),
            meter: self.queue.meter,
        }
    }

    fn state(&self) -> LimitState {
        let full = |bucket: &Bucket| bucket.is_full();
        if self.invalid {
            LimitState::Invalid
        } else if !self.queue.is_empty() {
            LimitState::Throttled
        } else if self.incomplete {
            LimitState::Incomplete
        } else if !self.is_limited() {
            LimitState::Unlimited
        } else if self.queue.is_full_if_any() && self.bytes.as_ref().is_none_or(full) {
            LimitState::Idle
        } else {
            LimitState::Bursting
        }
    }

    fn published(&self) -> &'static str {
        if self.invalid {
            LimitState::Invalid.name()
        } else if self.is_limited() {
            "limited"
        } else if self.incomplete {
            LimitState::Incomplete.name()
        } else {
            LimitState::Unlimited.name()
        }
    }
}
