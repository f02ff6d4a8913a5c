// SPDX-License-Identifier: GPL-2.0

//! The rate again, for more disks, more queues and more sizes of the bucket.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use serde_json::Value;
use serde_json::json;

use crate::admission::Excess;
use crate::admission::count_between;
use crate::check;
use crate::disk::Disk;
use crate::fio;
use crate::guest::Guest;
use crate::host::Host;
use crate::results::Figures;
use crate::trace::Event;
use crate::trace::Source;
use crate::trace::Trace;
use crate::vbd;

const SECONDS: u64 = 30;
/// Before them, and not in fio's own counts: until all jobs have begun, the queues of the first
/// ones have the bucket to themselves.
const RAMP: u64 = 1;
/// How long the guest runs without a limit, to see what it can.
const FREE_SECONDS: u64 = 3;
const NS: u64 = 1_000_000_000;
/// Eight disks at 1000/s each keep an emulator busy for up to eight minutes, their highest rate
/// for longer.
const DEADLINE: Duration = Duration::from_secs(1200);

/// The rates, each for every size of the bucket, for 1 and 4 queues.
const REFILLS: [u64; 4] = [1, 10, 100, 1000];
const QUEUES: [u32; 2] = [1, 4];
/// The highest, or as much of it as the guest can.
const FASTEST: u64 = 10_000;
/// For many times that an emulated processor has no time. Then the limits together come to the
/// most of these percentages of what the guest gets without any that it can have: a token at a
/// time costs guest and dom0 more for each request than many at once.
const PERCENTS_OF_ALL: [u64; 5] = [90, 80, 70, 60, 50];
/// How long that is tried.
const TRIAL_SECONDS: u64 = 5;
/// Percent of the time that the processor may have left where a disk gets less than its limit:
/// below, guest and dom0 wait for each other.
const IDLE_PERCENT: f64 = 10.0;
/// By what part a rate may be off.
const TOLERANCE: f64 = 0.005;

/// Disks whose guest always has requests waiting on all queues get refill and bucket over 30 s to
/// half a percent, together no more than once, no queue more than its share, and in no window more
/// than the bound, neither admitted nor sent to the device. In a run of everything: one shape.
pub fn rates(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    with_disks(host, 1, 4, |place| place.judge(1000, 32, figures))
}

/// The same for one disk, at every rate.
pub fn one_disk(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    for queues in QUEUES {
        with_disks(host, 1, queues, |place| {
            place.slow(figures)?;
            place.fast(figures)
        })?;
    }
    Ok(())
}

/// The same for eight disks with a queue each, up to 1000/s: each of these four scenarios keeps an
/// emulator busy for twenty minutes or longer.
pub fn eight_disks(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    with_disks(host, 8, 1, |place| place.slow(figures))
}

/// With four queues each.
pub fn eight_disks_queues(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    with_disks(host, 8, 4, |place| place.slow(figures))
}

/// As fast as the guest can.
pub fn eight_disks_fast(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    with_disks(host, 8, 1, |place| place.fast(figures))
}

/// As fast as the guest can with four queues.
pub fn eight_disks_queues_fast(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    with_disks(host, 8, 4, |place| place.fast(figures))
}

/// A guest and its disks.
struct Place<'p, 'h, 'l> {
    host: &'h Host<'l>,
    guest: &'p Guest<'h, 'l>,
    disks: &'p [Disk],
    /// Of each disk.
    queues: u32,
}

