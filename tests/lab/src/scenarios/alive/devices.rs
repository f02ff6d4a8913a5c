// SPDX-License-Identifier: GPL-2.0

//! Devices that are taken away, changed or mended.

use anyhow::Context;
use anyhow::Result;

use crate::check;
use crate::disk::Disk;
use crate::fio::Job;
use crate::host::Host;
use crate::results::Figures;
use crate::scenarios::memory::held;

/// A disk that has shrunk to nothing reads nothing, which dd takes for its end.
const READ: &str = "[ $(dd if=/dev/xvdb bs=4k count=1 iflag=direct status=none | wc -c) = 4096 ]";

/// A key that is there: one that is not reads `absent`.
const SAYS_SOMETHING: &str = "^[^a]|^a[^b]";

/// A disk is attached whose device is not there. Then it is, and the administrator writes its key
/// once more: a frontend that begins after that has its disk. (One that had begun before has closed for
/// good: Linux's does as soon as it is told that the disk was refused.)
pub fn mended(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    let below = Disk::memory(host, "nb0", 16)?;
    let mut disk = Disk::linear(host, "mended", &below, 16)?;
    disk.attach_by_short_script(host)?;
    let number = disk.physical_device(host)?;
    host.ok("dmsetup remove --noudevsync mended")?;
    let guest = host.guest("mended").own_frontend().start()?;
    guest.offer(&disk, "xvda")?;
    let vbd = guest.vbd("xvda");
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
    vbd.wait_state("2")?;
    held(&guest, 1, true, || Ok(()))?;
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

/// Somebody cuts the file of a guest's disk while it is in use. What was cut off cannot be read, at once; the
/// rest is as it was, and so is all of it when the file has its length again. The disk can be detached.
pub fn file_cut(host: &Host<'_>, _figures: &mut Figures) -> Result<()> {
    const WHOLE: u32 = 16;
    const LEFT: u32 = 8;
    let disk = Disk::looped(host, "cut", WHOLE)?;
    let other = Disk::memory(host, "nb0", WHOLE)?;
    let file = "/run/cut.img";
    let guest = host.guest("cut").start()?;
    let vbd = guest.attach(&disk, "xvdb")?;
    // Above it, where nothing will be cut, and where it will.
    let sum = format!(
        "dd if=/dev/xvdb bs=1M count={} skip={} iflag=direct status=none | sha256sum",
        LEFT / 2,
        LEFT / 2
    );
    guest.ok("dd if=/dev/urandom of=/dev/xvdb bs=1M count=16 oflag=direct status=none")?;
    let before = guest.ok(&sum)?;
    let verify = Job::verified_writes("xvdb", "4k-64k", LEFT / 2)
        .depth(8)
        .repeat(&guest)?;
    vbd.wait_requests(20)?;
    host.ok(&format!("truncate -s {LEFT}M {file}"))?;
    let read = |block: u32| {
        format!("dd if=/dev/xvdb of=/dev/null bs=4k count=1 skip={block} iflag=direct status=none")
    };
    let blocks = |megabytes: u32| megabytes * 256;
    for block in [blocks(LEFT), blocks(LEFT) + 77, blocks(WHOLE) - 1] {
        guest.refused(&read(block))?;
    }
    guest.ok(&read(blocks(LEFT) - 1))?;
    vbd.wait_requests(100)?;
    check::equal("what was not cut", guest.ok(&sum)?, before.clone())?;
    host.ok(&format!("truncate -s {WHOLE}M {file}"))?;
    for block in [blocks(LEFT), blocks(WHOLE) - 1] {
        guest.ok(&read(block))?;
    }
    verify.stop()?;
    check::equal("what was not cut", guest.ok(&sum)?, before)?;
    host.ok(&format!("truncate -s {LEFT}M {file}"))?;
    guest.detach("xvdb")?;
    guest.attach(&other, "xvdb")?;
    guest.ok(READ)?;
    guest.destroy()?;
    other.remove(host)?;
    disk.remove(host)
}

/// A device stands still, as one does whose paths are all gone, and the disk is to be detached. xl gives
/// up; somebody who looks for the reason finds it; when the device goes on, a second detach leaves
/// nothing.
pub fn stands_still(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    let below = Disk::memory(host, "nb0", 16)?;
    let disk = Disk::linear(host, "still", &below, 16)?;
    let guest = host.guest("still").start()?;
    let vbd = guest.attach(&disk, "xvdb")?;
    Job::random_reads("xvdb", 600)
        .depth(8)
        .leave_running(&guest)?;
    vbd.wait_requests(20)?;
    disk.suspend(host)?;
    host.ok(&format!(
        "xl block-detach {} xvdb >/run/detach.log 2>&1; true",
        guest.name
    ))?;
    let error = host.store_wait(&vbd.error_path(), "closing: waits for device")?;
    figures.insert("reported".into(), error.into());
    disk.resume(host)?;
    vbd.wait_state("6|absent")?;
    check::equal("the error node", vbd.error()?, None)?;
    host.ok(&format!(
        "xl block-detach {} xvdb >>/run/detach.log 2>&1; true",
        guest.name
    ))?;
    host.store_wait(&vbd.path("state"), "absent")?;
    host.ok(&format!("lab_gone {} 30", vbd.sysfs()))?;
    disk.remove(host)?;
    guest.destroy()?;
    below.remove(host)
}

/// The logical block size of the device changes between two connections of a frontend: what is told
/// and what is checked is the new one.
pub fn block_size(host: &Host<'_>, _figures: &mut Figures) -> Result<()> {
    let disk = Disk::looped(host, "blocks", 16)?;
    let guest = host
        .guest("blocks")
        .disk(&disk, "xvda")
        .own_frontend()
        .start()?;
    let run = "/frontend run --seed 1 --requests 120 --queues 1 --order 0";
    for size in ["512", "4096", "512"] {
        host.ok(&format!("losetup --sector-size {size} {}", disk.path))?;
        guest.ok(run).with_context(|| format!("blocks of {size}"))?;
        let told = guest.vbd("xvda").key("sector-size")?;
        check::equal("sector-size", told.as_deref(), Some(size))?;
    }
    guest.destroy()?;
    disk.remove(host)
}

/// A device has logical blocks that are larger than a guest can address. It is refused with a text, and
/// served when it has others and is attached again.
pub fn large_blocks(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    let disk = Disk::looped(host, "large", 16)?;
    host.ok(&format!("losetup --sector-size 8192 {}", disk.path))?;
    let number = disk.physical_device(host)?;
    let guest = host.guest("large").start()?;
    guest.offer(&disk, "xvdb")?;
    let vbd = guest.vbd("xvdb");
    let error = host.store_wait(&vbd.error_path(), SAYS_SOMETHING)?;
    check::contains("the error node", &error, &[&number, "8192", "4096"])?;
    figures.insert("refused".into(), error.into());
    guest.detach("xvdb")?;
    host.ok(&format!("losetup --sector-size 4096 {}", disk.path))?;
    let vbd = guest.attach(&disk, "xvdb")?;
    guest.ok(READ)?;
    check::equal("the error node", vbd.error()?, None)?;
    guest.destroy()?;
    disk.remove(host)
}

/// A guest discards a part of a dm-cache device. What is there is undefined afterwards, but only there.
pub fn cached(host: &Host<'_>, _figures: &mut Figures) -> Result<()> {
    let discard = "echo 1 >discard";
    let origin = Disk::memory_with(host, "nba", 32, discard)?;
    let fast = Disk::memory_with(host, "nbb", 8, discard)?;
    let metadata = Disk::memory(host, "nbc", 4)?;
    host.ok(
        "modprobe dm-mod && modprobe dm-cache && modprobe dm-cache-smq && \
         mkdir -p /dev/mapper && dmsetup mknodes control",
    )?;
    let disk = Disk::target(
        host,
        "cached",
        &format!(
            "0 65536 cache {} {} {} 128 1 writeback default 0",
            metadata.path, fast.path, origin.path
        ),
    )?;
    let guest = host.guest("cached").start()?;
    guest.attach(&disk, "xvdb")?;
    Job::verified_writes("xvdb", "4k-64k", 16)
        .depth(8)
        .run(&guest)?;
    let sums = |path: &str| {
        format!(
            "{{ dd if={path} bs=1M count=4 iflag=direct status=none; \
             dd if={path} bs=1M skip=5 count=11 iflag=direct status=none; }} | sha256sum"
        )
    };
    let before = guest.ok(&sums("/dev/xvdb"))?;
    guest.ok("blkdiscard -o 4M -l 1M /dev/xvdb")?;
    check::equal("in the guest", &guest.ok(&sums("/dev/xvdb"))?, &before)?;
    check::equal("in dom0", &host.ok(&sums(&disk.path))?, &before)?;
    Job::verified_writes("xvdb", "4k-64k", 16)
        .depth(8)
        .run(&guest)?;
    guest.destroy()?;
    [disk, origin, fast, metadata]
        .into_iter()
        .try_for_each(|disk| disk.remove(host))
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
