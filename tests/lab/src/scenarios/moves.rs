// SPDX-License-Identifier: GPL-2.0

use anyhow::Context;
use anyhow::Result;

use crate::check;
use crate::disk::Disk;
use crate::fio::Job;
use crate::guest::Guest;
use crate::host::Host;
use crate::results::Figures;

const MEGABYTES: u32 = 32;

/// A guest is saved to a file and restored in mid-I/O, and its verify does not notice.
pub fn save_restore(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    move_guest(host, figures, "save-restore", |guest| {
        guest.save_and_restore()
    })
}

/// A guest becomes another domain on the same disk, as migration does it, in mid-I/O, and its
/// verify does not notice.
pub fn migrate(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    move_guest(host, figures, "migrate", |guest| guest.migrate())
}

fn move_guest(
    host: &Host<'_>,
    figures: &mut Figures,
    name: &str,
    move_once: fn(&Guest<'_, '_>) -> Result<()>,
) -> Result<()> {
    let disk = Disk::memory(host, "nb0", MEGABYTES)?;
    let guest = host.guest(name).disk(&disk, "xvda").start()?;
    guest.wait_disk("xvda")?;
    let verify = Job::verified_writes("xvda", "4k-44k", MEGABYTES)
        .depth(8)
        .start(&guest)?;
    let rounds = host.lab.cycles.unwrap_or(1);
    for round in 0..rounds {
        let source = guest.vbd("xvda");
        // In the middle of the I/O: some of it has passed since the last move.
        source.wait_file("statistics/wr_req", "[1-9][0-9]+")?;
        move_once(&guest).with_context(|| format!("{name} {round}"))?;
        host.store_wait(&source.path("state"), "absent")?;
        guest.vbd("xvda").wait_state("4")?;
    }
    let report = verify.finish()?;
    let bytes = u64::from(MEGABYTES) << 20;
    check::equal("bytes verified", report.read.io_bytes, bytes)?;
    let sum = |path: &str| format!("dd if={path} bs=1M iflag=direct status=none | sha256sum");
    check::equal(
        "the disk in the guest against dom0",
        guest.ok(&sum("/dev/xvda"))?,
        host.ok(&sum(&disk.path))?,
    )?;
    // The same kernel all along: no reboot hides a lost disk.
    figures.insert("moves".into(), rounds.into());
    figures.insert("bytes verified".into(), report.read.io_bytes.into());
    guest.destroy()?;
    disk.remove(host)
}
