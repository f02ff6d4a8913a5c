// SPDX-License-Identifier: GPL-2.0

//! Where dom0 is what limits, on a host with two processors that really run beside each other: several
//! guests at once, with dom0's only virtual processor on the one and the guests on the other; and a guest
//! with several queues, with a virtual processor of dom0 on each.
//!
//! blkfront, a guest's system calls and fio take ten times the instructions that dom0 does for a
//! request, and one processor would never have dom0 busy. So the guests keep their rings full with
//! a frontend of their own, which does nothing else (`flood`, tests/frontend).
//!
//! Time is real time here, so what else the computer does shows; hence many pairs of short runs,
//! and the spread of their ratios.

use std::slice;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use anyhow::Result;
use serde_json::Value;
use serde_json::json;

use super::measure;
use super::record::median;
use crate::device::Device;
use crate::disk::Disk;
use crate::flood;
use crate::flood::Flooded;
use crate::guest::Guest;
use crate::host::Host;
use crate::lab::Backend;
use crate::shell::Running;

/// Who is bound by what.
pub struct Bound {
    pub name: &'static str,
    pub device: Device,
    guests: usize,
    /// Of each guest.
    queues: u32,
    /// dom0's, each on a real one of its own. The guests are on the last one.
    processors: usize,
    /// Of runs.
    pairs: usize,
}

pub const ALL: [Bound; 3] = [
    Bound {
        name: "dom0-bound",
        device: Device::AtOnce,
        guests: 3,
        queues: 1,
        processors: 1,
        pairs: 7,
    },
    Bound {
        name: "dom0-bound@80us",
        device: Device::Us80,
        guests: 3,
        queues: 1,
        processors: 1,
        pairs: 7,
    },
    Bound {
        name: "dom0-bound-queues",
        device: Device::AtOnce,
        guests: 1,
        queues: 4,
        processors: 2,
        pairs: 5,
    },
];

/// Seconds of a run on two idle processors, with its part of what is done once.
const SECONDS_A_RUN: u64 = 23;

impl Bound {
    /// How long it takes on two idle processors.
    pub fn seconds(&self) -> u64 {
        (1 + 2 * self.pairs as u64) * SECONDS_A_RUN
    }
}

/// Of a ring: a guest that is woken has so much to do that waking it costs little. With less, the
/// guests are busy for nine tenths of the time, and as much what limits as dom0 is.
const ORDER: u32 = 4;
/// Of a run; those of the warm-up are not counted.
const SECONDS: u64 = 10;
const WARM_UP: u64 = 2;
const DEADLINE: Duration = Duration::from_secs(300);

/// What the guests reach together on one backend, and how busy the processors were meanwhile.
struct Run {
    iops: f64,
    /// Percent of dom0's processor.
    dom0: f64,
    /// Percent of that of the guests.
    guests: f64,
}

impl Run {
    fn json(&self) -> Value {
        json!({"iops": self.iops, "dom0_percent": self.dom0, "guests_percent": self.guests})
    }
}

/// Pairs of runs, each on xen-blkback and on rblkback, beginning with the one and the other in turn.
pub fn bound(host: &Host<'_>, bound: &Bound) -> Result<Value> {
    place(host, bound)?;
    let disks = measure::blank_disks(host, bound.guests as u32)?;
    let guests: Vec<Guest<'_, '_>> = (0..bound.guests)
        .map(|_| host.guest("bound").own_frontend().start())
        .collect::<Result<_>>()?;
    for guest in &guests {
        let last = bound.processors.max(2) - 1;
        host.ok(&format!("xl vcpu-pin {} all {last}", guest.name))?;
    }
    // Whatever is done the first time.
    run(host, bound, &guests, &disks, Backend::Blkback)?;
    let mut pairs = Vec::new();
    for number in 0..bound.pairs {
        let mut pair = [Backend::Blkback, Backend::Rblkback].map(|backend| (backend, None));
        if number % 2 == 1 {
            pair.reverse();
        }
        for (backend, measured) in &mut pair {
            *measured = Some(run(host, bound, &guests, &disks, *backend)?);
        }
        let of = |wanted| -> Result<&Run> {
            let (_, run) = pair
                .iter()
                .find(|(backend, _)| *backend == wanted)
                .context("a pair")?;
            run.as_ref().context("a run")
        };
        let (theirs, ours) = (of(Backend::Blkback)?, of(Backend::Rblkback)?);
        pairs.push(json!({
            "ratio": ours.iops / theirs.iops, "blkback": theirs.json(), "rblkback": ours.json(),
        }));
    }
    guests.into_iter().try_for_each(Guest::destroy)?;
    disks.into_iter().try_for_each(|disk| disk.remove(host))?;
    summary(bound, pairs).context("a pair without a ratio")
}

