// SPDX-License-Identifier: GPL-2.0

//! What dom0's kernel log says of disks that connect, or cannot.

use anyhow::Context;
use anyhow::Result;

use crate::check;
use crate::disk::Disk;
use crate::host::Host;
use crate::results::Figures;
use crate::vbd::Vbd;

const MEGABYTES: u32 = 16;
/// Lines of a guest that may come at once, and in a second.
const BURST: usize = 32;
const A_SECOND: f64 = 4.0;
/// Connections of a guest that does nothing else.
const CONNECTIONS: usize = 96;
const AT_ONCE: usize = 24;

/// A disk that connects has one line: the driver, the disk, and how it is served. One that cannot has one
/// as well, with the reason.
pub fn one_each(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    let guest = host.guest("logged").start()?;
    for (vdev, keys, limit) in [
        (
            "xvdb",
            "xenstore-write $XENBUS_PATH/tokens-refill 500 $XENBUS_PATH/tokens-max 1000",
            "limit 500/s (max 1000)",
        ),
        ("xvdc", "true", "no limit"),
    ] {
        let mut disk = Disk::memory(host, vdev, MEGABYTES)?;
        disk.attach_by_script(host, keys)?;
        let vbd = guest.attach(&disk, vdev)?;
        let lines = lines(host, &vbd)?;
        check::equal("lines of a disk that connected", lines.len(), 1)?;
        // One processor has one queue, and blkfront's rings are of one page unless it is told otherwise.
        let expected = [
            "rblkback",
            "connected",
            "queues 1",
            "ring pages 1",
            "persistent",
            limit,
        ];
        check::contains("the line", &lines[0], &expected)?;
        figures.insert(format!("line of {vdev}"), lines[0].clone().into());
        guest.detach(vdev)?;
        host.ok(&format!("lab_gone {} 30", vbd.sysfs()))?;
        disk.remove(host)?;
    }
    // xl attaches a disk whose device has gone; only the driver can say what is wrong.
    let mut gone = Disk::memory(host, "nbd", MEGABYTES)?;
    gone.attach_by_short_script(host)?;
    let (number, line) = (gone.physical_device(host)?, gone.xl("xvdd"));
    gone.remove(host)?;
    host.ok(&format!("xl block-attach {} '{line}'", guest.name))?;
    let vbd = guest.vbd("xvdd");
    host.store_wait(&vbd.error_path(), &number)?;
    let lines = lines(host, &vbd)?;
    check::equal("lines of a disk that cannot connect", lines.len(), 1)?;
    check::contains("the line", &lines[0], &["rblkback", &number])?;
    figures.insert("line of xvdd".into(), lines[0].clone().into());
    guest.destroy()
}

/// A frontend connects and closes for as long as it likes. It has its first lines, and then so many a
/// second, by the log's own time stamps.
pub fn bounded(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    let disk = Disk::memory(host, "nb0", MEGABYTES)?;
    let guest = host
        .guest("endless")
        .disk(&disk, "xvda")
        .own_frontend()
        .start()?;
    for _ in 0..CONNECTIONS / AT_ONCE {
        guest.ok_within(&format!("/frontend reconnect --times {AT_ONCE}"), 300)?;
    }
    let stamps = lines(host, &guest.vbd("xvda"))?
        .iter()
        .map(|line| stamp(line))
        .collect::<Result<Vec<f64>>>()?;
    figures.insert("connections".into(), CONNECTIONS.into());
    figures.insert("lines".into(), stamps.len().into());
    let (first, last) = stamps.first().zip(stamps.last()).context("no line")?;
    figures.insert(
        "seconds from the first to the last".into(),
        (last - first).into(),
    );
    let most = BURST + (A_SECOND * (last - first)) as usize + 1;
    check::within("lines", stamps.len(), BURST..=most)?;
    // Otherwise nothing was held back.
    check::within(
        "lines of so many connections",
        stamps.len(),
        0..=CONNECTIONS - 1,
    )?;
    guest.destroy()?;
    disk.remove(host)
}

/// The lines that name the disk, by its directory or as a device.
fn lines(host: &Host<'_>, vbd: &Vbd<'_, '_>) -> Result<Vec<String>> {
    let text = host.ok("dmesg")?;
    let dir = format!("backend/vbd/{}/{}:", vbd.domid, vbd.vdev);
    let device = format!("{}:", vbd.device());
    let named = text
        .lines()
        .filter(|line| line.contains(&dir) || line.contains(&device));
    Ok(named.map(String::from).collect())
}

/// Seconds of the host's clock at the beginning of a line: `[  12.345678] ...`.
fn stamp(line: &str) -> Result<f64> {
    let inner = line.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    let (seconds, _) = inner.with_context(|| format!("no time: {line}"))?;
    Ok(seconds.trim().parse()?)
}
