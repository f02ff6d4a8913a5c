// SPDX-License-Identifier: GPL-2.0

use anyhow::Result;

use crate::check;
use crate::disk::Disk;
use crate::fio::Job;
use crate::guest::Guest;
use crate::host::Host;
use crate::results::Figures;

const MEGABYTES: u32 = 16;
/// fio's word for bytes that are not those that were written: EILSEQ.
const WRONG: &str = "fio reported error 84";
/// What dm-flakey does to a byte at the end of what is read or written, or to bytes anywhere in half of the reads.
const CORRUPTIONS: &[(&str, &str)] = &[
    ("reads", "5 corrupt_bio_byte 4000 r 1 0"),
    ("writes", "5 corrupt_bio_byte 4000 w 1 0"),
    ("some reads", "2 random_read_corrupt 500000000"),
];

/// A device changes bytes on their way, and a guest's verify says so each time; and says nothing before and after.
/// This is no test of the backend, but of what all others rely on.
pub fn corrupt(host: &Host<'_>, _figures: &mut Figures) -> Result<()> {
    let below = Disk::memory(host, "nba", MEGABYTES)?;
    host.ok("modprobe dm-flakey")?;
    let disk = Disk::linear(host, "flaky", &below, MEGABYTES)?;
    let guest = host.guest("referee").start()?;
    guest.attach(&disk, "xvdb")?;
    verify(&guest)?;
    for (what, feature) in CORRUPTIONS {
        let sectors = u64::from(MEGABYTES) * 2048;
        // Never up, always down.
        let table = format!("0 {sectors} flakey {} 0 0 1 {feature}", below.path);
        host.ok(&format!(
            "dmsetup load {0} --table '{table}' && dmsetup resume --noudevsync {0}",
            disk.path
        ))?;
        let found = verify(&guest).err().map(|error| format!("{error:#}"));
        let found = found.unwrap_or_else(|| "nothing".into());
        check::contains(&format!("what verify found in {what}"), &found, &[WRONG])?;
        disk.resize(host, &below, MEGABYTES)?;
        verify(&guest)?;
    }
    guest.destroy()?;
    disk.remove(host)?;
    below.remove(host)
}

fn verify(guest: &Guest<'_, '_>) -> Result<()> {
    let report = Job::verified_writes("xvdb", "4k-64k", 2)
        .depth(8)
        .run(guest)?;
    check::equal("bytes verified", report.read.io_bytes, 2 << 20)
}
