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

/// The same jobs on the same device under our limit, from a guest; under QEMU's, from a guest whose
/// disk QEMU serves; and under the kernel's own `io.max`, from a process in dom0: how near each
/// comes to the rate, how long a request that is alone is held at most (99 %), and what each shows
/// of it.
pub fn peers(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    let disk = Disk::blank(host, "nb0", 64)?;
    io_max(host, &disk, figures)?;
    qdisk(host, &disk, figures)?;
    ours(host, &disk, figures)?;
    disk.remove(host)
}

fn io_max(host: &Host<'_>, disk: &Disk, figures: &mut Figures) -> Result<()> {
    let local = disk.path.trim_start_matches("/dev/");
    let device = host.ok(&format!("cat /sys/block/{local}/dev"))?;
    host.ok(
        "mkdir -p /run/cgroup && mount -t cgroup2 none /run/cgroup && \
         echo +io >/run/cgroup/cgroup.subtree_control && mkdir /run/cgroup/held",
    )?;
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
    host.ok("rmdir /run/cgroup/held && umount /run/cgroup")
        .map(drop)
}

/// QEMU's throttle, set through the monitor that libxl opens.
fn qdisk(host: &Host<'_>, disk: &Disk, figures: &mut Figures) -> Result<()> {
    let guest = host
        .guest("qdisk")
        .disk_line(&format!(
            "vdev=xvda,format=raw,access=rw,backendtype=qdisk,target={}",
            disk.path
        ))
        .booted()
        .start()?;
    let domid = guest.domid();
    host.store_wait(
        &format!("/local/domain/0/backend/qdisk/{domid}/51712/state"),
        "^4$",
    )?;
    let ask = |command: &Value| {
        let hello = json!({"execute": "qmp_capabilities"});
        let script = format!(
            "printf '%s\n' '{hello}' '{command}' | socat -t 5 - /run/xen/qmp-libxl-{domid}"
        );
        let answers = host.ok(&script)?;
        let last = answers.lines().last().context("no answer of QEMU")?;
        let answer: Value = serde_json::from_str(last)?;
        let value = answer.get("return").cloned();
        value.with_context(|| format!("QEMU refuses {command}: {answer}"))
    };
    let blocks = ask(&json!({"execute": "query-block"}))?;
    let device = blocks[0]["qdev"].as_str().context("QEMU's disk")?;
    for rate in RATES {
        ask(&json!({"execute": "block_set_io_throttle", "arguments": {
            "id": device, "iops": rate, "iops_rd": 0, "iops_wr": 0,
            "bps": 0, "bps_rd": 0, "bps_wr": 0,
        }}))?;
        let run = |depth: u32| Job::random_reads("xvda", SECONDS).depth(depth).run(&guest);
        let figure = describe(rate, &run(32)?, &run(1)?)?;
        figures.insert(format!("QEMU at {rate}/s"), figure);
    }
    let shown = ask(&json!({"execute": "query-block"}))?[0]["inserted"].take();
    figures.insert("QEMU shows".into(), shown);
    guest.destroy()
}

fn ours(host: &Host<'_>, disk: &Disk, figures: &mut Figures) -> Result<()> {
    let guest = host.guest("peer").disk(disk, "xvda").start()?;
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
    guest.destroy()
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