fn with_disks(
    host: &Host<'_>,
    count: u32,
    queues: u32,
    run: impl FnOnce(&Place<'_, '_, '_>) -> Result<()>,
) -> Result<()> {
    host.ok(&format!(
        "echo {queues} >/sys/module/rblkback/parameters/max_queues"
    ))?;
    let disks = (0..count)
        .map(|i| Disk::blank(host, &format!("nb{i}"), 64))
        .collect::<Result<Vec<_>>>()?;
    // Each ring has requests and pages of its own.
    let memory = 192 + 6 * queues * count;
    let mut spec = host.guest("rates").processors(queues).memory(memory);
    for (disk, number) in disks.iter().zip(0..) {
        spec = spec.disk(disk, &vbd::name(number));
    }
    let guest = spec.start()?;
    for vdev in (0..count).map(vbd::name) {
        guest.wait_disk(&vdev)?;
        // Two random reads that happen to be neighbours would become one request.
        guest.ok(&format!("echo 2 >/sys/block/{vdev}/queue/nomerges"))?;
    }
    run(&Place {
        host,
        guest: &guest,
        disks: &disks,
        queues,
    })?;
    guest.destroy()?;
    disks.into_iter().try_for_each(|disk| disk.remove(host))
}

impl Place<'_, '_, '_> {
    /// All rates but the highest.
    fn slow(&self, figures: &mut Figures) -> Result<()> {
        REFILLS
            .into_iter()
            .try_for_each(|refill| self.every_bucket(refill, figures))
    }

    /// The highest.
    fn fast(&self, figures: &mut Figures) -> Result<()> {
        let offered = self.offered()?;
        let name = format!("no limit, {}", self.name());
        figures.insert(name, json!({ "iops_together": offered }));
        let (refill, trials) = self.bearable(offered)?;
        figures.insert(format!("tried, bucket 1, {}", self.name()), trials);
        self.every_bucket(refill, figures)
    }

    /// The highest rate that each disk gets in a short trial, and the trials. One that is missed
    /// may only be so because the processor has hardly any time left. With a bucket of 1, which
    /// wakes the guest most often. Larger ones would fail any trial so short: they are full at
    /// first, and the guest has no time to empty all of them at once.
    fn bearable(&self, offered: u64) -> Result<(u64, Value)> {
        let rates = PERCENTS_OF_ALL
            .map(|percent| FASTEST.min(offered * percent / 100 / self.disks.len() as u64));
        let mut trials = Vec::new();
        for refill in rates {
            let run = self.run(refill, 1, TRIAL_SECONDS)?;
            let least = run.served.iter().min().context("no disk")?;
            let share = *least as f64 / run.due as f64;
            trials.push(json!({ "refill": refill, "served": share, "idle_percent": run.idle }));
            // A rate on the brink would be had now and missed then.
            if share >= 1.0 - TOLERANCE / 2.0 {
                return Ok((refill, trials.into()));
            }
            check::within(
                &format!("percent of idle time at {refill}/s, of which {share} were served"),
                run.idle,
                -1.0..=IDLE_PERCENT,
            )?;
        }
        bail!("none of these can be had: {trials:?}")
    }

    /// Nanoseconds that dom0 and the guest have run, and of dom0's clock.
    fn times(&self) -> Result<(f64, f64)> {
        let busy: u64 = self.host.run_times(Some(self.guest))?.iter().sum();
        let uptime = self.host.ok("cut -d' ' -f1 /proc/uptime")?;
        Ok((busy as f64, uptime.parse::<f64>()? * NS as f64))
    }

    fn every_bucket(&self, refill: u64, figures: &mut Figures) -> Result<()> {
        // The lowest rates' tenths are buckets of 1.
        BTreeSet::from([1, 32, (refill / 10).max(1)])
            .into_iter()
            .try_for_each(|max| self.judge(refill, max, figures))
    }

    /// Gives each disk this limit, and a full bucket.
    fn limit(&self, refill: u64, max: u64) -> Result<()> {
        for vdev in &self.vdevs() {
            let vbd = self.guest.vbd(vdev);
            // A limit that comes to a disk in use begins with a tenth of a second's tokens; this
            // one is to begin full.
            vbd.limit(1_000_000_000, max)?;
            vbd.limit(refill, max)?;
        }
        Ok(())
    }

    fn judge(&self, refill: u64, max: u64, figures: &mut Figures) -> Result<()> {
        let name = format!("{refill}/s, bucket {max}, {}", self.name());
        let figure = self.one(refill, max).with_context(|| name.clone())?;
        figures.insert(name, figure);
        Ok(())
    }

    fn name(&self) -> String {
        format!("{} disks, {} queues", self.disks.len(), self.queues)
    }

    fn vdevs(&self) -> Vec<String> {
        (0..self.disks.len() as u32).map(vbd::name).collect()
    }

    /// Requests a second that the guest gets from all disks together when none has a limit.
    fn offered(&self) -> Result<u64> {
        let command = command(&self.vdevs(), self.queues, FREE_SECONDS);
        let reports = fio::parse_all(&self.guest.start(&command)?.ok_within(DEADLINE)?)?;
        let each = reports.iter().map(|report| report.read.iops);
        Ok(each.sum::<f64>() as u64)
    }

    fn one(&self, refill: u64, max: u64) -> Result<Value> {
        let run = self.run(refill, max, SECONDS)?;
        run.worst.check(refill, max)?;
        let tolerance = 1.0 + run.due as f64 * TOLERANCE;
        for served in &run.served {
            let off = *served as f64 - run.due as f64;
            check::within(
                &format!("requests in {SECONDS} s off from {}", run.due),
                off,
                -tolerance..=tolerance,
            )?;
        }
        let spread = spread(&run.output, self.queues, refill)?;
        Ok(json!({
            "served": run.served, "due": run.due, "spread_percent": spread,
            "worst_excess_tokens": run.worst.admitted,
            "worst_excess_tokens_sent": run.worst.sent,
            "longest_way_to_the_device_usec": run.worst.way / 1000,
            "idle_percent": run.idle,
        }))
    }

    /// All disks have this limit, and the guest asks for as much as it can.
    fn run(&self, refill: u64, max: u64, seconds: u64) -> Result<Run> {
        let (host, guest, vdevs) = (self.host, self.guest, self.vdevs());
        let devices = self
            .disks
            .iter()
            .map(|disk| disk.dev_t(host))
            .collect::<Result<Vec<_>>>()?;
        self.limit(refill, max)?;
        let sources = [
            Source::bios_of(&devices),
            Source::own("rblkback/rblkback_admit"),
        ];
        let trace = Trace::start_large(host, &sources)?;
        let (busy_before, begin) = self.times()?;
        let job = guest.start(&command(&vdevs, self.queues, seconds))?;
        let output = job.ok_within(DEADLINE)?;
        let (busy, end) = self.times()?;
        let events = trace.stop()?;
        for vdev in &vdevs {
            guest.vbd(vdev).unlimit()?;
        }
        let (mut served, mut worst) = (Vec::new(), Excess::default());
        for (device, vdev) in devices.iter().zip(&vdevs) {
            let sent = sent(&events, *device);
            let admitted = admitted(&events, guest.vbd(vdev).vdev);
            check::equal("requests admitted", admitted.len(), sent.len())?;
            worst.note(&admitted, &sent, refill);
            let first = *sent.first().context("no request")?;
            served.push(count_between(&sent, first, first + seconds * NS));
        }
        Ok(Run {
            served,
            due: seconds * refill + max,
            worst,
            output,
            idle: 100.0 - (busy - busy_before) * 100.0 / (end - begin),
        })
    }
}

/// What came of a run.
struct Run {
    /// Requests of each disk.
    served: Vec<u64>,
    due: u64,
    worst: Excess,
    /// fio's.
    output: String,
    /// Percent of the time in which the processor had nothing to do.
    idle: f64,
}

/// When each request was sent to a device.
fn sent(events: &[Event], device: u32) -> Vec<u64> {
    let of_device = |event: &&Event| event.source == 0 && event.fields[0] == device;
    events
        .iter()
        .filter(of_device)
        .map(|event| event.time)
        .collect()
}

/// When each request of a disk was admitted.
fn admitted(events: &[Event], vdev: u32) -> Vec<u64> {
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
    let disk = Disk::blank(host, "nb0", 64)?;
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
