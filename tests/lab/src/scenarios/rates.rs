// SPDX-License-Identifier: GPL-2.0

//! The rate again, for more disks, more queues and more sizes of the bucket.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Context;
use anyhow::Result;
use serde_json::Value;
use serde_json::json;

use crate::admission::count_between;
use crate::admission::worst_excess;
use crate::check;
use crate::disk::Disk;
use crate::fio;
use crate::guest::Guest;
use crate::host::Host;
use crate::results::Figures;
use crate::trace::Event;
use crate::trace::Source;
use crate::trace::Trace;

const SECONDS: u64 = 30;
/// Before them, and not in fio's own counts: until all jobs have begun, the queues of the first
/// ones have the bucket to themselves.
const RAMP: u64 = 1;
/// How long the guest runs to see what it can.
const FREE_SECONDS: u64 = 3;
const NS: u64 = 1_000_000_000;
/// Eight disks at 1000/s each keep an emulator busy for up to eight minutes, their highest rate
/// for longer.
const DEADLINE: Duration = Duration::from_secs(1200);

/// Tokens per second, bucket, disks, queues of each.
type Shape = (u64, u64, usize, u32);

/// The rates, each for every size of the bucket, for 1 and 4 queues.
const REFILLS: [u64; 4] = [1, 10, 100, 1000];
const QUEUES: [u32; 2] = [1, 4];
/// The highest, or as much of it as the guest can.
const FASTEST: u64 = 10_000;
/// For many times that an emulated processor has no time. Then the limits together come to so many
/// percent of what it gets when each token is waited for, and there are more than it can use.
const PERCENT_OF_ALL: u64 = 90;

/// Disks whose guest always has requests waiting on all queues get refill and bucket over 30 s to
/// half a percent, together no more than once, no queue more than its share, and in no window more
/// than the bound, by the time at which dom0 admitted each request. In a run of everything: one shape.
pub fn rates(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    with_guest(host, 1, 4, |guest, disks| {
        judge(host, guest, disks, figures, (1000, 32, 1, 4))
    })
}

/// The same for one disk, at every rate.
pub fn one_disk(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    for queues in QUEUES {
        with_guest(host, 1, queues, |guest, disks| {
            slow(host, guest, disks, figures, (1, queues))?;
            fast(host, guest, disks, figures, (1, queues))
        })?;
    }
    Ok(())
}

/// The same for eight disks with a queue each, up to 1000/s: each of these four scenarios keeps an
/// emulator busy for twenty minutes or longer.
pub fn eight_disks(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    with_guest(host, 8, 1, |guest, disks| {
        slow(host, guest, disks, figures, (8, 1))
    })
}

/// With four queues each.
pub fn eight_disks_queues(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    with_guest(host, 8, 4, |guest, disks| {
        slow(host, guest, disks, figures, (8, 4))
    })
}

/// As fast as the guest can.
pub fn eight_disks_fast(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    with_guest(host, 8, 1, |guest, disks| {
        fast(host, guest, disks, figures, (8, 1))
    })
}

/// As fast as the guest can with four queues.
pub fn eight_disks_queues_fast(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    with_guest(host, 8, 4, |guest, disks| {
        fast(host, guest, disks, figures, (8, 4))
    })
}

fn slow(
    host: &Host<'_>,
    guest: &Guest<'_, '_>,
    disks: &[Disk],
    figures: &mut Figures,
    (vbds, queues): (usize, u32),
) -> Result<()> {
    for refill in REFILLS {
        for max in buckets(refill) {
            judge(host, guest, disks, figures, (refill, max, vbds, queues))?;
        }
    }
    Ok(())
}

fn fast(
    host: &Host<'_>,
    guest: &Guest<'_, '_>,
    disks: &[Disk],
    figures: &mut Figures,
    (vbds, queues): (usize, u32),
) -> Result<()> {
    let most = offered(guest, vbds, queues)?;
    let name = format!("as fast as it can, {vbds} disks, {queues} queues");
    figures.insert(name, json!({ "iops_together": most }));
    let refill = FASTEST.min(most * PERCENT_OF_ALL / 100 / vbds as u64);
    for max in buckets(refill) {
        judge(host, guest, disks, figures, (refill, max, vbds, queues))?;
    }
    Ok(())
}

