// SPDX-License-Identifier: GPL-2.0

use anyhow::Result;

use crate::check;
use crate::disk::Disk;
use crate::fio::Job;
use crate::host::Host;
use crate::results::Figures;

const MEGABYTES: u32 = 16;
const BYTES: u64 = (MEGABYTES as u64) << 20;

/// A disk with logical sectors of 4096 bytes: its keys say so, counts stay in units of 512 bytes,
/// and every byte is where dom0 has it.
pub fn sector_4096(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    let disk = Disk::memory_with(host, "nb0", MEGABYTES, "echo 4096 >blocksize")?;
    host.ok(&format!(
        "dd if=/dev/urandom of={} bs=1M count={MEGABYTES} oflag=direct status=none",
        disk.path
    ))?;
    let guest = host.guest("large").disk(&disk, "xvda").start()?;
    guest.wait_disk("xvda")?;
    let vbd = guest.vbd("xvda");
    for (key, value) in [
        ("sector-size", "4096".to_string()),
        ("physical-sector-size", "4096".to_string()),
        ("sectors", (BYTES / 512).to_string()),
    ] {
        check::equal(key, vbd.key(key)?, Some(value))?;
    }
    for (question, answer) in [
        ("--getss", 4096),
        ("--getpbsz", 4096),
        ("--getsize64", BYTES),
    ] {
        let seen: u64 = guest
            .ok(&format!("blockdev {question} /dev/xvda"))?
            .parse()?;
        check::equal(&format!("blockdev {question} in the guest"), seen, answer)?;
    }
    guest.refused("dd if=/dev/xvda of=/dev/null bs=512 count=1 iflag=direct")?;

    let sum = |path: &str| format!("dd if={path} bs=64K iflag=direct status=none | sha256sum");
    check::equal(
        "what dom0 wrote, as the guest reads it",
        guest.ok(&sum("/dev/xvda"))?,
        host.ok(&sum(&disk.path))?,
    )?;
    let report = Job::verified_writes("xvda", "4k-44k", MEGABYTES)
        .depth(16)
        .run(&guest)?;
    check::equal("bytes verified", report.read.io_bytes, BYTES)?;
    check::equal(
        "what the guest wrote, as dom0 reads it",
        host.ok(&sum(&disk.path))?,
        guest.ok(&sum("/dev/xvda"))?,
    )?;
    check::equal(
        "sectors of 512 bytes in the statistics",
        vbd.number::<u64>("statistics/wr_sect")?,
        BYTES / 512,
    )?;
    figures.insert("bytes verified".into(), report.read.io_bytes.into());
    guest.destroy()?;
    disk.remove(host)
}
