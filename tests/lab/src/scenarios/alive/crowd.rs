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
        make_keys(host, guest.domid(), vdev, (QUEUES, 0))?;
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

/// Makes the keys of a disk's queues, with rings of `order`, in dom0's name: xenstored lets a guest have 1000
/// of its own, unless it is told otherwise, and these alone are more.
pub(in crate::scenarios) fn make_keys(
    host: &Host<'_>,
    domid: u32,
    vdev: u32,
    (queues, order): (u32, u32),
) -> Result<()> {
    let dir = format!("/local/domain/{domid}/device/vbd/{vdev}");
    let mut keys = String::new();
    let mut owners = String::new();
    let mut add = |name: &str, inner: &[String]| {
        let (node, own) = (format!("{dir}/{name}"), String::new());
        let nodes = inner.iter().map(|key| format!("{node}/{key}"));
        let nodes: Vec<String> = match inner {
            [] => vec![node.clone()],
            _ => nodes.collect(),
        };
        keys += &nodes
            .iter()
            .fold(own, |text, key| text + &format!(" {key} 0"));
        owners += &format!(" && xenstore-chmod -r {node} n0 b{domid}");
    };
    let mut inner = vec!["event-channel".to_string()];
    match order {
        0 => inner.push("ring-ref".into()),
        _ => inner.extend((0..1 << order).map(|page| format!("ring-ref{page}"))),
    }
    for queue in 0..queues {
        add(&format!("queue-{queue}"), &inner);
    }
    if order > 0 {
        for key in ["protocol", "ring-page-order", "multi-queue-num-queues"] {
            add(key, &[]);
        }
    }
    host.ok(&format!("xenstore-write{keys}{owners}")).map(drop)
}
