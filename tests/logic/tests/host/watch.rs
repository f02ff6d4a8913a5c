// SPDX-License-Identifier: GPL-2.0

//! Somebody who stands beside the rings and counts who waits, and how long.

#[derive(Clone, Copy, Default)]
struct Place {
    /// Since when the first request on the ring waits.
    since: Option<u64>,
    /// Requests on the ring that were refused at least once: the oldest ones.
    refused: u32,
}

pub struct Watch {
    places: Vec<Place>,
    /// Since when anybody waits.
    since: Option<u64>,
    /// Time during which anybody waited, without the present wait.
    before: u64,
    /// Requests that were ever refused.
    pub held: u64,
    /// The longest wait that is over.
    pub longest: u64,
}

impl Watch {
    pub fn new(rings: usize) -> Self {
        let places = vec![Place::default(); rings];
        Self {
            places,
            since: None,
            before: 0,
            held: 0,
            longest: 0,
        }
    }

    /// `ring` with `wanted` requests was told to wait.
    pub fn refused(&mut self, ring: u8, wanted: u32, now: u64) {
        let place = &mut self.places[usize::from(ring)];
        self.held += u64::from(wanted - place.refused);
        place.refused = wanted;
        place.since.get_or_insert(now);
        self.since.get_or_insert(now);
    }

    /// `count` requests of `ring` went, or the ring did.
    pub fn served(&mut self, ring: u8, count: u32, now: u64) {
        let place = &mut self.places[usize::from(ring)];
        place.refused = place.refused.saturating_sub(count);
        if let Some(since) = place.since.take() {
            self.longest = self.longest.max(now - since);
        }
        if self.places.iter().all(|place| place.since.is_none()) {
            self.before += self.since.take().map_or(0, |since| now - since);
        }
    }

    /// Time during which anybody waited.
    pub fn throttled(&self, now: u64) -> u64 {
        self.before + self.since.map_or(0, |since| now - since)
    }
}
