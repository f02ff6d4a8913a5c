// SPDX-License-Identifier: GPL-2.0

//! What is due in a disk's upkeep: set by the periodic timer and by the kernel's search for memory,
//! taken by the disk's work item.

use kernel::sync::atomic::{
    ordering::{
        Full,
        Relaxed, //
    },
    Atomic,
    AtomicFlag, //
};

/// One thing that may be due.
pub(super) struct Due(AtomicFlag);

impl Due {
    const fn new() -> Self {
        Self(AtomicFlag::new(false))
    }

    /// It is due from now on. Context: any.
    pub(super) fn set(&self) {
        self.0.store(true, Relaxed);
    }

    /// Was it due? Then it is not any more.
    pub(super) fn take(&self) -> bool {
        self.0.xchg(false, Full)
    }
}

/// What is due in a disk's upkeep.
pub(super) struct UpkeepFlags {
    /// Seconds that the timer has counted.
    ticks: Atomic<u32>,
    /// In which second memory was asked for last.
    reclaimed_in: Atomic<u32>,
    /// Grants that are not used any more are to be unmapped.
    pub(super) expire: Due,
    /// The statistics are to be written to the log.
    pub(super) log: Due,
    /// Live numbers are to be written for the guest.
    pub(super) publish: Due,
    /// Memory is short: what the rings can spare is to be given back.
    pub(super) reclaim: Due,
}

impl UpkeepFlags {
    /// Nothing is due.
    pub(super) const fn new() -> Self {
        Self {
            ticks: Atomic::new(0),
            reclaimed_in: Atomic::new(u32::MAX),
            expire: Due::new(),
            log: Due::new(),
            publish: Due::new(),
            reclaim: Due::new(),
        }
    }

    /// Counts a second. Returns how many were counted before. Context: the periodic timer.
    pub(super) fn tick(&self) -> u32 {
        self.ticks.fetch_add(1, Relaxed)
    }

    /// Memory is asked for. Returns whether that is the first time in this second: the kernel may
    /// ask all the time, and what was given back comes again only with the guest's next requests.
    /// Context: any.
    pub(super) fn is_new_reclaim(&self) -> bool {
        let now = self.ticks.load(Relaxed);
        self.reclaimed_in.xchg(now, Relaxed) != now
    }
}
