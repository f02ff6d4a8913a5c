// SPDX-License-Identifier: GPL-2.0

use anyhow::Context;
use anyhow::Result;

use crate::check;
use crate::disk::Disk;
use crate::host::Host;
use crate::results::Figures;
use crate::vbd;

const DISKS: u32 = 64;
const QUEUES: u32 = 8;

/// Disks of which each ring is to have the frames of a request of the largest size, and the page of the ring.
const FEW: u32 = 8;
const LEAST: u32 = FEW * QUEUES * (256 + 1);

/// One guest has as many disks as large guests have, with a ring for each of eight processors. All
/// connect and answer in each ring, however few frames there are for each.
pub fn crowd(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    let disk = Disk::memory(host, "nb0", 16)?;
    all_answer(host, disk, DISKS, "")?;
    figures.insert("disks".into(), DISKS.into());
    Ok(())
}

/// A guest may use just as many frames as its disks need at least, one fewer, one more, or not nearly as many:
/// each disk connects, and each ring answers a request of the largest size while all others have one, too.
pub fn frames(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    let bound = "/sys/module/rblkback/parameters/max_guest_frames";
    let usual = host.ok(&format!("cat {bound}"))?;
    for frames in [LEAST + 1, LEAST, LEAST - 1, 1024] {
        host.ok(&format!("echo {frames} >{bound}"))?;
        let disk = Disk::memory(host, "nb0", 16)?;
        all_answer(host, disk, FEW, "--large").with_context(|| format!("{frames} frames"))?;
    }
    figures.insert("frames that the disks need at least".into(), LEAST.into());
    host.ok(&format!("echo {usual} >{bound}")).map(drop)
}

/// A guest's `disks` disks connect, and each of their rings answers a read.
fn all_answer(host: &Host<'_>, mut disk: Disk, disks: u32, option: &str) -> Result<()> {
    disk.attach_by_short_script(host)?;
    host.ok(&format!(
        "echo {QUEUES} >/sys/module/{}/parameters/max_queues",
        host.lab.backend.module()
    ))?;
    let guest = host.guest("crowd").own_frontend().start()?;
    let names: Vec<String> = (0..disks).map(vbd::name).collect();
    let mut numbers = Vec::new();
    for name in &names {
        guest.offer(&disk, name)?;
        let vdev = guest.vbd(name).vdev;
        make_keys(host, guest.domid(), vdev)?;
        numbers.push(vdev.to_string());
    }
    let said = guest.ok_within(
        &format!(
            "/frontend crowd --queues {QUEUES} --disks {} {option}",
            numbers.join(",")
        ),
        540,
    );
    let errors = || {
        let errors = names.iter().filter_map(|name| {
            let text = guest.vbd(name).error().ok().flatten()?;
            Some(format!("{name}: {text}"))
        });
        errors.collect::<Vec<_>>().join("\n")
    };
    let said = said.with_context(errors)?;
    check::contains(
        "the frontend",
        &said,
        &[&format!("\"answers\":{}", disks * QUEUES)],
    )?;
    check::equal("what was said of the disks", errors().as_str(), "")?;
    guest.destroy()?;
    disk.remove(host)
}

/// Makes the keys of a disk's queues in dom0's name: xenstored lets a guest have 1000 of its own,
/// unless it is told otherwise, and these alone are 1536.
fn make_keys(host: &Host<'_>, domid: u32, vdev: u32) -> Result<()> {
    let queue = |n| format!("/local/domain/{domid}/device/vbd/{vdev}/queue-{n}");
    let keys: Vec<String> = (0..QUEUES)
        .map(|n| format!("{0}/ring-ref 0 {0}/event-channel 0", queue(n)))
        .collect();
    let owners: Vec<String> = (0..QUEUES)
        .map(|n| format!("xenstore-chmod -r {} n0 b{domid}", queue(n)))
        .collect();
    host.ok(&format!(
        "xenstore-write {} && {}",
        keys.join(" "),
        owners.join(" && ")
    ))
    .map(drop)
}
