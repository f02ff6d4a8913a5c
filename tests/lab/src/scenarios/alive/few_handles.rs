// SPDX-License-Identifier: GPL-2.0

use anyhow::Result;

use crate::check;
use crate::disk::Disk;
use crate::fio::Job;
use crate::guest::Guest;
use crate::host::Host;
use crate::results::Figures;

const MEGABYTES: u32 = 32;

/// Two guests with persistent grants and full rings have more pages under way than dom0's table of
/// mapped grants has places. Both verify what they wrote, and none of their requests fails.
pub fn few_handles(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    let disks = [
        Disk::memory(host, "nba", MEGABYTES)?,
        Disk::memory(host, "nbb", MEGABYTES)?,
    ];
    let guests = disks
        .iter()
        .map(|disk| host.guest("handles").disk(disk, "xvda").start())
        .collect::<Result<Vec<Guest<'_, '_>>>>()?;
    for guest in &guests {
        guest.wait_disk("xvda")?;
    }
    // 2048 pages in each ring, as many as there are places.
    let verify = Job::verified_writes("xvda", "256k-256k", MEGABYTES)
        .depth(32)
        .with("--blockalign=256k");
    let running = guests
        .iter()
        .map(|guest| verify.start(guest))
        .collect::<Result<Vec<_>>>()?;
    let whole = u64::from(MEGABYTES) << 20;
    for job in running {
        let report = job.finish()?;
        check::equal("bytes verified", report.read.io_bytes, whole)?;
    }
    figures.insert("bytes verified in each guest".into(), whole.into());
    for guest in guests {
        check::equal("the error node", guest.vbd("xvda").error()?, None)?;
        guest.destroy()?;
    }
    disks.into_iter().try_for_each(|disk| disk.remove(host))
}
