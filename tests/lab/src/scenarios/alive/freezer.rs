// SPDX-License-Identifier: GPL-2.0

use std::time::Duration;

use anyhow::Context;
use anyhow::Result;

use crate::check;
use crate::disk::Disk;
use crate::fio::Job;
use crate::host::Host;
use crate::results::Figures;

/// Seconds for which the kernel's test keeps all tasks frozen.
const FROZEN: u32 = 5;
/// Nanoseconds of the guest's clock: nearly that, because a request may have waited before.
const PAUSE: u64 = 4_500_000_000;

/// dom0's tasks are frozen, as before a suspend: its devices may be gone next, so nothing more is
/// sent to them. The guest sees a pause and no error.
pub fn freezer(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    let disk = Disk::memory(host, "nb0", 64)?;
    let guest = host.guest("freezes").start()?;
    let vbd = guest.attach(&disk, "xvdb")?;
    host.ok(&format!(
        "echo freezer >/sys/power/pm_test && echo {FROZEN} >/sys/module/suspend/parameters/pm_test_delay"
    ))?;
    let job = Job::random_reads("xvdb", 3 * FROZEN)
        .depth(1)
        .with("--rate_iops=50 --percentile_list=100")
        .start(&guest)?;
    vbd.wait_requests(20)?;
    host.start_command("echo freeze >/sys/power/state")?
        .ok_within(Duration::from_secs(300))?;
    let report = job.finish()?;
    let longest = report.read.clat_ns.percentile.values().max().copied();
    let longest = longest.context("fio gave no longest time")?;
    figures.insert("longest request, ms".into(), (longest / 1_000_000).into());
    check::within(
        "nanoseconds of the request that met the freezer",
        longest,
        PAUSE..=u64::MAX,
    )?;
    host.ok("echo none >/sys/power/pm_test")?;
    // And on it goes.
    Job::verified_writes("xvdb", "4k-44k", 4).run(&guest)?;
    guest.destroy()?;
    disk.remove(host)
}
