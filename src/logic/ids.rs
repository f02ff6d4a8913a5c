// SPDX-License-Identifier: GPL-2.0

//! Numbers that name a ring of a disk and a disk of a guest, and how many there can be.

/// The most rings of one disk: the most queues that `max_queues` can offer.
pub const RINGS_MAX: usize = 64;

/// The most disks of one guest.
pub const DISKS_MAX: usize = 64;

/// A member of a queue: below the queue's number of members.
pub type Member = u8;

/// A ring of a disk: its queue number, below [`RINGS_MAX`].
pub type RingId = Member;

/// A disk of a guest: its slot in the guest's table, below [`DISKS_MAX`].
pub type DiskId = Member;
