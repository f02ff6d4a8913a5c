// SPDX-License-Identifier: GPL-2.0

//! How many granted frames of a guest the requests of a ring may use at a time.
//!
//! A request that would exceed the bound stays on the ring. The bounds are large enough
//! to keep the fastest device busy. They exist so that a guest cannot decide how much
//! this domain maps.
//!
//! All disks of a guest share one budget of frames. A disk that connects when little of
//! the budget is left gets fewer frames and serves fewer large requests at a time. No
//! disk is refused for that: each ring has frames for one request of the largest size in
//! any case, and only these may exceed the budget.
//!
//! This file has only the arithmetic. `qos::guest` counts the frames in use.

use super::protocol::abi::INDIRECT_MAX;

/// Frames per slot: enough for two requests of the default size of Linux's frontend.
const PER_SLOT: u32 = 64;
/// Frames per ring: 16 MiB of data in flight.
const PER_RING: u32 = 4096;
/// Frames per disk, divided among its rings, so that a disk with many rings is not refused.
const PER_DISK: u32 = 8192;

/// Copied frames per disk. Each takes a page of this domain: 2 MiB in all.
const COPIES_PER_DISK: u32 = 512;

/// One third of a budget is reserved for disks that are not connected yet, in equal parts
/// for each of so many disks: 682 frames of the default budget per disk.
const RESERVE_DISKS: u32 = 64;
const RESERVE_DIVISOR: u32 = 3;

/// What a disk can use of the budget of its guest.
#[derive(Clone, Copy, Debug)]
pub struct Demand {
    /// The number of rings of the disk.
    pub rings: u32,
    /// Slots of each ring.
    pub entries: u32,
    /// Shared pages of each ring.
    pub pages: u32,
    /// The largest number of persistent grants of each ring.
    pub persistent: u32,
}

/// The frames that each ring of a disk may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingFrames {
    /// Frames that the requests in flight may use.
    pub requests: u32,
    /// Persistent grants.
    pub persistent: u32,
}

/// The frames that one more disk may have of a `budget`, of which `others` connected disks use
/// `used`.
pub fn free(budget: u32, used: u32, others: u32) -> u32 {
    let each = budget / (RESERVE_DISKS * RESERVE_DIVISOR);
    let unconnected = (RESERVE_DISKS - 1).saturating_sub(others);
    budget
        .saturating_sub(used)
        .saturating_sub(unconnected.saturating_mul(each))
}

impl Demand {
    /// The frames of each ring if all rings together should use `free` frames: enough for one
    /// request of the largest size, whatever `free` is.
    pub fn frames_per_ring(&self, free: u32) -> RingFrames {
        let least = u32::from(INDIRECT_MAX);
        let each = free.checked_div(self.rings).unwrap_or(0);
        let each = each.saturating_sub(self.pages).max(least);
        let most = per_ring(self.rings, self.entries);
        // If there is not enough for both, requests and persistent grants get half each.
        let half = each.saturating_sub(self.persistent).max(each / 2);
        let requests = half.max(least).min(most);
        RingFrames {
            requests,
            persistent: each.saturating_sub(requests).min(self.persistent),
        }
    }

    /// The frames that the disk uses if each ring has `frames`, with the pages of its rings.
    pub fn total(&self, frames: RingFrames) -> u32 {
        let each = frames.requests.saturating_add(frames.persistent);
        self.rings.saturating_mul(each.saturating_add(self.pages))
    }
}

/// The frames that each of `rings` rings may copy at a time. Further frames are mapped, so any
/// number suffices, also 0.
pub fn copies_per_ring(rings: u32) -> u32 {
    COPIES_PER_DISK.checked_div(rings).unwrap_or(0)
}

