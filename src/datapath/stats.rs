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

/// Counters of one disk.
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

    /// Counts a request that goes to the disk.
    pub(crate) fn count(&self, request: &Request<()>) {
        let (requests, sectors) = match request.operation() {
            Operation::Read => (&self.reads, &self.sectors_read),
            Operation::Write => (&self.writes, &self.sectors_written),
            Operation::Flush | Operation::Barrier => (&self.flushes, &self.sectors_written),
        };
        requests.add(1, Relaxed);
        sectors.add(u64::from(request.sectors()), Relaxed);
    }
}
