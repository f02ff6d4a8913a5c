// SPDX-License-Identifier: GPL-2.0

use anyhow::Context;
use anyhow::Result;

use crate::check;
use crate::disk::Disk;
use crate::host::Host;
use crate::results::Figures;

const REFILL: u64 = 10;
const MAX: u64 = 5;
const FLUSHES: u64 = 30;

/// A guest that only flushes gets no further than its limit: a flush costs as much as any request.
pub fn flushes(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    let disk = Disk::file(host, "flushes", 16)?;
    let guest = host.guest("flushes").disk(&disk, "xvda").start()?;
    guest.wait_disk("xvda")?;
    let vbd = guest.vbd("xvda");
    vbd.limit(REFILL, MAX)?;
    let before: u64 = vbd.number("statistics/f_req")?;
    let times = guest.ok(&format!(
        "read -r begin _ </proc/uptime; \
         for i in $(seq {FLUSHES}); do sync -d /dev/xvda || break; done; \
         read -r end _ </proc/uptime; echo $begin $end"
    ))?;
    let (begin, end) = times.split_once(' ').context("two times")?;
    let took = end.parse::<f64>()? - begin.parse::<f64>()?;
    let sent: u64 = vbd.number::<u64>("statistics/f_req")? - before;
    check::equal("flushes that reached the disk", sent, FLUSHES)?;
    figures.insert("seconds for 30 flushes at 10/s".into(), took.into());
    // What is in the bucket, and a hundredth for what /proc/uptime leaves out.
    let least = (FLUSHES - MAX - 1) as f64 / REFILL as f64 - 0.02;
    check::within("seconds", took, least..=least + 1.0)?;
    guest.destroy()?;
    disk.remove(host)?;
    synchronous(host)
}

/// A write that is to be on the disk when it returns, on a disk with a cache: the guest flushes before and
/// after it.
fn synchronous(host: &Host<'_>) -> Result<()> {
    let disk = Disk::flushed(host)?;
    let guest = host.guest("synchronous").start()?;
    let vbd = guest.attach(&disk, "xvdb")?;
    let counts = || {
        let number = |file: &str| vbd.number::<u64>(&format!("statistics/{file}"));
        Ok::<_, anyhow::Error>([number("wr_req")?, number("f_req")?])
    };
    let before = counts()?;
    guest.ok("dd if=/dev/zero of=/dev/xvdb bs=4k count=4 oflag=direct,dsync status=none")?;
    let after = counts()?;
    let sent = [after[0] - before[0], after[1] - before[1]];
    check::equal("writes and flushes", sent, [4, 8])?;
    guest.destroy()?;
    disk.remove(host)
}
