// SPDX-License-Identifier: GPL-2.0

use anyhow::Result;

use super::probe::Probe;
use super::probe::seen;
use crate::check;
use crate::disk::Disk;
use crate::fio::Job;
use crate::guest::Guest;
use crate::host::Host;
use crate::results::Figures;

const MEGABYTES: u32 = 32;

/// Xen refuses a map because the table of mapped grants (maptrack) is full: GNTST_no_space. A call maps
/// as many grants as the driver gathers, 32 bytes each, and when one finds no place those behind it find
/// none either. So it is enough to look at some, the last of xen-blkback's eleven among them.
const REFUSED: Probe = Probe {
    event: "lab/refused",
    definition: "r:lab/refused gnttab_map_refs count=$arg4:u32 s0=+18($arg1):s16 s10=+338($arg1):s16 \
                 s63=+2034($arg1):s16 s127=+4082($arg1):s16 s255=+8178($arg1):s16",
    filter: Some(
        "s0 == -13 || count > 10 && s10 == -13 || count > 63 && s63 == -13 || \
         count > 127 && s127 == -13 || count > 255 && s255 == -13",
    ),
};

/// Two guests with persistent grants and full rings have more pages under way than dom0's table of
/// mapped grants has places: Xen refuses to map some. Both verify what they wrote, and none of their
/// requests fails.
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
    let whole = u64::from(MEGABYTES) << 20;
    // The debug kernel has no kprobes.
    let probes: &[Probe] = host.lab.amount(&[REFUSED][..], &[]);
    let refused = seen(host, probes, || {
        let running = guests
            .iter()
            .map(|guest| verify.start(guest))
            .collect::<Result<Vec<_>>>()?;
        for job in running {
            let report = job.finish()?;
            check::equal("bytes verified", report.read.io_bytes, whole)?;
        }
        Ok(())
    })?;
    if !probes.is_empty() {
        let refused = refused.len();
        figures.insert("calls in which Xen refused a map".into(), refused.into());
        check::within("calls in which Xen refused a map", refused, 1..=usize::MAX)?;
    }
    figures.insert("bytes verified in each guest".into(), whole.into());
    for guest in guests {
        check::equal("the error node", guest.vbd("xvda").error()?, None)?;
        guest.destroy()?;
    }
    disks.into_iter().try_for_each(|disk| disk.remove(host))
}
