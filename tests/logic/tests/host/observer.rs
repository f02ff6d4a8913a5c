// SPDX-License-Identifier: GPL-2.0

//! An independent count of which rings wait, and how long.

#[derive(Clone, Copy, Default)]
struct RingWait {
    /// When the wait of the first request on the ring began.
    since: Option<u64>,
    /// The number of requests on the ring that were refused at least once. They are the oldest
    /// ones.
    refused: u32,
}

pub struct Observer {
    waits: Vec<RingWait>,
    /// When the present wait began.
    since: Option<u64>,
    /// The time during which any ring waited, without the present wait.
    before: u64,
    /// The number of requests that were ever refused.
    pub nr_throttled: u64,
    /// The longest wait that has ended.
    pub longest: u64,
}

impl Observer {
    pub fn new(rings: usize) -> Self {
        let waits = vec![RingWait::default(); rings];
        Self {
            waits,
            since: None,
            before: 0,
            nr_throttled: 0,
            longest: 0,
        }
    }

    /// Records that `ring` with `wanted` requests has to wait.
    pub fn refused(&mut self, ring: u8, wanted: u32, now: u64) {
        let entry = &mut self.waits[usize::from(ring)];
        self.nr_throttled += u64::from(wanted - entry.refused);
        entry.refused = wanted;
        entry.since.get_or_insert(now);
        self.since.get_or_insert(now);
    }

    /// Records that `count` requests of `ring` were admitted, or that the ring was
    /// disconnected.
    pub fn served(&mut self, ring: u8, count: u32, now: u64) {
        let entry = &mut self.waits[usize::from(ring)];
        entry.refused = entry.refused.saturating_sub(count);
        if let Some(since) = entry.since.take() {
            self.longest = self.longest.max(now - since);
        }
        if self.waits.iter().all(|entry| entry.since.is_none()) {
            self.before += self.since.take().map_or(0, |since| now - since);
        }
    }

    /// The time during which any ring waited.
    pub fn throttled(&self, now: u64) -> u64 {
        self.before + self.since.map_or(0, |since| now - since)
    }
}
