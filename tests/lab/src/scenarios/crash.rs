// SPDX-License-Identifier: GPL-2.0

//! An end that nobody planned.

use anyhow::Result;

use super::cycles::ENDLESS;
use super::cycles::mapped_grants;
use crate::check;
use crate::disk::Disk;
use crate::fio::Job;
use crate::guest::Guest;
use crate::host::Host;
use crate::results::Figures;

/// A guest's kernel crashes with a full ring, and the domain is kept for whoever wants to know why.
/// Its neighbour's verify does not notice, and when it is destroyed nothing stays mapped.
pub fn crash(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    let slow = Disk::slow(host, "nba", 64)?;
    let fast = Disk::memory(host, "nbb", 64)?;
    let before = mapped_grants(host)?;
    let neighbour = host.guest("neighbour").disk(&fast, "xvda").start()?;
    let guest = busy(host, &slow)?;
    let verify = Job::verified_writes("xvda", "4k-44k", 8)
        .depth(8)
        .start(&neighbour)?;
    let _never_ends = guest.start("echo c >/proc/sysrq-trigger")?;
    host.ok(&format!(
        "lab_until 60 'xl list {} | grep -e ---sc-'",
        guest.name
    ))?;
    let requests: u64 = guest.vbd("xvda").number("statistics/rd_req")?;
    figures.insert("reads before the crash".into(), requests.into());
    host.ok(&format!("xl destroy {}", guest.name))?;
    guest.gone()?;
    let report = verify.finish()?;
    check::equal(
        "bytes that the neighbour verified",
        report.read.io_bytes,
        8 << 20,
    )?;
    neighbour.destroy()?;
    host.ok(&format!("lab_grants_are {before} 60"))?;
    slow.remove(host)?;
    fast.remove(host)
}

fn busy<'h, 'l>(host: &'h Host<'l>, disk: &Disk) -> Result<Guest<'h, 'l>> {
    let guest = host.guest("busy").disk(disk, "xvda").start()?;
    guest.wait_disk("xvda")?;
    guest.ok(ENDLESS)?;
    guest.vbd("xvda").wait_requests(50)?;
    Ok(guest)
}
