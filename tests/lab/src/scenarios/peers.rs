// SPDX-License-Identifier: GPL-2.0

use anyhow::Context;
use anyhow::Result;
use serde_json::Value;
use serde_json::json;

use crate::check;
use crate::disk::Disk;
use crate::fio;
use crate::fio::Job;
use crate::fio::Report;
use crate::host::Host;
use crate::results::Figures;

const RATES: [u64; 3] = [10, 100, 1000];
const SECONDS: u32 = 30;

/// The same jobs on the same device under our limit, from a guest, and under the kernel's own
/// `io.max`, from a process in dom0: how near each comes to the rate, how long a request that
/// is alone is held at most (99 %), and what each shows of it.
pub fn peers(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    let disk = Disk::instant(host, "nb0", 64)?;
    let device = host.ok(&format!(
        "cat /sys/block/{}/dev",
        disk.path.trim_start_matches("/dev/")
    ))?;
    host.ok(
        "mkdir -p /run/cgroup && mount -t cgroup2 none /run/cgroup && \
         echo +io >/run/cgroup/cgroup.subtree_control && mkdir /run/cgroup/held",
    )?;
    let local = disk.path.trim_start_matches("/dev/");
    for rate in RATES {
        host.ok(&format!(
            "echo '{device} riops={rate}' >/run/cgroup/held/io.max"
        ))?;
        let run = |depth: u32| -> Result<Report> {
            let command = Job::random_reads(local, SECONDS).depth(depth).command();
            fio::parse(&host.ok_within(
                &format!("(echo $BASHPID >/run/cgroup/held/cgroup.procs && exec {command})"),
                400,
            )?)
        };
        let figure = describe(rate, &run(32)?, &run(1)?)?;
        figures.insert(format!("io.max at {rate}/s"), figure);
    }
    let shown = host.ok("cat /run/cgroup/held/io.stat")?;
    figures.insert("io.max shows".into(), shown.into());
    host.ok("rmdir /run/cgroup/held && umount /run/cgroup")?;

    let guest = host.guest("peer").disk(&disk, "xvda").start()?;
    guest.wait_disk("xvda")?;
    for rate in RATES {
        guest.vbd("xvda").limit(rate, 1)?;
        let run = |depth: u32| Job::random_reads("xvda", SECONDS).depth(depth).run(&guest);
        let figure = describe(rate, &run(32)?, &run(1)?)?;
        let error = figure["error_percent"].as_f64().unwrap_or(100.0);
        // One request more or less, and those in flight at the end.
        let most = 0.5 + 100.0 * 33.0 / (rate * u64::from(SECONDS)) as f64;
        check::within("our error in percent", error, -most..=most)?;
        figures.insert(format!("rblkback at {rate}/s"), figure);
    }
    let shown = host.ok(&format!("grep . {}/qos/*", guest.vbd("xvda").sysfs()))?;
    figures.insert("rblkback shows".into(), shown.into());
    guest.destroy()?;
    disk.remove(host)
}

fn describe(rate: u64, full: &Report, alone: &Report) -> Result<Value> {
    let due = (rate * u64::from(SECONDS)) as f64;
    let p99 = alone
        .read
        .clat_ns
        .percentile
        .get("99.000000")
        .context("fio's percentiles")?;
    Ok(json!({
        "served": full.read.total_ios,
        "error_percent": 100.0 * (full.read.total_ios as f64 / due - 1.0),
        "p99_usec_of_one_at_a_time": p99 / 1000,
        "usec_between_tokens": 1_000_000 / rate,
    }))
}
