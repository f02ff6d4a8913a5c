// SPDX-License-Identifier: GPL-2.0

use anyhow::Result;

use crate::check;
use crate::disk::Disk;
use crate::fio::Job;
use crate::host::Host;
use crate::results::Figures;

const EVENTS: u64 = 20_000;

/// A guest that sends events for nothing is slowed down by dom0's kernel, which the backend tells
/// of each; a guest that has something to say each time is not.
pub fn events(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    let disk = Disk::memory(host, "nb0", 64)?;
    let busy = host.guest("busy").disk(&disk, "xvda").start()?;
    busy.wait_disk("xvda")?;
    let vbd = busy.vbd("xvda");
    Job::random_reads("xvda", 1).run(&busy)?;
    let (events, spurious) = (
        vbd.number::<u64>("xenbus/events")?,
        vbd.number::<u64>("xenbus/spurious_events")?,
    );
    figures.insert("events of a busy guest".into(), events.into());
    figures.insert("of those for nothing".into(), spurious.into());
    check::within("events of a busy guest", events, 100..=u64::MAX)?;
    check::within("of those for nothing", spurious, 0..=events / 20)?;
    busy.destroy()?;

    let idle = host
        .guest("storm")
        .disk(&disk, "xvda")
        .own_frontend()
        .start()?;
    let vbd = idle.vbd("xvda");
    let took = host.ok("lab_now; echo $NOW")?.parse::<u64>()?;
    idle.ok(&format!("/frontend hold --events {EVENTS} </dev/null"))?;
    let took = host.ok("lab_now; echo $NOW")?.parse::<u64>()? - took;
    let seen = vbd.number::<u64>("xenbus/events")?;
    let spurious = vbd.number::<u64>("xenbus/spurious_events")?;
    let delayed = vbd.number::<u64>("xenbus/jiffies_eoi_delayed")?;
    for (name, value) in [
        ("events of a storm", EVENTS),
        ("of those let through", seen),
        ("of those for nothing", spurious),
        ("jiffies they were held", delayed),
        ("hundredths of a second that the storm took", took),
    ] {
        figures.insert(name.into(), value.into());
    }
    check::within("events let through", seen, 1..=EVENTS / 20)?;
    check::within("events for nothing", spurious, seen / 2..=seen)?;
    check::within("jiffies that events were held", delayed, 1..=u64::MAX)?;
    idle.destroy()?;
    disk.remove(host)
}