/// Puts dom0's virtual processors where they belong.
fn place(host: &Host<'_>, bound: &Bound) -> Result<()> {
    let count = bound.processors;
    let online = match count {
        1 => "0".into(),
        _ => format!("0-{}", count - 1),
    };
    host.ok(&format!(
        "xl vcpu-set Domain-0 {count} && lab_file /sys/devices/system/cpu/online '^{online}$' 30"
    ))?;
    (0..count).try_for_each(|number| {
        host.ok(&format!("xl vcpu-pin Domain-0 {number} {number}"))
            .map(drop)
    })
}

fn summary(bound: &Bound, pairs: Vec<Value>) -> Option<Value> {
    let each = |get: fn(&Value) -> &Value| -> Option<Vec<f64>> {
        pairs.iter().map(|pair| get(pair).as_f64()).collect()
    };
    let ratios = each(|pair| &pair["ratio"])?;
    let mut busy = each(|pair| &pair["blkback"]["dom0_percent"])?;
    busy.extend(each(|pair| &pair["rblkback"]["dom0_percent"])?);
    Some(json!({
        "iops_vs_blkback_median": median(&ratios)?,
        "iops_vs_blkback_min": least(&ratios)?,
        "iops_vs_blkback_max": ratios.iter().copied().reduce(f64::max)?,
        "dom0_percent_min": least(&busy)?,
        "guests": bound.guests, "queues": bound.queues, "processors": bound.processors,
        "seconds": SECONDS,
        "environment": "emulated by QEMU (TCG), two processors beside each other, in real time",
        "pairs": pairs,
    }))
}

fn least(all: &[f64]) -> Option<f64> {
    all.iter().copied().reduce(f64::min)
}

fn run(
    host: &Host<'_>,
    bound: &Bound,
    guests: &[Guest<'_, '_>],
    disks: &[Disk],
    backend: Backend,
) -> Result<Run> {
    host.load(backend)?;
    host.ok(&format!(
        "echo {} >/sys/module/{}/parameters/max_queues",
        bound.queues,
        backend.module()
    ))?;
    for (guest, disk) in guests.iter().zip(disks) {
        guest.offer(disk, "xvda")?;
        guest.vbd("xvda").wait_state("2")?;
    }
    let flood = flood::command_over(bound.queues, ORDER, WARM_UP, SECONDS);
    let (before, begin) = (run_times(host, guests)?, Instant::now());
    let running: Vec<Running<'_>> = guests
        .iter()
        .map(|guest| guest.start(&flood))
        .collect::<Result<_>>()?;
    let flooded: Vec<Flooded> = running
        .into_iter()
        .map(|flood| Flooded::parse(&flood.ok_within(DEADLINE)?))
        .collect::<Result<_>>()?;
    let percent = 100.0 / begin.elapsed().as_nanos() as f64;
    let after = run_times(host, guests)?;
    for (guest, disk) in guests.iter().zip(disks) {
        measure::detach(guest, slice::from_ref(disk))?;
    }
    Ok(Run {
        iops: flooded.iter().map(Flooded::iops).sum(),
        dom0: (after.0 - before.0) * percent,
        guests: (after.1 - before.1) * percent,
    })
}

/// Nanoseconds that dom0 has run, and that the guests have together.
fn run_times(host: &Host<'_>, guests: &[Guest<'_, '_>]) -> Result<(f64, f64)> {
    let times = host.run_times(guests)?;
    let (dom0, others) = times.split_first().context("no run time of dom0")?;
    Ok((*dom0 as f64, others.iter().sum::<u64>() as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spread() {
        let run = |busy: f64| json!({"dom0_percent": busy});
        let pairs = [1.0, 1.5, 1.25].map(
            |ratio| json!({"ratio": ratio, "blkback": run(99.0), "rblkback": run(95.0 + ratio)}),
        );
        let summary = summary(&ALL[0], pairs.to_vec()).unwrap();
        assert_eq!(summary["iops_vs_blkback_median"], 1.25);
        assert_eq!(summary["iops_vs_blkback_max"], 1.5);
        assert_eq!(summary["dom0_percent_min"], 96.0);
        assert!(super::summary(&ALL[0], vec![]).is_none());
    }
}
