// SPDX-License-Identifier: GPL-2.0

//! What a limit lets others know: the guest, and who traces.

use anyhow::Context;
use anyhow::Result;

use crate::check;
use crate::disk::Disk;
use crate::fio::Job;
use crate::host::Host;
use crate::results::Figures;

/// A guest reads its own limit in xenstore, and live numbers only when it is meant to.
pub fn guest_sees(host: &Host<'_>, _figures: &mut Figures) -> Result<()> {
    let disk = Disk::blank(host, "nb0", 64)?;
    let guest = host
        .guest("reader")
        .disk(&disk, "xvda")
        .own_frontend()
        .start()?;
    let vbd = guest.vbd("xvda");
    // By what the guest itself knows: where its backend is.
    let read = |key: &str| {
        guest.ok(&format!(
            "dir=$(/frontend read device/vbd/51712/backend) && /frontend read $dir/{key}"
        ))
    };
    check::equal("feature-tokens", read("feature-tokens")?.as_str(), "1")?;
    check::equal("qos-state", read("qos-state")?.as_str(), "unlimited")?;
    vbd.limit(25, 5)?;
    host.store_wait(&vbd.path("qos-state"), "^limited$")?;
    check::equal("qos-refill", read("qos-refill")?.as_str(), "25")?;
    check::equal("qos-max", read("qos-max")?.as_str(), "5")?;
    vbd.write(&[("tokens-max", "junk")])?;
    host.store_wait(&vbd.path("qos-state"), "^invalid$")?;
    check::equal("qos-max under junk", read("qos-max")?.as_str(), "5")?;
    check::equal(
        "live numbers that nobody asked for",
        vbd.key("qos-io-count")?,
        None,
    )?;
    guest.destroy()?;

    let guest = host.guest("publisher").disk(&disk, "xvda").start()?;
    guest.wait_disk("xvda")?;
    let vbd = guest.vbd("xvda");
    vbd.write(&[
        ("tokens-refill", "50"),
        ("tokens-max", "5"),
        ("tokens-publish", "1"),
    ])?;
    Job::random_reads("xvda", 2).depth(8).run(&guest)?;
    // The last word comes when all is done.
    let spent: u64 = vbd.number("qos/io_count")?;
    host.store_wait(&vbd.path("qos-io-count"), &format!("^{spent}$"))?;
    host.store_wait(&vbd.path("qos-tokens"), "^5$")?;
    let text = vbd
        .key("qos-throttled-usec")?
        .context("no qos-throttled-usec")?;
    check::within("qos-throttled-usec", text.parse()?, 500_000u64..=10_000_000)?;

    // Under load: whoever is held at that moment is not what the guest is told.
    let endless = Job::random_reads("xvda", 600).depth(32);
    endless.leave_running(&guest)?;
    for _ in 0..10 {
        vbd.limit(5, 1)?;
        host.store_wait(&vbd.path("qos-state"), "^limited$")?;
        vbd.wait_file("qos/state", "throttled")?;
        vbd.unlimit()?;
        host.store_wait(&vbd.path("qos-refill"), "^0$")?;
        check::equal(
            "qos-state without a limit",
            vbd.key("qos-state")?.as_deref(),
            Some("unlimited"),
        )?;
    }
    guest.destroy()?;
    disk.remove(host)
}

/// Debian's trace-cmd records what the gate does.
pub fn tracepoints(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    let disk = Disk::blank(host, "nb0", 64)?;
    let guest = host.guest("traced").disk(&disk, "xvda").start()?;
    guest.wait_disk("xvda")?;
    let vbd = guest.vbd("xvda");
    host.ok("trace-cmd start -q -B gatekeeper -e rblkback")?;
    vbd.limit(20, 2)?;
    let report = Job::random_reads("xvda", 1).depth(8).run(&guest)?;
    vbd.unlimit()?;
    let text =
        host.ok("trace-cmd stop -B gatekeeper; trace-cmd show -B gatekeeper | grep -v '^#'")?;
    host.ok("trace-cmd reset -q -B gatekeeper -d; rmdir /sys/kernel/tracing/instances/gatekeeper 2>/dev/null; true")?;
    let who = format!("domain={} device=51712", guest.domid());
    let count = |event: &str| {
        let event = format!("rblkback_{event}: {who}");
        text.lines().filter(|line| line.contains(&event)).count()
    };
    for event in ["admit", "throttle", "wake", "limit"] {
        figures.insert(format!("{event} events"), count(event).into());
        check::within(&format!("{event} events"), count(event), 1..=10_000)?;
    }
    let admitted: u64 = text
        .lines()
        .filter(|line| line.contains("rblkback_admit: "))
        .filter_map(|line| line.rsplit_once("requests=")?.1.trim().parse::<u64>().ok())
        .sum();
    check::equal(
        "requests admitted, by the trace",
        admitted,
        report.read.total_ios,
    )?;
    let limit = format!("rblkback_limit: {who} refill=20 max=2");
    check::that(text.contains(&limit), || format!("no {limit:?} in\n{text}"))?;
    guest.destroy()?;
    disk.remove(host)
}
