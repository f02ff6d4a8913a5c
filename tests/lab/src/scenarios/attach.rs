// SPDX-License-Identifier: GPL-2.0

use anyhow::Context;
use anyhow::Result;

use crate::check;
use crate::disk::Disk;
use crate::fio::Job;
use crate::host::Host;
use crate::lab::Backend;
use crate::results::Figures;
use crate::vbd::Vbd;

const MEGABYTES: u32 = 64;
const SECTORS: &str = "131072";

/// A guest is created on a disk: handshake, keys, sysfs, and statistics that count what fio did.
pub fn attach(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    let disk = Disk::memory(host, "nb0", MEGABYTES)?;
    let number = disk.physical_device(host)?;
    // What dom0 has in its page cache must not be what the guest reads.
    host.ok("dd if=/dev/nb0 of=/dev/null bs=4k count=1 status=none")?;
    let guest = host.guest("attach").disk(&disk, "xvda").start()?;
    guest.wait_disk("xvda")?;
    let vbd = guest.vbd("xvda");

    check::that(!host.loaded(Backend::Blkback)?, || {
        "xen-blkback is loaded".into()
    })?;
    let driver = host.ok(&format!("basename $(readlink {}/driver)", vbd.sysfs()))?;
    check::equal("the driver of the disk", driver.as_str(), "rblkback")?;
    handshake(&vbd)?;
    let front = format!("/local/domain/{}/device/vbd/{}", vbd.domid, vbd.vdev);
    check::equal(
        "the frontend's state",
        host.store_read(&format!("{front}/state"))?.as_deref(),
        Some("4"),
    )?;
    check::equal("the error node", vbd.error()?, None)?;
    let size = guest.ok("blockdev --getsize64 /dev/xvda")?;
    check::equal(
        "the disk's size in the guest",
        size,
        (u64::from(MEGABYTES) << 20).to_string(),
    )?;

    check::equal("physical_device", vbd.text("physical_device")?, number)?;
    check::equal("mode", vbd.text("mode")?.as_str(), "w")?;
    check::equal("qos/state", vbd.state()?.as_str(), "unlimited")?;
    statistics(&guest, &vbd, figures)?;

    guest.destroy()?;
    host.store_wait(&vbd.path("state"), "absent")?;
    host.ok(&format!("lab_gone {} 10", vbd.sysfs()))
        .context("after xl destroy")?;
    disk.remove(host)
}

fn handshake(vbd: &Vbd<'_, '_>) -> Result<()> {
    let written = [
        ("state", "4"),
        ("sectors", SECTORS),
        ("sector-size", "512"),
        ("physical-sector-size", "512"),
        ("info", "0"),
    ];
    for (key, value) in written {
        check::equal(key, vbd.key(key)?.as_deref(), Some(value))?;
    }
    // Whether the device has a cache to flush; a null_blk without one says 0.
    check::that(vbd.key("feature-flush-cache")?.is_some(), || {
        "feature-flush-cache is not written".into()
    })
}

/// Each of fio's requests is one request on the ring: the counters must agree exactly.
fn statistics(
    guest: &crate::guest::Guest<'_, '_>,
    vbd: &Vbd<'_, '_>,
    figures: &mut Figures,
) -> Result<()> {
    let count = |name: &str| vbd.number::<u64>(&format!("statistics/{name}"));
    let names = [
        "rd_req", "rd_sect", "wr_req", "wr_sect", "f_req", "ds_req", "oo_req",
    ];
    let before = names.map(count).into_iter().collect::<Result<Vec<_>>>()?;
    let rw = Job::random_reads("xvda", 1)
        .with("--rw=randrw --time_based=0 --runtime=0 --number_ios=600")
        .depth(8)
        .run(guest)?;
    let after = names.map(count).into_iter().collect::<Result<Vec<_>>>()?;
    let grown: Vec<u64> = after.iter().zip(&before).map(|(a, b)| a - b).collect();
    let (reads, writes) = (rw.read.total_ios, rw.write.total_ios);
    check::within("fio's own count of reads", reads, 100..=500)?;
    check::within("fio's own count of writes", writes, 100..=500)?;
    check::equal(
        "rd_req rd_sect wr_req wr_sect f_req ds_req oo_req",
        grown,
        vec![reads, reads * 8, writes, writes * 8, 0, 0, 0],
    )?;
    figures.insert("reads".into(), reads.into());
    figures.insert("writes".into(), writes.into());
    Ok(())
}
