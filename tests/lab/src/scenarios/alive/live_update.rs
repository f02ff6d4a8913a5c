// SPDX-License-Identifier: GPL-2.0

//! xenstored is exchanged while it runs, by its own `live-update`: it hands all that it knows to the program that
//! takes its place.

use anyhow::Context;
use anyhow::Result;

use crate::check;
use crate::disk::Disk;
use crate::fio::Job;
use crate::guest::Guest;
use crate::host::Host;
use crate::results::Figures;

/// Another copy of the program that runs, by which one sees that it was exchanged.
const NEXT: &str = "/run/xenstored-next";
/// Requests a second; another number each time. A run of everything has the first.
const REFILLS: [u64; 3] = [300, 400, 500];

/// The one that the host has by itself.
pub fn live_update(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    let guest = host.guest("kept").start()?;
    under(host, &guest, figures)?;
    guest.destroy()
}

/// Under a guest that verifies what it writes and others that use the store. Limits change afterwards as before, and
/// disks come and go.
fn under(host: &Host<'_>, guest: &Guest<'_, '_>, figures: &mut Figures) -> Result<()> {
    let disks = [
        Disk::memory(host, "nba", 16)?,
        Disk::memory(host, "nbb", 16)?,
    ];
    let vbd = guest.attach(&disks[0], "xvdb")?;
    let verify = Job::verified_writes("xvdb", "4k-44k", 4)
        .depth(8)
        .repeat(guest)?;
    let busy = "/tool/busy";
    host.ok(&format!(
        "daemon=$(pidof oxenstored xenstored) && \
         {{ while [ ! -e /run/enough ]; do xenstore-write {busy}/a 1 {busy}/b 2 || exit 1; done & }} && busy=$!"
    ))?;
    let times = host.lab.repeats(1, REFILLS.len() as u64, 1) as usize;
    for (number, refill) in REFILLS.into_iter().take(times).enumerate() {
        vbd.wait_requests(20)?;
        let before = nodes(host)?;
        update(host, number)?;
        check::equal("nodes of the store", nodes(host)?, before)?;
        vbd.limit(refill, 10)?;
        vbd.wait_requests(20)?;
        guest.attach(&disks[1], "xvdc")?;
        Job::verified_writes("xvdc", "4k-44k", 1)
            .depth(4)
            .run(guest)?;
        guest.detach("xvdc")?;
    }
    host.ok(&format!(
        "touch /run/enough; wait $busy && xenstore-rm {busy}"
    ))
    .context("who writes to the store all the time")?;
    let (runs, report) = verify.stop()?;
    check::equal("bytes verified", report.read.io_bytes, 4 << 20)?;
    check::equal("the error node", vbd.error()?, None)?;
    figures.insert("times verified".into(), runs.into());
    guest.detach("xvdb")?;
    disks.into_iter().try_for_each(|disk| disk.remove(host))
}

/// Another program takes its place, as the same process, which is what xenstored does.
fn update(host: &Host<'_>, number: usize) -> Result<()> {
    let next = format!("{NEXT}-{number}");
    let said = host.ok(&format!(
        "cp /proc/$daemon/exe {next} && xenstore-control live-update {next}"
    ))?;
    let runs = host.ok("readlink /proc/$daemon/exe")?;
    check::equal(&format!("what runs after {said:?}"), runs, next)
}

/// How many there are.
fn nodes(host: &Host<'_>) -> Result<u64> {
    Ok(host.ok("xenstore-ls / | wc -l")?.parse()?)
}
