// SPDX-License-Identifier: GPL-2.0

use anyhow::Result;

use crate::check;
use crate::disk::Disk;
use crate::fio::Job;
use crate::guest::Guest;
use crate::host::Host;
use crate::results::Figures;

const MEGABYTES: u32 = 64;
const DEBUG_MEGABYTES: u32 = 16;

/// 64 MiB of random writes of 4 to 44 KiB read back clean in the guest, and dom0 finds the same
/// bytes on the backing device: once on a block device, once on a file behind a loop device.
pub fn integrity(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    let megabytes = host.lab.amount(MEGABYTES, DEBUG_MEGABYTES);
    let memory = Disk::memory(host, "nb0", megabytes)?;
    let file = Disk::file(host, "file0", megabytes)?;
    on_disks(host, memory, file, figures)
}

/// The same where time is real. libxl gives up on a hotplug script after 40 s, which Debian's own
/// one can take when two emulated processors have less than two real ones.
pub fn parallel_integrity(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    let megabytes = host.lab.amount(MEGABYTES, DEBUG_MEGABYTES);
    let mut memory = Disk::memory(host, "nb0", megabytes)?;
    let mut file = Disk::looped(host, "file0", megabytes)?;
    memory.attach_by_short_script(host)?;
    file.attach_by_short_script(host)?;
    on_disks(host, memory, file, figures)
}

fn on_disks(host: &Host<'_>, memory: Disk, file: Disk, figures: &mut Figures) -> Result<()> {
    let guest = host.guest("integrity").start()?;
    let megabytes = host.lab.amount(MEGABYTES, DEBUG_MEGABYTES);
    for (disk, megabytes) in [(&memory, megabytes), (&file, megabytes / 4)] {
        let written = write_and_compare(host, &guest, disk, megabytes)?;
        figures.insert(format!("bytes verified on {}", disk.path), written.into());
    }
    flushes(&guest, &file, figures)?;
    guest.destroy()?;
    memory.remove(host)?;
    file.remove(host)
}

fn write_and_compare(
    host: &Host<'_>,
    guest: &Guest<'_, '_>,
    disk: &Disk,
    megabytes: u32,
) -> Result<u64> {
    guest.attach(disk, "xvdb")?;
    let report = Job::verified_writes("xvdb", "4k-44k", megabytes)
        .depth(16)
        .run(guest)?;
    let whole = u64::from(megabytes) << 20;
    check::equal(
        "bytes that fio wrote and verified",
        (report.write.io_bytes, report.read.io_bytes),
        (whole, whole),
    )?;
    let sum = |path: &str| {
        format!("dd if={path} bs=1M count={megabytes} iflag=direct status=none | sha256sum")
    };
    let in_guest = guest.ok_within(&sum("/dev/xvdb"), 300)?;
    guest.detach("xvdb")?;
    // tmpfs has no direct I/O, nor a cache of its own to go round.
    let direct = if disk.path.starts_with("/dev/") {
        "iflag=direct"
    } else {
        ""
    };
    let in_dom0 = host.ok_within(&sum(&disk.path).replace("iflag=direct", direct), 300)?;
    check::equal(
        &format!(
            "sha256 of {} in dom0 against /dev/xvdb in the guest",
            disk.path
        ),
        in_dom0,
        in_guest,
    )?;
    Ok(report.read.io_bytes)
}

/// Every fsync of a guest becomes one counted flush.
fn flushes(guest: &Guest<'_, '_>, disk: &Disk, figures: &mut Figures) -> Result<()> {
    let vbd = guest.attach(disk, "xvdb")?;
    check::equal(
        "feature-flush-cache on a disk with a cache",
        vbd.key("feature-flush-cache")?.as_deref(),
        Some("1"),
    )?;
    let before: u64 = vbd.number("statistics/f_req")?;
    let job = Job::random_reads("xvdb", 1)
        .with("--rw=randwrite --time_based=0 --runtime=0 --number_ios=50 --fsync=1");
    let synced = job.run(guest)?.sync.total_ios;
    let flushes = vbd.number::<u64>("statistics/f_req")? - before;
    check::within("fsyncs that fio counted", synced, 49..=51)?;
    check::equal("f_req against fio's own count", flushes, synced)?;
    figures.insert("flushes".into(), flushes.into());
    guest.detach("xvdb")
}
