// SPDX-License-Identifier: GPL-2.0

//! The counters of `statistics/`, as xentop and libvirt read them.
//!
//! The counters belong to the disk, not to a ring, so they survive a reconnect of the guest. Each is a number of its own; nothing needs them to agree at an instant.

use kernel::{
    fmt,
    sync::atomic::{
        ordering::Relaxed,
        Atomic, //
    }, //
};

use crate::logic::protocol::request::Operation;
use crate::logic::protocol::request::Request;

/// Counters of one disk, on cache lines of their own: all rings write them, and read what is beside them.
#[repr(align(64))]
pub(crate) struct Stats {
    /// Times a request had to wait because there was no memory for it.
    pub(crate) out_of_memory: Atomic<u64>,
    /// Reads sent to the disk.
    pub(crate) reads: Atomic<u64>,
    /// Writes sent to the disk.
    pub(crate) writes: Atomic<u64>,
    /// Flushes and write barriers sent to the disk.
    pub(crate) flushes: Atomic<u64>,
    /// Discards sent to the disk.
    pub(crate) discards: Atomic<u64>,
    /// Sectors of 512 bytes read.
    pub(crate) sectors_read: Atomic<u64>,
    /// Sectors of 512 bytes written.
    pub(crate) sectors_written: Atomic<u64>,
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "oo {} rd {} wr {} f {} ds {} rd_sect {} wr_sect {}",
            self.out_of_memory.load(Relaxed),
            self.reads.load(Relaxed),
            self.writes.load(Relaxed),
            self.flushes.load(Relaxed),
            self.discards.load(Relaxed),
            self.sectors_read.load(Relaxed),
            self.sectors_written.load(Relaxed)
        )
    }
}

impl Stats {
    /// All zero.
    pub(crate) const fn new() -> Self {
        Self {
            out_of_memory: Atomic::new(0),
            reads: Atomic::new(0),
            writes: Atomic::new(0),
            flushes: Atomic::new(0),
            discards: Atomic::new(0),
            sectors_read: Atomic::new(0),
            sectors_written: Atomic::new(0),
        }
    }

    /// Counts a time that a request had to wait for memory.
    pub(crate) fn count_out_of_memory(&self) {
        self.out_of_memory.add(1, Relaxed);
    }

    /// Counts a discard that goes to the disk.
    pub(crate) fn count_discard(&self) {
        self.discards.add(1, Relaxed);
    }

    /// Counts requests that go to the disk.
    pub(crate) fn add(&self, tally: Tally) {
        if tally.reads > 0 {
            self.reads.add(u64::from(tally.reads), Relaxed);
            self.sectors_read.add(tally.sectors_read.into(), Relaxed);
        }
        if tally.writes > 0 {
            self.writes.add(u64::from(tally.writes), Relaxed);
        }
        if tally.flushes > 0 {
            self.flushes.add(u64::from(tally.flushes), Relaxed);
        }
        if tally.sectors_written > 0 {
            self.sectors_written
                .add(tally.sectors_written.into(), Relaxed);
        }
    }
}

/// Requests of one ring that the counters of its disk are still to have: one addition for all of them, not
/// one for each.
#[derive(Default)]
pub(crate) struct Tally {
    reads: u32,
    writes: u32,
    flushes: u32,
    sectors_read: u32,
    sectors_written: u32,
}

impl Tally {
    /// Counts a request. There are never so many that a number overflows: a ring has 512 slots, and a request
    /// is of 2,048 sectors at most.
    pub(crate) fn count(&mut self, request: &Request<()>) {
        let (requests, sectors) = match request.operation() {
            Operation::Read => (&mut self.reads, &mut self.sectors_read),
            Operation::Write => (&mut self.writes, &mut self.sectors_written),
            Operation::Flush | Operation::Barrier => (&mut self.flushes, &mut self.sectors_written),
        };
        *requests = requests.saturating_add(1);
        *sectors = sectors.saturating_add(request.sectors());
    }
}
