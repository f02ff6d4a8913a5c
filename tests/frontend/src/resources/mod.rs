// SPDX-License-Identifier: GPL-2.0

//! What a guest does to use up what dom0 has: events, memory, grants; and what is counted meanwhile.

mod claim;
mod exact;
mod notified;
mod poll;
mod storm;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use anyhow::Result;

use crate::Only;
use crate::disk::Disk;
use crate::disk::Setup;
use crate::setups;

#[derive(clap::Subcommand)]
pub enum Task {
    /// Sends events for nothing to all queues, for so many seconds in each way to connect.
    Storm {
        #[arg(long)]
        seconds: u64,
        /// Then closes the channel of each queue and binds to the backend's end of it again, so often.
        #[arg(long, default_value_t = 0)]
        rebinds: u32,
        #[command(flatten)]
        only: Only,
    },
    /// Fills the largest rings of several disks with writes, each disk in another layout and with another
    /// number of queues, and holds that until the end of the input. Then each write has to be answered once.
    Exact {
        #[arg(long, value_delimiter = ',')]
        disks: Vec<u32>,
    },
    /// Offers persistent grants, has more of them used than may stay mapped, takes all back while it is
    /// connected, and holds that until the end of the input. Then the disk has to hold what was written.
    Claim {
        #[command(flatten)]
        only: Only,
    },
    /// Keeps 32 reads in flight in each queue and counts how often it asked for an event, in each way to
    /// connect.
    Notified {
        #[arg(long)]
        seconds: u64,
        #[command(flatten)]
        only: Only,
    },
    /// Reads all files of a disk in sysfs until the end of the input: no counter may go down. Runs in dom0.
    Poll { dir: PathBuf },
}

impl Task {
    pub fn act(&self, vdev: u32) -> Result<()> {
        match self {
            Task::Poll { dir } => poll::poll(dir),
            Task::Exact { disks } => exact::exact(disks),
            Task::Claim { only } => {
                let (disk, setups) = ways(vdev, only, true)?;
                claim::claim(&disk, setups.first().context("no way to connect is left")?)
            }
            Task::Storm {
                seconds,
                rebinds,
                only,
            } => {
                let (disk, setups) = ways(vdev, only, false)?;
                let time = Duration::from_secs(*seconds);
                setups
                    .iter()
                    .try_for_each(|setup| storm::storm(&disk, setup, time, *rebinds))
            }
            Task::Notified { seconds, only } => {
                let (disk, setups) = ways(vdev, only, true)?;
                let time = Duration::from_secs(*seconds);
                setups
                    .iter()
                    .try_for_each(|setup| notified::notified(&disk, setup, time))
            }
        }
    }
}

/// A disk that waits for a connection, and the ways to connect, with rings of a page unless others are
/// asked for.
fn ways(vdev: u32, only: &Only, persistent: bool) -> Result<(Disk, Vec<Setup>)> {
    let disk = Disk::open(vdev)?;
    disk.reset()?;
    let only = Only {
        order: only.order.or(Some(0)),
        persistent: only.persistent.or(Some(persistent)),
        ..only.clone()
    };
    let setups = setups(&disk, &only)?;
    Ok((disk, setups))
}
