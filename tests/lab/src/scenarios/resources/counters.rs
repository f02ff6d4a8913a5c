// SPDX-License-Identifier: GPL-2.0

use anyhow::Result;
use serde_json::Value;

use crate::check;
use crate::disk::Disk;
use crate::host::Host;
use crate::results::Figures;
use crate::scenarios::frontend::held;
use crate::scenarios::frontend::more_queues;
use crate::vbd::Vbd;

/// In a run of everything, at length, and on the debug kernel.
const RECONNECTS: [u64; 3] = [24, 240, 24];
const BINDS: [u64; 3] = [5, 40, 5];

/// An administrator's tools read all that sysfs says of a disk, over and over, while its frontend reconnects with
/// requests in flight, then while it is unbound and bound again: nothing complains, and no counter goes down as
/// long as the driver is bound.
pub fn counters(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    more_queues(host, host.lab.backend)?;
    let disk = Disk::memory(host, "nb0", 64)?;
    let guest = host
        .guest("counted")
        .disk(&disk, "xvda")
        .own_frontend()
        .start()?;
    let vbd = guest.vbd("xvda");
    vbd.limit(1_000_000, 1_000_000)?;
    let [quick, full, debug] = RECONNECTS;
    let times = host.lab.repeats(quick, full, debug);
    let (rounds, anew) = read_meanwhile(host, &vbd, || {
        guest
            .ok_within(&format!("/frontend reconnect --times {times}"), 540)
            .map(drop)
    })?;
    figures.insert("reconnects".into(), times.into());
    figures.insert("times that all was read meanwhile".into(), rounds.into());
    check::within("times that all was read", rounds, times..=u64::MAX)?;
    check::equal("times that the counters were not there", anew, 0)?;
    let requests: u64 = vbd.number("statistics/rd_req")?;
    check::within("reads that were counted", requests, times..=u64::MAX)?;

    let [quick, full, debug] = BINDS;
    let binds = host.lab.repeats(quick, full, debug);
    let (rounds, _) = read_meanwhile(host, &vbd, || {
        held(&guest, "hold --queues 4", || {
            (0..binds).try_for_each(|_| {
                vbd.unbind(host.lab.backend)?;
                vbd.bind(host.lab.backend)?;
                vbd.wait_state("4")
            })
        })
    })?;
    figures.insert("times that it was bound".into(), binds.into());
    figures.insert("times that all was read then".into(), rounds.into());
    guest.destroy()?;
    disk.remove(host)
}

/// Does something while dom0 reads a disk's files. Says how often it read all, and how often they were gone.
fn read_meanwhile(
    host: &Host<'_>,
    vbd: &Vbd<'_, '_>,
    action: impl FnOnce() -> Result<()>,
) -> Result<(u64, u64)> {
    host.ok(&format!(
        "rm -f /run/polls && mkfifo /run/polls && \
         {{ /lab/frontend poll {} </run/polls >/run/polled 2>&1 & }} && poll=$! && exec 7>/run/polls",
        vbd.sysfs()
    ))?;
    let done = action();
    let said = host.ok("exec 7>&-; wait $poll; status=$?; cat /run/polled; (exit $status)")?;
    done?;
    let said: Value = serde_json::from_str(&said)?;
    let number = |key: &str| said["done"][key].as_u64().unwrap_or(0);
    Ok((number("rounds"), number("anew")))
}
