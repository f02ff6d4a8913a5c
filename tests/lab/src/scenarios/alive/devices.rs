// SPDX-License-Identifier: GPL-2.0

//! Devices that are taken away, changed or mended.

use anyhow::Context;
use anyhow::Result;

use crate::check;
use crate::disk::Disk;
use crate::fio::Job;
use crate::host::Host;
use crate::results::Figures;

const READ: &str = "dd if=/dev/xvdb of=/dev/null bs=4k count=1 iflag=direct status=none";

/// A key that is there: one that is not reads `absent`.
const SAYS_SOMETHING: &str = "^[^a]|^a[^b]";

/// A disk is attached whose device is not there. Then it is, and the administrator writes its key
/// once more: the guest has its disk.
pub fn mended(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    let below = Disk::memory(host, "nb0", 16)?;
    let mut disk = Disk::linear(host, "mended", &below, 16)?;
    disk.attach_by_short_script(host)?;
    let number = disk.physical_device(host)?;
    host.ok("dmsetup remove --noudevsync mended")?;
    let guest = host.guest("mended").start()?;
    guest.offer(&disk, "xvdb")?;
    let vbd = guest.vbd("xvdb");
    let error = host
        .store_wait(&vbd.error_path(), SAYS_SOMETHING)
        .context("a device that cannot be opened")?;
    check::contains("the error node", &error, &["physical-device", &number])?;
    figures.insert("refused".into(), error.into());
    let again = Disk::linear(host, "mended", &below, 16)?;
    check::equal(
        "the device's number",
        again.physical_device(host)?,
        number.clone(),
    )?;
    vbd.write(&[("physical-device", number.as_str())])?;
    guest.wait_disk("xvdb")?;
    guest.ok(READ)?;
    check::equal("the error node", vbd.error()?, None)?;
    guest.destroy()?;
    again.remove(host)?;
    below.remove(host)
}

/// A SCSI disk is deleted, as when somebody pulls it. The guest's reads fail, whoever looks for the
/// reason finds it, and the disk can be detached and another one attached in its place.
pub fn deleted(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    let disk = Disk::flushed(host)?;
    let other = Disk::memory(host, "nb0", 16)?;
    let guest = host.guest("deleted").start()?;
    let vbd = guest.attach(&disk, "xvdb")?;
    Job::random_reads("xvdb", 600)
        .depth(8)
        .with("--rate_iops=200")
        .leave_running(&guest)?;
    vbd.wait_requests(20)?;
    let name = disk.path.trim_start_matches("/dev/");
    host.ok(&format!("echo 1 >/sys/block/{name}/device/delete"))?;
    // fio ends with the first error.
    guest.ok("wait; true")?;
    guest.refused(READ)?;
    let error = host
        .store_wait(&vbd.error_path(), SAYS_SOMETHING)
        .context("the device is gone, and nobody says so")?;
    figures.insert("reported".into(), error.into());
    guest.detach("xvdb")?;
    guest.attach(&other, "xvdb")?;
    guest.ok(READ)?;
    guest.destroy()?;
    other.remove(host)?;
    disk.remove(host)
}

/// What a guest may write where on a zoned device, no block frontend can tell it.
pub fn zoned(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    let zones = "echo 1 >zoned && echo 4 >zone_size && echo 0 >zone_nr_conv";
    let disk = Disk::memory_with(host, "nb0", 64, zones)?;
    let guest = host.guest("zoned").start()?;
    guest.offer(&disk, "xvdb")?;
    let vbd = guest.vbd("xvdb");
    let error = host.store_wait(&vbd.error_path(), SAYS_SOMETHING)?;
    check::contains("the error node", &error, &["zone"])?;
    figures.insert("refused".into(), error.into());
    guest.destroy()?;
    disk.remove(host)
}
