// SPDX-License-Identifier: GPL-2.0

use anyhow::Context;
use anyhow::Result;

use crate::check;
use crate::disk::Disk;
use crate::fio::Job;
use crate::guest::Guest;
use crate::host::Host;
use crate::results::Figures;

const DIRECTORY: &str = "/sys/module/rblkback/parameters";
/// With `KEPT` grants that may stay mapped a disk of one queue could use 18,433 frames. Two find as
/// many, or nearly so; the third one finds the 260 that are set aside for each disk.
const FRAMES: u32 = 50_000;
const KEPT: u32 = 16_384;
const MEGABYTES: u32 = 16;

/// A disk for which not all frames are left that it could use gets fewer and works, also one for
/// which none is left.
pub fn budget(host: &Host<'_>, _figures: &mut Figures) -> Result<()> {
    let kept = set(host, "max_persistent_grants", KEPT)?;
    let frames = set(host, "max_guest_frames", FRAMES)?;
    let guest = host.guest("budget").start()?;
    let mut disks = Vec::new();
    for (name, vdev) in [("nb0", "xvdb"), ("nb1", "xvdc"), ("nb2", "xvdd")] {
        let disk = Disk::memory(host, name, MEGABYTES)?;
        guest.attach(&disk, vdev)?;
        disks.push(disk);
    }
    works(&guest, "xvdd")?;

    set(host, "max_guest_frames", 1024)?;
    let late = Disk::memory(host, "nb3", MEGABYTES)?;
    guest.attach(&late, "xvde")?;
    works(&guest, "xvde")?;
    works(&guest, "xvdd")?;

    guest.destroy()?;
    disks.push(late);
    disks.into_iter().try_for_each(|disk| disk.remove(host))?;
    set(host, "max_guest_frames", frames)?;
    set(host, "max_persistent_grants", kept).map(drop)
}

/// Sets a parameter; says what it was.
fn set(host: &Host<'_>, parameter: &str, value: u32) -> Result<u32> {
    let file = format!("{DIRECTORY}/{parameter}");
    let before = host.ok(&format!("cat {file} && echo {value} >{file}"))?;
    before.trim().parse().context(before)
}

/// More at a time than 260 frames are enough for.
fn works(guest: &Guest<'_, '_>, vdev: &str) -> Result<()> {
    let report = Job::verified_writes(vdev, "4k-128k", MEGABYTES)
        .depth(32)
        .run(guest)
        .context(vdev.to_owned())?;
    let whole = u64::from(MEGABYTES) << 20;
    check::equal(
        &format!("bytes that were verified on {vdev}"),
        (report.write.io_bytes, report.read.io_bytes),
        (whole, whole),
    )
}
