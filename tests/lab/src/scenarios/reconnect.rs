// SPDX-License-Identifier: GPL-2.0

use anyhow::Result;

use super::cycles::flat;
use super::frontend::more_queues;
use crate::check;
use crate::disk::Disk;
use crate::flood;
use crate::host::Host;
use crate::results::Figures;

/// In a run of everything, at length, and on the debug kernel.
const RECONNECTS: [u64; 3] = [48, 200, 100];
/// Before anything is counted: each way to connect has been used.
const FIRST: u64 = 24;

/// A frontend connects, fills its rings and goes while its requests are at the disk, again and
/// again, in each layout, with one and four queues, small and large rings, with and without
/// persistent grants. Nothing is left behind.
///
/// Linux's own frontend is not up to that: with its driver unbound by hand each time, the guest
/// stood still after 28 times, with grant references far above any that it had used before.
pub fn reconnect(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    let [quick, full, debug] = RECONNECTS;
    let times = host.lab.repeats(quick, full, debug);
    let disk = Disk::slow(host, "nb0", 64)?;
    more_queues(host, host.lab.backend)?;
    let guest = host
        .guest("reconnect")
        .disk(&disk, "xvda")
        .own_frontend()
        .start()?;
    // A few at a time, so that none of the commands takes long.
    let cycles = |count: u64| {
        (0..count).step_by(FIRST as usize).try_for_each(|done| {
            let some = FIRST.min(count - done);
            guest
                .ok_within(&format!("/frontend reconnect --times {some}"), 300)
                .map(drop)
        })?;
        // The threads of the last connection stay: always one.
        guest.ok(&flood::command(0, 0, 0)).map(drop)
    };
    cycles(FIRST)?;
    let served: u64 = guest.vbd("xvda").number("statistics/rd_req")?;
    check::within("requests served meanwhile", served, FIRST..=u64::MAX)?;
    let half = times / 2;
    flat(host, half, figures, || cycles(half))?;
    check::equal("the error node", guest.vbd("xvda").error()?, None)?;
    figures.insert("reconnects".into(), (2 * half).into());
    guest.destroy()?;
    disk.remove(host)
}
