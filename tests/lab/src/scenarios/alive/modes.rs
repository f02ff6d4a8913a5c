// SPDX-License-Identifier: GPL-2.0

//! The keys `mode` and `online` as other toolstacks than xl write them.

use anyhow::Context;
use anyhow::Result;

use crate::check;
use crate::disk::Disk;
use crate::guest::Guest;
use crate::host::Host;
use crate::results::Figures;

const WRITE: &str = "dd if=/dev/zero of=/dev/xvdb bs=4k count=1 oflag=direct status=none";
const READ: &str = "dd if=/dev/xvdb of=/dev/null bs=4k count=1 iflag=direct status=none";

/// What a toolstack does to the keys before the device is named, and whether the guest may write.
/// Of a mode only the `w` counts; `!` says not to look for other users.
const CASES: &[(&str, bool)] = &[
    ("xenstore-write $XENBUS_PATH/mode rw", true),
    ("xenstore-write $XENBUS_PATH/mode ro", false),
    ("xenstore-write $XENBUS_PATH/mode w!", true),
    ("xenstore-write $XENBUS_PATH/mode !w", true),
    ("xenstore-write $XENBUS_PATH/mode r!", false),
    ("xenstore-rm $XENBUS_PATH/online", true),
    ("xenstore-rm $XENBUS_PATH/device-type", true),
];

pub fn modes(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    let mut disk = Disk::memory(host, "nb0", 16)?;
    let guest = host.guest("modes").start()?;
    let failed: Vec<String> = CASES
        .iter()
        .filter_map(|(before, writable)| {
            disk.attach_by_script(host, before)
                .and_then(|()| one(host, &guest, &disk, *writable))
                .err()
                .map(|error| format!("{before}: {error:#}"))
        })
        .collect();
    check::equal("cases that went wrong", failed, Vec::<String>::new())?;
    figures.insert("cases".into(), CASES.len().into());
    guest.destroy()?;
    disk.remove(host)
}

fn one(host: &Host<'_>, guest: &Guest<'_, '_>, disk: &Disk, writable: bool) -> Result<()> {
    let vbd = guest.vbd("xvdb");
    // What was said of the disk before is not the question here.
    host.run(&format!("xenstore-rm {}", vbd.error_path()))?;
    guest.offer(disk, "xvdb")?;
    let connected = vbd.wait_state("4|5|6").and_then(|()| {
        check::equal("the state", vbd.key("state")?.as_deref(), Some("4"))?;
        check::equal("the error node", vbd.error()?, None)?;
        guest.wait_disk("xvdb")?;
        guest.ok(READ)?;
        if writable {
            guest.ok(WRITE).map(drop)
        } else {
            guest.refused(WRITE).map(drop)
        }
    });
    // The next one needs the name, whatever came of this one.
    host.run(&format!(
        "xenstore-write {} 0; xl block-detach {} xvdb || xl block-detach {1} xvdb",
        vbd.path("online"),
        guest.name
    ))?;
    host.ok(&format!("lab_gone {} 30", vbd.sysfs()))
        .context("the disk after its end")?;
    connected
}

/// A guest gives its disk back by itself. Without the key `online` nobody is taken to want the disk any
/// more: it leaves the bus, and its device is free. With the key it stays for a guest that comes back.
pub fn closed_by_guest(host: &Host<'_>, _figures: &mut Figures) -> Result<()> {
    for (online, stays) in [("xenstore-rm $XENBUS_PATH/online", false), ("true", true)] {
        let mut disk = Disk::memory(host, "nb0", 16)?;
        disk.attach_by_script(host, online)?;
        let guest = host.guest("closes").start()?;
        let vbd = guest.attach(&disk, "xvdb")?;
        guest.ok(READ)?;
        guest.ok(&format!(
            "echo vbd-{} >/sys/bus/xen/drivers/vbd/unbind",
            vbd.vdev
        ))?;
        vbd.wait_state("6").context(online)?;
        if stays {
            host.ok(&format!("[ -e {} ]", vbd.sysfs()))?;
        } else {
            host.ok(&format!("lab_gone {} 30", vbd.sysfs()))?;
        }
        // While the guest lives on.
        disk.remove(host)?;
        guest.destroy()?;
    }
    Ok(())
}

/// Nobody who writes a mode while the disk is in use is left to think that it did something.
pub fn changed(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    let disk = Disk::memory(host, "nb0", 16)?;
    let guest = host.guest("modes").start()?;
    let vbd = guest.attach(&disk, "xvdb")?;
    vbd.write(&[("mode", "r")])?;
    let error = host.store_wait(&vbd.error_path(), "mode")?;
    figures.insert("refused".into(), error.into());
    guest.ok(WRITE)?;
    check::equal("the state", vbd.key("state")?.as_deref(), Some("4"))?;
    guest.destroy()?;
    disk.remove(host)
}
