// SPDX-License-Identifier: GPL-2.0

use std::time::Duration;

use anyhow::Context;
use anyhow::Result;

use super::cycles::ENDLESS;
use crate::check;
use crate::disk::Disk;
use crate::fio::Job;
use crate::host::Host;
use crate::results::Figures;

const DEADLINE: Duration = Duration::from_secs(300);
/// Seconds that dom0 may take: the kernel's xenbus gives each device 5 s to close, which one whose
/// guest uses it does not, and there are two.
const SECONDS: f64 = 15.0;

/// dom0 is powered off under two guests that use their disks, one of them at 1 token/s with a full
/// ring. Nothing keeps it up and nothing complains.
pub fn shutdown(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    let slow = Disk::slow(host, "nba", 64)?;
    let instant = Disk::instant(host, "nbb", 64)?;
    let busy = host.guest("busy").disk(&slow, "xvda").start()?;
    busy.wait_disk("xvda")?;
    busy.ok(ENDLESS)?;
    busy.vbd("xvda").wait_requests(50)?;
    let throttled = host.guest("throttled").disk(&instant, "xvda").start()?;
    throttled.wait_disk("xvda")?;
    if host.lab.backend == crate::lab::Backend::Rblkback {
        throttled.vbd("xvda").limit(1, 1)?;
    }
    let _full = Job::random_reads("xvda", 600).depth(32).start(&throttled)?;
    throttled
        .vbd("xvda")
        .wait_file("statistics/rd_req", "[1-9]")?;

    let before = host.ok("cut -d' ' -f1 /proc/uptime")?.parse::<f64>()?;
    // What the last step of any shutdown does; guests are not asked first.
    let serial = host.power_off("sync; echo o >/proc/sysrq-trigger", DEADLINE)?;
    let (line, _) = serial
        .rsplit_once("reboot: Power down")
        .context("dom0 did not get to its \"Power down\"")?;
    let after: f64 = line
        .rsplit_once('[')
        .and_then(|(_, stamp)| stamp.split(']').next())
        .context("no time stamp")?
        .trim()
        .parse()?;
    figures.insert("seconds".into(), (after - before).into());
    check::within("seconds until dom0 is down", after - before, 0.0..=SECONDS)
}