/// The frames that the requests of each of `rings` rings of `entries` slots may use: always
/// enough for one request of the largest size.
fn per_ring(rings: u32, entries: u32) -> u32 {
    let frames = PER_DISK.checked_div(rings).unwrap_or(PER_RING);
    entries
        .saturating_mul(PER_SLOT)
        .min(PER_RING)
        .min(frames)
        .max(u32::from(INDIRECT_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_ring_is_bounded_by_its_slots() {
        assert_eq!(per_ring(1, 32), 2048);
        assert_eq!(per_ring(1, 64), 4096);
        assert_eq!(per_ring(1, 512), 4096);
    }

    #[test]
    fn the_rings_of_a_disk_share_its_bound() {
        assert_eq!(per_ring(2, 512), 4096);
        assert_eq!(per_ring(4, 512), 2048);
        assert_eq!(per_ring(16, 512), 512);
    }

    const BUDGET: u32 = 131_072;

    fn demand(rings: u32, order: u32) -> Demand {
        Demand {
            rings,
            entries: 32 << order,
            pages: 1 << order,
            persistent: 1056,
        }
    }

    /// Connects `disks` disks. Returns the frames per ring of each.
    fn connect(budget: u32, demand: Demand, disks: u32) -> Vec<RingFrames> {
        let mut used = 0;
        let connect_one = |connected| {
            let frames = demand.frames_per_ring(free(budget, used, connected));
            used += demand.total(frames);
            frames
        };
        (0..disks).map(connect_one).collect()
    }

    fn least(demand: Demand) -> u32 {
        demand.total(RingFrames {
            requests: 256,
            persistent: 0,
        })
    }

    #[test]
    fn a_single_disk_gets_its_demand() {
        for (rings, order, requests) in [(1, 0, 2048), (1, 4, 4096), (4, 0, 2048), (8, 4, 1024)] {
            let frames = demand(rings, order).frames_per_ring(free(BUDGET, 0, 0));
            let expected = RingFrames {
                requests,
                persistent: 1056,
            };
            assert_eq!(frames, expected, "{rings} {order}");
        }
    }

    #[test]
    fn the_first_disks_get_their_demand_and_later_ones_less() {
        let demand = demand(4, 0);
        let whole = demand.frames_per_ring(u32::MAX);
        let frames = connect(BUDGET, demand, 255);
        assert_eq!(frames[..7], [whole; 7]);
        assert!(frames.is_sorted_by_key(|frames| core::cmp::Reverse(frames.requests)));
        assert_ne!(frames[8], whole);
    }

    #[test]
    fn every_disk_can_serve_the_largest_request_on_each_ring() {
        for rings in 1..=64 {
            for order in 0..=4 {
                for frames in connect(BUDGET, demand(rings, order), 255) {
                    assert!(frames.requests >= 256, "{rings} {order}");
                }
            }
        }
    }

    #[test]
    fn a_budget_is_only_exceeded_by_what_each_ring_has_in_any_case() {
        for budget in [1024, 8192, 100_000, BUDGET, 16_777_216] {
            for rings in 1..=64 {
                for order in 0..=4 {
                    let demand = demand(rings, order);
                    let mut used = 0;
                    for frames in connect(budget, demand, 255) {
                        let total = demand.total(frames);
                        used += total;
                        assert!(used <= budget || total == least(demand), "{demand:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn too_few_frames_are_split_in_halves() {
        let demand = demand(1, 0);
        let frames = |free, requests, persistent| {
            let expected = RingFrames {
                requests,
                persistent,
            };
            assert_eq!(demand.frames_per_ring(free), expected, "{free}");
        };
        frames(3105, 2048, 1056);
        frames(3104, 2047, 1056);
        frames(1001, 500, 500);
        frames(257, 256, 0);
        frames(256, 256, 0);
        frames(0, 256, 0);
    }

    #[test]
    fn the_rings_of_a_disk_share_its_copies() {
        for rings in 1..=1024 {
            assert!(rings * copies_per_ring(rings) <= 512);
        }
        assert_eq!(copies_per_ring(1), 512);
        assert_eq!(copies_per_ring(4), 128);
        assert_eq!(copies_per_ring(0), 0);
    }

    #[test]
    fn the_largest_request_always_fits() {
        for rings in 0..=64 {
            for entries in [0, 1, 32, 512, u32::MAX] {
                let frames = per_ring(rings, entries);
                assert!((256..=4096).contains(&frames), "{rings} rings of {entries}");
            }
        }
    }
}
