// SPDX-License-Identifier: GPL-2.0

//! How many frames of a guest the requests of a ring may use at a time.
//!
//! What is over stays on the ring, in the guest's own memory. The bounds are wide
//! enough to keep the fastest disk busy; they are there so that no guest decides how
//! much this domain maps.

use super::abi::INDIRECT_MAX;

/// Per slot: two requests of the default size of Linux.
const PER_SLOT: u32 = 64;
/// Per ring: 16 MiB of data on the way.
const PER_RING: u32 = 4096;
/// Per disk, shared by its rings, so that many rings are no reason to refuse one.
const PER_DISK: u32 = 8192;

/// Per disk, of the frames that are copied, which takes pages of this domain's: 2 MiB.
const COPIES_PER_DISK: u32 = 512;

/// Frames of those of each of `rings` rings that may be copied. What is over is mapped, so
/// that this need not be enough for anything.
pub fn copies_per_ring(rings: u32) -> u32 {
    COPIES_PER_DISK.checked_div(rings).unwrap_or(0)
}

/// Frames that the requests of each of `rings` rings of `entries` slots may use: always
/// enough for one request of the largest size.
pub fn per_ring(rings: u32, entries: u32) -> u32 {
    let share = PER_DISK.checked_div(rings).unwrap_or(PER_RING);
    entries
        .saturating_mul(PER_SLOT)
        .min(PER_RING)
        .min(share)
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
