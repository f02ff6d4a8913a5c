// SPDX-License-Identifier: GPL-2.0

//! The types of ring and disk numbers, and how many rings and disks there can be.

/// The largest number of rings of one disk: the upper bound of the parameter `max_queues`.
pub const RINGS_MAX: usize = 64;

/// The largest number of disks of one guest.
pub const DISKS_MAX: usize = 255;

/// A member of a token queue, which is a ring or a disk. Below the queue's number of members.
pub type Member = u8;

/// The queue number of a ring of a disk, below [`RINGS_MAX`].
pub type RingId = Member;

/// The slot of a disk in the table of its guest, below [`DISKS_MAX`].
pub type DiskId = Member;