/// The lowest rates' tenths are buckets of 1.
fn buckets(refill: u64) -> BTreeSet<u64> {
    BTreeSet::from([1, 32, (refill / 10).max(1)])
}

fn with_guest(
    host: &Host<'_>,
    vbds: usize,
    queues: u32,
    run: impl FnOnce(&Guest<'_, '_>, &[Disk]) -> Result<()>,
) -> Result<()> {
    host.ok(&format!(
        "echo {queues} >/sys/module/rblkback/parameters/max_queues"
    ))?;
    let disks = (0..vbds)
        .map(|i| Disk::instant(host, &format!("nb{i}"), 64))
        .collect::<Result<Vec<_>>>()?;
    // Each ring has requests and pages of its own.
    let memory = 192 + 6 * queues * vbds as u32;
    let mut spec = host.guest("rates").processors(queues).memory(memory);
    for (disk, vdev) in disks.iter().zip(names()) {
        spec = spec.disk(disk, &vdev);
    }
    let guest = spec.start()?;
    for vdev in names().take(vbds) {
        guest.wait_disk(&vdev)?;
        // Two random reads that happen to be neighbours would become one request.
        guest.ok(&format!("echo 2 >/sys/block/{vdev}/queue/nomerges"))?;
    }
    run(&guest, &disks)?;
    guest.destroy()?;
    disks.into_iter().try_for_each(|disk| disk.remove(host))
}

/// Requests a second that the guest gets from all disks together when each waits for a token of its
/// own, and there are more than it can use.
fn offered(guest: &Guest<'_, '_>, vbds: usize, queues: u32) -> Result<u64> {
    let names: Vec<String> = names().take(vbds).collect();
    for name in &names {
        guest.vbd(name).limit(2 * FASTEST, 1)?;
    }
    let job = guest.start(&command(&names, queues, FREE_SECONDS))?;
    let reports = fio::parse_all(&job.ok_within(DEADLINE)?)?;
    let each = reports.iter().map(|report| report.read.iops);
    Ok(each.sum::<f64>() as u64)
}

fn judge(
    host: &Host<'_>,
    guest: &Guest<'_, '_>,
    disks: &[Disk],
    figures: &mut Figures,
    shape: Shape,
) -> Result<()> {
    let (refill, max, vbds, queues) = shape;
    let name = format!("{refill}/s, bucket {max}, {vbds} disks, {queues} queues");
    let figure = one(host, guest, disks, shape).with_context(|| name.clone())?;
    figures.insert(name, figure);
    Ok(())
}

fn names() -> impl Iterator<Item = String> {
    ('a'..='z').map(|letter| format!("xvd{letter}"))
}

fn one(host: &Host<'_>, guest: &Guest<'_, '_>, disks: &[Disk], shape: Shape) -> Result<Value> {
    let (refill, max, vbds, queues) = shape;
    let names: Vec<String> = names().take(vbds).collect();
    let devices = disks[..vbds]
        .iter()
        .map(|disk| disk.dev_t(host))
        .collect::<Result<Vec<_>>>()?;
    for name in &names {
        let vbd = guest.vbd(name);
        // A limit that comes to a disk in use begins with a tenth of a second's tokens; this one
        // is to begin full.
        vbd.limit(1_000_000_000, max)?;
        vbd.limit(refill, max)?;
    }
    let sources = [
        Source::bios_of(&devices),
        Source::own("rblkback/rblkback_admit"),
    ];
    let trace = Trace::start_large(host, &sources)?;
    let job = guest.start(&command(&names, queues, SECONDS))?;
    let output = job.ok_within(DEADLINE)?;
    let events = trace.stop()?;
    for name in &names {
        guest.vbd(name).unlimit()?;
    }
    let mut served = Vec::new();
    let mut worst = 0.0f64;
    for (device, name) in devices.iter().zip(&names) {
        let of = |event: &&Event| event.source == 0 && event.fields[0] == *device;
        let times: Vec<u64> = events.iter().filter(of).map(|event| event.time).collect();
        let first = *times.first().context("no request")?;
        served.push(count_between(&times, first, first + SECONDS * NS));
        let admitted = admissions(&events, guest.vbd(name).vdev);
        check::equal("requests admitted", admitted.len(), times.len())?;
        let excess = worst_excess(&admitted, refill).tokens;
        // Ten milliseconds of lateness, and one.
        let bound = max as f64 + refill as f64 / 100.0 + 1.0;
        check::within(
            "requests beyond refill * T in any window",
            excess,
            0.0..=bound,
        )?;
        worst = worst.max(excess);
    }
    let due = SECONDS * refill + max;
    let tolerance = 1.0 + due as f64 * 0.005;
    for served in &served {
        let off = *served as f64 - due as f64;
        check::within(
            &format!("requests in {SECONDS} s off from {due}"),
            off,
            -tolerance..=tolerance,
        )?;
    }
    let spread = spread(&output, queues, refill)?;
    Ok(json!({
        "served": served, "due": due, "worst_excess_tokens": worst, "spread_percent": spread,
    }))
}

