// SPDX-License-Identifier: GPL-2.0

use anyhow::Context;
use anyhow::Result;
use serde_json::json;

use crate::admission::count_between;
use crate::admission::worst_excess;
use crate::admission::worst_shortfall;
use crate::check;
use crate::disk::Disk;
use crate::fio::Job;
use crate::guest::Guest;
use crate::host::Host;
use crate::results::Figures;
use crate::trace::Source;
use crate::trace::Trace;
use crate::trace::times;

const SECONDS: u64 = 30;
const NS: u64 = 1_000_000_000;

/// Tokens per second and bucket size.
const LIMITS: [(u64, u64); 4] = [(10, 1), (100, 10), (1000, 100), (5000, 500)];

/// The guest asks again eight requests at a time, so that 24 and more always wait.
const BATCHES: &str = "--iodepth_batch_submit=8 --iodepth_batch_complete_min=8";

/// A guest with 32 requests always waiting gets its rate over 30 s, and in no window of the run
/// more than the bucket allows, by the time of each request in dom0.
pub fn rate(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    let disk = Disk::blank(host, "nb0", 1024)?;
    let guest = host.guest("rate").disk(&disk, "xvda").start()?;
    guest.wait_disk("xvda")?;
    // Two random reads that happen to be neighbours would become one request.
    guest.ok("echo 2 >/sys/block/xvda/queue/nomerges")?;
    for (refill, max) in LIMITS {
        let figure = one(host, &guest, &disk, refill, max)
            .with_context(|| format!("at {refill} tokens/s, bucket {max}"))?;
        figures.insert(format!("{refill}/s"), figure);
    }
    guest.destroy()?;
    disk.remove(host)
}

fn one(
    host: &Host<'_>,
    guest: &Guest<'_, '_>,
    disk: &Disk,
    refill: u64,
    max: u64,
) -> Result<serde_json::Value> {
    let vbd = guest.vbd("xvda");
    let dev_t = disk.dev_t(host)?;
    vbd.limit(refill, max)?;
    let spent_before: u64 = vbd.number("qos/io_count")?;
    let served_before: u64 = vbd.number("statistics/rd_req")?;
    host.ok(&format!("lab_gate {dev_t}"))?;
    let trace = Trace::start(host, &[Source::bios(dev_t)])?;
    // dom0 sleeps until the guest's first request, and then through the run: it stays idle.
    let file = format!("{}/qos/throttled_usec", vbd.sysfs());
    let watch = host.start_command(&format!(
        "lab_first_io; a=$(cat {file}); sleep {}; b=$(cat {file}); echo $((b - a))",
        SECONDS + 1
    ))?;
    let job = Job::random_reads("xvda", SECONDS as u32 + 2)
        .depth(32)
        .with(BATCHES)
        .start(guest)?;
    let throttled = watch.ok_within(std::time::Duration::from_secs(400))?;
    let times = times(&trace.stop()?, 0);
    let report = job.finish()?;

    // Between a wake-up and the next wait nobody waits, so an instant's state says little.
    check::within(
        "microseconds throttled of a backlogged disk",
        throttled.trim().parse()?,
        SECONDS * 500_000..=u64::MAX,
    )?;
    let served = vbd.number::<u64>("statistics/rd_req")? - served_before;
    let spent = vbd.number::<u64>("qos/io_count")? - spent_before;
    check::equal(
        "rd_req against fio's own count",
        served,
        report.read.total_ios,
    )?;
    check::equal("tokens spent against requests served", spent, served)?;
    judge(&times, refill, max)
}

fn judge(times: &[u64], refill: u64, max: u64) -> Result<serde_json::Value> {
    let first = *times.first().context("the trace has no request")?;
    let last = *times.last().context("the trace has no request")?;
    check::within(
        "nanoseconds from the first to the last request",
        last - first,
        SECONDS * NS..=u64::MAX,
    )?;
    let served = count_between(times, first, first + SECONDS * NS);
    let due = refill * SECONDS;
    let tolerance = due / 200;
    check::within(
        &format!("requests in {SECONDS} s"),
        served,
        due - tolerance..=due + tolerance + max,
    )?;
    let excess = worst_excess(times, refill);
    let words = format!(
        "requests beyond refill * T in any window (worst: {} to {} ns)",
        excess.from, excess.to
    );
    check::within(&words, excess.tokens, 0.0..=max as f64 + 1.0)?;
    // Once the first burst is over, what is lost to late wake-ups may not add up to more than 10 ms.
    // At 5000/s guest and dom0 together keep this host's one processor busy, and 8.8 to 10.4 ms
    // were seen; at 1000/s it is less than 1.
    let most_ms = if refill >= 5000 { 20.0 } else { 10.0 };
    let settled = &times[times.len().min(max as usize)..];
    let shortfall = worst_shortfall(settled, refill);
    check::within(
        "tokens lost in any window",
        shortfall.tokens,
        0.0..=1.0 + refill as f64 * most_ms / 1000.0,
    )?;
    Ok(json!({
        "bucket": max, "seconds": SECONDS, "served": served, "due": due,
        "error_percent": (served as f64 / due as f64 - 1.0) * 100.0,
        "worst_excess_tokens": excess.tokens, "worst_shortfall_tokens": shortfall.tokens,
    }))
}
