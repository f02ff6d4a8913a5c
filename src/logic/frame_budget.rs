// SPDX-License-Identifier: GPL-2.0

//! How many frames of a guest a ring may use at a time.
//!
//! What is over stays on the ring, in the guest's own memory. The bounds are wide
//! enough to keep the fastest disk busy; they are there so that no guest decides how
//! much this domain maps.
//!
//! All disks of a guest frames a budget. A disk that comes when little of it is left gets
//! less, and serves fewer large requests at a time. It is refused only if it cannot have
//! enough for one of the largest size on each ring.

use super::ids::DISKS_MAX;
use super::protocol::abi::INDIRECT_MAX;

/// Per slot: two requests of the default size of Linux.
const PER_SLOT: u32 = 64;
/// Per ring: 16 MiB of data on the way.
const PER_RING: u32 = 4096;
/// Per disk, shared by its rings, so that many rings are no reason to refuse one.
const PER_DISK: u32 = 8192;

/// Per disk, of the frames that are copied, which takes pages of this domain's: 2 MiB.
const COPIES_PER_DISK: u32 = 512;

/// The part of a budget that is not for whoever comes first: each disk that a guest may
/// have finds an equal frames of it. 1365 of the default budget, enough for five rings.
const SET_ASIDE: u32 = 3;

/// What a disk could use of its guest's budget.
#[derive(Clone, Copy, Debug)]
pub struct Demand {
    /// Its rings.
    pub rings: u32,
    /// Slots of each.
    pub entries: u32,
    /// Pages of each.
    pub pages: u32,
    /// Grants of each that may stay mapped.
    pub kept: u32,
}

/// What each ring of a disk may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingFrames {
    /// Frames that its requests use at a time.
    pub requests: u32,
    /// Grants that stay mapped.
    pub kept: u32,
}

/// What a disk may have of a `budget` of which `others` connected disks have `used`.
pub fn free(budget: u32, used: u32, others: u32) -> u32 {
    let seats = DISKS_MAX as u32;
    let each = budget.checked_div(seats.saturating_mul(SET_ASIDE));
    let to_come = seats.saturating_sub(1).saturating_sub(others);
    budget
        .saturating_sub(used)
        .saturating_sub(to_come.saturating_mul(each.unwrap_or(0)))
}

impl Demand {
    /// What each ring gets if all of them may use `free` frames; `None` if that is less
    /// than [`Demand::least`].
    pub fn frames_per_ring(&self, free: u32) -> Option<RingFrames> {
        let each = free.checked_div(self.rings)?.checked_sub(self.pages)?;
        let least = u32::from(INDIRECT_MAX);
        if each < least {
            return None;
        }
        let most = per_ring(self.rings, self.entries);
        // As many for requests as stay mapped, when there is not enough for both.
        let half = each.saturating_sub(self.kept).max(each / 2);
        let requests = half.max(least).min(most);
        Some(RingFrames {
            requests,
            kept: each.saturating_sub(requests).min(self.kept),
        })
    }

    /// Frames without which it cannot be served.
    pub fn least(&self) -> u32 {
        self.total(RingFrames {
            requests: u32::from(INDIRECT_MAX),
            kept: 0,
        })
    }

    /// Frames that it uses with that frames.
    pub fn total(&self, frames: RingFrames) -> u32 {
        let each = frames.requests.saturating_add(frames.kept);
        self.rings.saturating_mul(each.saturating_add(self.pages))
    }
}

/// Frames of those of each of `rings` rings that may be copied. What is over is mapped, so
/// that this need not be enough for anything.
pub fn copies_per_ring(rings: u32) -> u32 {
    COPIES_PER_DISK.checked_div(rings).unwrap_or(0)
}

/// Frames that the requests of each of `rings` rings of `entries` slots may use: always
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
    fn a_ring_alone_is_bounded_by_its_size() {
        assert_eq!(per_ring(1, 32), 2048);
        assert_eq!(per_ring(1, 64), 4096);
        assert_eq!(per_ring(1, 512), 4096);
    }

    #[test]
    fn the_rings_of_a_disk_share() {
        assert_eq!(per_ring(2, 512), 4096);
        assert_eq!(per_ring(4, 512), 2048);
        assert_eq!(per_ring(16, 512), 512);
    }

    const BUDGET: u32 = 262_144;

    fn demand(rings: u32, order: u32) -> Demand {
        Demand {
            rings,
            entries: 32 << order,
            pages: 1 << order,
            kept: 1056,
        }
    }

    /// How many such disks a guest can have, and the frames of the last of them.
    fn connect_all(budget: u32, demand: Demand) -> (u32, Option<RingFrames>) {
        let (mut used, mut disks, mut last) = (0, 0, None);
        while disks < DISKS_MAX as u32 {
            let Some(frames) = demand.frames_per_ring(free(budget, used, disks)) else {
                break;
            };
            used += demand.total(frames);
            disks += 1;
            last = Some(frames);
            assert!(used <= budget, "{demand:?}");
        }
        (disks, last)
    }

    #[test]
    fn a_disk_alone_gets_what_it_can_use() {
        for (rings, order, requests) in [(1, 0, 2048), (1, 4, 4096), (4, 0, 2048), (8, 4, 1024)] {
            let frames = demand(rings, order).frames_per_ring(free(BUDGET, 0, 0));
            assert_eq!(
                frames,
                Some(RingFrames {
                    requests,
                    kept: 1056
                }),
                "{rings} {order}"
            );
        }
    }

    #[test]
    fn fifteen_disks_of_four_rings_get_all_that_they_can_use() {
        let demand = demand(4, 0);
        let whole = demand.frames_per_ring(u32::MAX).unwrap();
        let used = 15 * demand.total(whole);
        assert_eq!(
            demand.frames_per_ring(free(BUDGET, used - demand.total(whole), 14)),
            Some(whole)
        );
        assert_ne!(demand.frames_per_ring(free(BUDGET, used, 15)), Some(whole));
    }

    #[test]
    fn every_disk_that_a_guest_may_have_connects_with_up_to_five_rings() {
        for rings in 1..=5 {
            for order in 0..=4 {
                let (disks, last) = connect_all(BUDGET, demand(rings, order));
                assert_eq!(disks, 64, "{rings} {order}");
                assert!(last.is_some_and(|frames| frames.requests >= 256));
            }
        }
    }

    #[test]
    fn no_budget_is_exceeded() {
        for budget in [1024, 8192, 100_000, BUDGET, 16_777_216] {
            for rings in 1..=64 {
                for order in 0..=4 {
                    let (disks, _) = connect_all(budget, demand(rings, order));
                    assert!(disks > 0 || demand(rings, order).least() > budget * 2 / 3);
                }
            }
        }
    }

    #[test]
    fn a_little_less_than_enough_is_split_in_two() {
        let demand = demand(1, 0);
        let frames = |free| demand.frames_per_ring(free);
        let whole = RingFrames {
            requests: 2048,
            kept: 1056,
        };
        assert_eq!(frames(3105), Some(whole));
        assert_eq!(
            frames(3104),
            Some(RingFrames {
                requests: 2047,
                ..whole
            })
        );
        assert_eq!(
            frames(1001),
            Some(RingFrames {
                requests: 500,
                kept: 500
            })
        );
        assert_eq!(
            frames(257),
            Some(RingFrames {
                requests: 256,
                kept: 0
            })
        );
        assert_eq!(frames(256), None);
        assert_eq!(demand.least(), 257);
    }

    #[test]
    fn copies_are_shared_as_well() {
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
