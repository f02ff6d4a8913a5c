// SPDX-License-Identifier: GPL-2.0

use anyhow::Context;
use anyhow::Result;
use serde_json::json;

use crate::check;
use crate::disk::Disk;
use crate::guest::Guest;
use crate::host::Host;
use crate::results::Figures;
use crate::scenarios::alive::crowd::make_keys;
use crate::scenarios::frontend::go_on;
use crate::scenarios::frontend::held;
use crate::scenarios::frontend::more_queues;
use crate::trace::Source;
use crate::trace::Trace;
use crate::vbd;

/// In a run of everything, at length, and on the debug kernel.
const DISKS: [u64; 3] = [12, 100, 12];
const QUEUES: u64 = 4;
const ORDER: u32 = 4;
/// Reads of the largest size in each ring: one more than the requests of a ring may have frames for, if its disk
/// has all that it can use.
const READS: u64 = 9;
/// Frames of such a read, which each ring has in any case, and the pages of the ring.
const FRAMES: u64 = 256;
const PAGES: u64 = 1 << ORDER;
/// Fewer than the rings of the disks of a run of everything have in any case.
const FEW: u64 = 8192;

/// What Documentation/parity.rst says that a ring, a disk that copies, and a read of the largest size cost, in bytes.
const RING: u64 = 256 << 10;
const COPIES: u64 = 2 << 20;
const READ: u64 = 32 << 10;

/// A guest has a hundred disks with four of the largest rings each, and asks all of them for more than it may. All
/// are served, with as many frames at a time as the guest may have or each ring needs, and dom0's memory stays
/// within what is documented.
pub fn full(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    let [quick, full, debug] = DISKS;
    let disks = host.lab.repeats(quick, full, debug);
    let rings = disks * QUEUES;
    let parameter = "/sys/module/rblkback/parameters/max_guest_frames";
    let usual = host.ok(&format!("cat {parameter}"))?;
    if disks < full {
        host.ok(&format!("echo {FEW} >{parameter}"))?;
    }
    let budget: u64 = host.ok(&format!("cat {parameter}"))?.parse()?;
    more_queues(host, host.lab.backend)?;
    let below = Disk::blank(host, "nb0", 64)?;
    let mut disk = Disk::linear(host, "held", &below, 64)?;
    disk.attach_by_short_script(host)?;
    let guest = host.guest("full").memory(256).own_frontend().start()?;
    let numbers = attach(host, &guest, &disk, disks as u32)?;
    let before = host.memory()?;
    let (mut idle, mut busy, mut sent) = (0, 0, 0);
    let crowd = format!(
        "crowd --large --queues {QUEUES} --order {ORDER} --each {READS} --held --disks {}",
        numbers.join(",")
    );
    held(&guest, &crowd, || {
        idle = host.memory()?.saturating_sub(before);
        disk.suspend(host)?;
        let trace = Trace::start(host, &[Source::bios(disk.dev_t(host)?)])?;
        go_on(&guest)?;
        host.ok_within("lab_settled 300", 600)?;
        sent = trace.stop()?.len() as u64;
        busy = host.memory()?.saturating_sub(before);
        disk.resume(host)
    })?;
    figures.insert("disks".into(), disks.into());
    figures.insert(
        "bytes of dom0's memory".into(),
        json!({"idle": idle, "each ring, idle": idle / rings, "busy": busy}),
    );
    figures.insert("reads under way at once".into(), sent.into());
    check::within("reads under way at once", sent, rings..=rings * READS - 1)?;
    let in_any_case = rings * (FRAMES + PAGES);
    let frames = sent * FRAMES + rings * PAGES;
    check::within("frames in use at once", frames, 0..=budget + in_any_case)?;
    check::within("bytes of idle rings", idle, 0..=rings * RING)?;
    let most = rings * RING + disks * COPIES + sent * READ;
    check::within("bytes of full rings", busy, 0..=most)?;
    guest.destroy()?;
    disk.remove(host)?;
    below.remove(host)?;
    host.ok(&format!("echo {usual} >{parameter}")).map(drop)
}

/// Gives a guest so many disks; says their numbers.
fn attach(host: &Host<'_>, guest: &Guest<'_, '_>, disk: &Disk, disks: u32) -> Result<Vec<String>> {
    let mut numbers = Vec::new();
    for name in (0..disks).map(vbd::name) {
        guest.offer(disk, &name).context(name.clone())?;
        let vdev = guest.vbd(&name).vdev;
        make_keys(host, guest.domid(), vdev, (QUEUES as u32, ORDER))?;
        numbers.push(vdev.to_string());
    }
    Ok(numbers)
}
