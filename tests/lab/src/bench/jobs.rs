// SPDX-License-Identifier: GPL-2.0

//! What is measured: fio jobs, and who serves the disk they run on.

use anyhow::Context;
use anyhow::Result;
use serde::Serialize;

use crate::fio;
use crate::lab::Backend;

/// What a guest does, and on what.
#[derive(Debug, Serialize)]
pub struct Job {
    pub name: &'static str,
    /// fio's options.
    pub options: &'static str,
    /// How often fio asks for something in a run, by all its threads together.
    pub requests: u64,
    /// fio's threads.
    pub threads: u64,
    pub disks: u32,
    /// Queues that the backend offers.
    pub queues: u32,
    /// The guest's virtual processors.
    pub processors: u32,
    /// Whether the backend offers persistent grants.
    pub persistent: bool,
    /// Whether the device has a cache that can be flushed.
    pub flushed: bool,
    /// The guest's rings have so many pages, as a power of two.
    pub ring_order: u32,
    /// Whether a process keeps dom0's processor busy meanwhile. Then only times count: what dom0
    /// executes is mostly that process.
    pub busy: bool,
}

const USUAL: Job = Job {
    name: "",
    options: "",
    requests: 5_000,
    threads: 1,
    disks: 1,
    queues: 1,
    processors: 1,
    persistent: true,
    flushed: false,
    ring_order: 0,
    busy: false,
};

/// As many requests in flight as the usual job has, from as many threads as the guest has
/// processors.
const QUEUES: Job = Job {
    options: "--rw=randread --bs=4k --iodepth=8 --numjobs=4 --group_reporting",
    threads: 4,
    processors: 4,
    ..USUAL
};

pub const ALL: &[Job] = &[
    Job {
        name: "read-4k-1",
        options: "--rw=randread --bs=4k --iodepth=1",
        requests: 2_500,
        ..USUAL
    },
    Job {
        name: "read-4k-32",
        options: "--rw=randread --bs=4k --iodepth=32",
        ..USUAL
    },
    Job {
        name: "read-4k-256",
        options: "--rw=randread --bs=4k --iodepth=256",
        ..USUAL
    },
    Job {
        name: "deep-4k-256",
        options: "--rw=randread --bs=4k --iodepth=256",
        ring_order: 4,
        ..USUAL
    },
    Job {
        name: "write-4k-32",
        options: "--rw=randwrite --bs=4k --iodepth=32",
        ..USUAL
    },
    Job {
        name: "mixed-4k-32",
        options: "--rw=randrw --rwmixread=70 --bs=4k --iodepth=32",
        ..USUAL
    },
    Job {
        name: "read-64k-8",
        options: "--rw=read --bs=64k --iodepth=8",
        requests: 2_500,
        ..USUAL
    },
    Job {
        name: "read-1m-4",
        options: "--rw=read --bs=1m --iodepth=4",
        requests: 250,
        ..USUAL
    },
    Job {
        name: "write-1m-fsync",
        options: "--rw=write --bs=1m --iodepth=1 --fsync=1",
        requests: 250,
        flushed: true,
        ..USUAL
    },
    Job {
        name: "queues-1",
        ..QUEUES
    },
    Job {
        name: "queues-2",
        queues: 2,
        ..QUEUES
    },
    Job {
        name: "queues-4",
        queues: 4,
        ..QUEUES
    },
    Job {
        name: "unpersistent-4k-32",
        options: "--rw=randread --bs=4k --iodepth=32",
        persistent: false,
        ..USUAL
    },
    Job {
        name: "unpersistent-64k-8",
        options: "--rw=read --bs=64k --iodepth=8",
        requests: 2_500,
        persistent: false,
        ..USUAL
    },
    Job {
        name: "disks-8",
        options: "--rw=randread --bs=4k --iodepth=32",
        requests: 16_000,
        threads: 8,
        disks: 8,
        ..USUAL
    },
    Job {
        name: "disks-32",
        options: "--rw=randread --bs=4k --iodepth=32",
        requests: 9_600,
        threads: 32,
        disks: 32,
        ..USUAL
    },
    Job {
        name: "busy-4k-1",
        options: "--rw=randread --bs=4k --iodepth=1",
        requests: 4_000,
        busy: true,
        ..USUAL
    },
    Job {
        name: "busy-4k-4",
        options: "--rw=randread --bs=4k --iodepth=4",
        requests: 8_000,
        busy: true,
        ..USUAL
    },
    Job {
        name: "busy-4k-32",
        options: "--rw=randread --bs=4k --iodepth=32",
        requests: 8_000,
        busy: true,
        ..USUAL
    },
];

/// The job of that name.
pub fn by_name(name: &str) -> Result<&'static Job> {
    let known = ALL.iter().find(|job| job.name == name);
    known.with_context(|| {
        let names: Vec<&str> = ALL.iter().map(|job| job.name).collect();
        format!("there is no job {name:?}; there are {}", names.join(", "))
    })
}

impl Job {
    /// So many requests of it. Several devices have a thread each.
    pub fn fio(&self, devices: &[String], requests: u64) -> fio::Job {
        let each = requests / self.threads;
        let job = match devices {
            [device] => fio::Job::of(device, self.options),
            _ => fio::Job::one_for_each(devices, self.options),
        };
        job.with(&format!("--norandommap --io_size=1T --number_ios={each}"))
    }

    /// Megabytes that the guest needs for a kernel and fio, and for the pages that blkfront keeps for each
    /// slot of a ring: 32 and one for their list, of which a ring of one page has 32.
    pub fn memory(&self) -> u32 {
        let rings = 5 << self.ring_order;
        match self.disks {
            1 => 160 + rings,
            disks => 192 + (rings + 1) * disks,
        }
    }
}

/// Who serves the requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Server {
    /// The device itself: fio runs in dom0.
    Bare,
    Blkback,
    Rblkback,
    /// rblkback with a limit out of reach.
    Limited,
}

impl Server {
    pub const ALL: [Server; 4] = [
        Server::Bare,
        Server::Blkback,
        Server::Rblkback,
        Server::Limited,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Server::Bare => "bare device",
            Server::Blkback => "xen-blkback",
            Server::Rblkback => "rblkback",
            Server::Limited => "rblkback, limit out of reach",
        }
    }

    /// The module that has to be loaded, if any.
    pub fn backend(self) -> Option<Backend> {
        match self {
            Server::Bare => None,
            Server::Blkback => Some(Backend::Blkback),
            Server::Rblkback | Server::Limited => Some(Backend::Rblkback),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_threads_share_evenly() {
        for (i, job) in ALL.iter().enumerate() {
            assert!(ALL[..i].iter().all(|other| other.name != job.name));
            assert_eq!(job.requests % job.threads, 0, "{}", job.name);
            assert!(
                job.threads == u64::from(job.disks)
                    || job.options.contains(&format!("--numjobs={}", job.threads))
            );
        }
    }
}
