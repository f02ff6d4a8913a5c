// SPDX-License-Identifier: GPL-2.0

//! Which jobs run on which devices, served by whom.

use anyhow::Context;
use anyhow::Result;

use super::jobs;
use super::jobs::Job;
use super::jobs::Server;
use crate::device::Device;

/// Devices of which each figure to win is stated by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// A null_blk that answers within the call: no real device does, but nothing else is measured.
    Instant,
    /// A null_blk whose answers come from a timer.
    Late,
    /// Drivers of real devices and of layers above them, with interrupts of their own.
    Drivers,
}

impl Group {
    pub const ALL: [Group; 3] = [Group::Instant, Group::Late, Group::Drivers];

    /// As `bench.json` has it.
    pub fn name(self) -> &'static str {
        match self {
            Group::Instant => "instant",
            Group::Late => "late",
            Group::Drivers => "drivers",
        }
    }

    fn of(device: Device) -> Group {
        match device {
            Device::AtOnce => Group::Instant,
            Device::Us20 | Device::Us80 | Device::Ms50 | Device::S2 => Group::Late,
            Device::Mapped | Device::Loop | Device::Nvme | Device::Virtio => Group::Drivers,
        }
    }
}

/// A job on a device.
#[derive(Clone, Copy)]
pub struct Run {
    pub job: &'static Job,
    pub device: Device,
}

/// Jobs that say enough of a driver.
const OF_A_DRIVER: [&str; 4] = ["read-4k-1", "read-4k-32", "write-4k-32", "read-64k-8"];
/// Seconds of a turn on two idle processors, the guest's start and what is done once included.
const SECONDS_A_TURN: u64 = 16;

impl Run {
    /// Such as `read-4k-1@80us`.
    pub fn name(self) -> String {
        match self.device {
            Device::AtOnce => self.job.name.into(),
            device => format!("{}@{}", self.job.name, device.name()),
        }
    }

    /// A run by its name, also one that is not part of the whole.
    pub fn by_name(name: &str) -> Result<Run> {
        let (job, device) = name
            .split_once('@')
            .unwrap_or((name, Device::AtOnce.name()));
        Ok(Run {
            job: jobs::by_name(job)?,
            device: Device::by_name(device)
                .with_context(|| format!("there is no device {device:?}"))?,
        })
    }

    pub fn group(self) -> Group {
        Group::of(self.device)
    }

    /// Who has a turn. Each has another one in the opposite order.
    pub fn servers(self) -> &'static [Server] {
        use Server::*;
        match self.device {
            Device::AtOnce => &[Bare, Blkback, Rblkback, Limited],
            Device::Us80 if !self.job.busy => &[Blkback, Rblkback, Limited],
            _ => &[Blkback, Rblkback],
        }
    }

    /// Seconds on an idle processor.
    pub fn seconds(self) -> u64 {
        2 * self.servers().len() as u64 * SECONDS_A_TURN
    }
}

/// All that a whole run has, the dearest last.
pub fn all() -> Vec<Run> {
    let usual = [Device::AtOnce, Device::Us20, Device::Us80];
    let drivers = [Device::Mapped, Device::Loop, Device::Nvme, Device::Virtio];
    let mut runs = Vec::new();
    for job in jobs::ALL {
        let devices: Vec<Device> = match job {
            job if job.busy => vec![Device::Us80],
            job if OF_A_DRIVER.contains(&job.name) => [&usual[..], &drivers[..]].concat(),
            _ => usual.to_vec(),
        };
        runs.extend(devices.into_iter().map(|device| Run { job, device }));
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for run in all() {
            let same = Run::by_name(&run.name()).unwrap();
            assert_eq!((same.job.name, same.device), (run.job.name, run.device));
        }
        assert!(Run::by_name("read-4k-1@floppy").is_err());
        assert!(Run::by_name("chess").is_err());
    }

    #[test]
    fn each_group_has_its_jobs() {
        let runs = all();
        for group in Group::ALL {
            assert!(
                runs.iter().any(|run| run.group() == group),
                "{}",
                group.name()
            );
        }
        for name in OF_A_DRIVER {
            assert!(jobs::by_name(name).is_ok(), "{name}");
        }
    }
}