/// When each request of a disk was let through. From there to its device it may be held up, by the
/// guest itself where they share a processor, so that those let through one after the other
/// arrive together.
fn admissions(events: &[Event], vdev: u32) -> Vec<u64> {
    let of_disk = |event: &&Event| event.source == 1 && event.fields[0] == vdev;
    let each = |event: &Event| std::iter::repeat_n(event.time, event.fields[1] as usize);
    events.iter().filter(of_disk).flat_map(each).collect()
}

/// One job for each disk, and for each queue if there are several: the guest has a processor for
/// each queue, and each job keeps to one.
fn command(names: &[String], queues: u32, seconds: u64) -> String {
    let (jobs, depth) = match queues {
        1 => (String::from("--cpus_allowed=0"), 32),
        n => (
            format!(
                "--numjobs={n} --cpus_allowed=0-{} --cpus_allowed_policy=split",
                n - 1
            ),
            16,
        ),
    };
    let each: Vec<String> = names
        .iter()
        .map(|name| format!("--name={name} --filename=/dev/{name} {jobs}"))
        .collect();
    format!(
        "fio --output-format=json --ioengine=libaio --direct=1 --thread --rw=randread --bs=4k \
         --norandommap --time_based --ramp_time={RAMP} --runtime={seconds} --iodepth={depth} \
         --iodepth_batch_submit=8 --iodepth_batch_complete_min=4 {}",
        each.join(" ")
    )
}

/// By how much the queue that got most is ahead of the one that got least, in percent, on the disk
/// where that is worst.
fn spread(output: &str, queues: u32, refill: u64) -> Result<f64> {
    let reports = fio::parse_all(output)?;
    // In order: the queues of a disk side by side.
    let percent = reports.chunks(queues as usize).map(|of_disk| {
        let counts = of_disk.iter().map(|report| report.read.total_ios);
        let (most, least) = (counts.clone().max(), counts.min());
        let (most, least) = (most.unwrap_or(0), least.unwrap_or(0));
        (most - least) as f64 * 100.0 / most.max(1) as f64
    });
    let percent = percent.fold(0.0, f64::max);
    // What is in flight at the end, and the first burst, are more than that at low rates.
    if refill >= 1000 {
        check::within("percent between queues", percent, 0.0..=1.0)?;
    }
    Ok(percent)
}

/// One request at a time at 1000/s: none waits for longer than its token needs, and a millisecond.
pub fn latency(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    let disk = Disk::instant(host, "nb0", 64)?;
    let guest = host.guest("latency").disk(&disk, "xvda").start()?;
    guest.wait_disk("xvda")?;
    guest.vbd("xvda").limit(1000, 1)?;
    let report = fio::Job::random_reads("xvda", 10).depth(1).run(&guest)?;
    let p99 = report
        .read
        .clat_ns
        .percentile
        .get("99.000000")
        .copied()
        .context("fio's percentiles")?;
    figures.insert("p99_usec".into(), (p99 / 1000).into());
    figures.insert("requests".into(), report.read.total_ios.into());
    // Of all that the guest sees, which is more than what the gate holds.
    check::within("nanoseconds at the 99th percentile", p99, 1..=2_000_000)?;
    let held: u64 = guest.vbd("xvda").number("qos/wait_usec_max")?;
    figures.insert("longest_hold_usec".into(), held.into());
    check::within("microseconds held at most", held, 1..=2000)?;
    guest.destroy()?;
    disk.remove(host)
}
