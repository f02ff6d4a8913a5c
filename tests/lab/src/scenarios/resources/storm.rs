// SPDX-License-Identifier: GPL-2.0

use anyhow::Result;
use serde_json::json;

use super::layouts;
use crate::check;
use crate::disk::Disk;
use crate::host::Host;
use crate::results::Figures;
use crate::scenarios::cycles::mapped_grants;
use crate::scenarios::frontend;
use crate::scenarios::frontend::all_held;
use crate::scenarios::frontend::more_queues;
use crate::scenarios::frontend::total;
use crate::scenarios::hostile::with_neighbour;
use crate::vbd::Vbd;

/// Seconds of the guest's clock in each way to connect: in a run of everything, and at length.
const SECONDS: [u64; 3] = [3, 10, 3];
const REBINDS: [u64; 3] = [3, 30, 5];
/// Milliseconds of dom0's clock that a command of an administrator may take meanwhile.
const AT_MOST: u64 = 1000;

/// What dom0's kernel counts for a disk's event channels.
struct Events {
    seen: u64,
    spurious: u64,
    /// Jiffies for which events were held back.
    delayed: u64,
}

impl Events {
    fn of(vbd: &Vbd<'_, '_>) -> Result<Self> {
        Ok(Events {
            seen: vbd.number("xenbus/events")?,
            spurious: vbd.number("xenbus/spurious_events")?,
            delayed: vbd.number("xenbus/jiffies_eoi_delayed")?,
        })
    }
}

/// A guest sends events for nothing as fast as it can, on one queue and on four. Nearly all are held back, dom0
/// counts those that are not, and is as quick as ever.
pub fn storm(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    more_queues(host, host.lab.backend)?;
    let disk = Disk::memory(host, "nb0", 64)?;
    let guest = host
        .guest("storm")
        .disk(&disk, "xvda")
        .own_frontend()
        .start()?;
    let vbd = guest.vbd("xvda");
    let [quick, full, debug] = SECONDS;
    let seconds = host.lab.repeats(quick, full, debug);
    for queues in [1, 4] {
        let before = Events::of(&vbd)?;
        let only = layouts(host.lab.at_length);
        let running = frontend::start(
            &guest,
            &format!("storm --seconds {seconds} --queues {queues} {only}"),
        )?;
        more(host, &vbd, "spurious_events")?;
        let took = host.timed("xl list")?;
        // It did not end before that command.
        more(host, &vbd, "spurious_events")?;
        let lines = running.finish()?;
        all_held(&lines)?;
        let (sent, after) = (total(&lines, "events"), Events::of(&vbd)?);
        let seen = after.seen - before.seen;
        let spurious = after.spurious - before.spurious;
        let delayed = after.delayed - before.delayed;
        figures.insert(
            format!("events on {queues} queues"),
            json!({"sent": sent, "seen": seen, "for nothing": spurious, "jiffies held": delayed, "xl list, ms": took}),
        );
        check::within("events that reached dom0", seen, 1..=sent / 20)?;
        check::within("of those for nothing", spurious, seen / 2..=seen)?;
        check::within("jiffies that events were held back", delayed, 1..=u64::MAX)?;
        check::within("milliseconds of `xl list`", took, 0..=AT_MOST)?;
    }
    guest.destroy()?;
    disk.remove(host)
}

/// Waits until dom0 has counted one more.
fn more(host: &Host<'_>, vbd: &Vbd<'_, '_>, counter: &str) -> Result<()> {
    let file = format!("{}/xenbus/{counter}", vbd.sysfs());
    host.ok(&format!(
        "before=$(cat {file}) && lab_until 30 '[ $(cat {file}) -gt '$before' ]'"
    ))
    .map(drop)
}

/// A guest closes the channel of each of its queues and makes another one to the backend's end, over and over,
/// with storms in between; it closes the last one for good, and the disk closes. Its neighbour verifies.
pub fn channels(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    more_queues(host, host.lab.backend)?;
    let (disk, neighbours) = (
        Disk::memory(host, "nb0", 64)?,
        Disk::memory(host, "nb1", 64)?,
    );
    let [quick, full, debug] = REBINDS;
    let rebinds = host.lab.repeats(quick, full, debug);
    let mapped = mapped_grants(host)?;
    with_neighbour(host, &neighbours, || {
        let guest = host
            .guest("channels")
            .disk(&disk, "xvda")
            .own_frontend()
            .start()?;
        let lines = frontend::frontend(&guest, &format!("storm --seconds 0 --rebinds {rebinds}"))?;
        all_held(&lines)?;
        let (ways, sent) = (lines.len(), total(&lines, "events"));
        figures.insert("ways to connect".into(), ways.into());
        figures.insert("channels bound again in each queue".into(), rebinds.into());
        figures.insert("events".into(), sent.into());
        check::equal("the error node", guest.vbd("xvda").error()?, None)?;
        guest.destroy()
    })?;
    host.ok(&format!("lab_grants_are {mapped} 60"))?;
    neighbours.remove(host)?;
    disk.remove(host)
}
