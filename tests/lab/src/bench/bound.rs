// SPDX-License-Identifier: GPL-2.0

//! Where dom0 is what limits: several guests at once, on a host with two processors that really
//! run beside each other. dom0 has one virtual processor on the one and may use a part of it
//! alone; the guests share the other. Time is real time here, so what else the computer does
//! shows; hence many pairs of short runs, and the spread of their ratios.

use std::time::Duration;

use anyhow::Context;
use anyhow::Result;
use serde_json::Value;
use serde_json::json;

use super::measure;
use super::record::median;
use crate::disk::Disk;
use crate::fio;
use crate::guest::Guest;
use crate::host::Host;
use crate::lab::Backend;
use crate::shell::Running;

pub const NAME: &str = "dom0-bound";
const GUESTS: usize = 3;
const PAIRS: usize = 9;
/// Of which the first ones are not counted.
const SECONDS: u64 = 10;
const WARM_UP: u64 = 2;
/// Percent of its processor that dom0 may use. A guest spends ten times as much on a request as
/// dom0 does, so without that it would never be dom0 that they wait for.
const CAP: u32 = 10;
const OPTIONS: &str = "--rw=randread --bs=4k --iodepth=32 --norandommap --time_based";
const DEADLINE: Duration = Duration::from_secs(300);

/// What the guests reach together on one backend, and how busy dom0 was meanwhile.
struct Run {
    iops: f64,
    /// Percent of what it may use.
    dom0_percent: f64,
}

/// Pairs of runs, each on xen-blkback and on rblkback, beginning with the one and the other in turn.
pub fn bound(host: &Host<'_>) -> Result<Value> {
    host.ok(
        "xl vcpu-set Domain-0 1 && lab_file /sys/devices/system/cpu/online '^0$' 30 && \
         xl vcpu-pin Domain-0 0 0",
    )?;
    let disks = measure::instant_disks(host, GUESTS as u32)?;
    let guests: Vec<Guest<'_, '_>> = (0..GUESTS)
        .map(|_| host.guest("bound").start())
        .collect::<Result<_>>()?;
    for guest in &guests {
        host.ok(&format!("xl vcpu-pin {} all 1", guest.name))?;
    }
    // Whatever is done the first time.
    run(host, &guests, &disks, Backend::Blkback)?;
    let mut pairs = Vec::new();
    for number in 0..PAIRS {
        let mut pair = [Backend::Blkback, Backend::Rblkback].map(|backend| (backend, None));
        if number % 2 == 1 {
            pair.reverse();
        }
        for (backend, measured) in &mut pair {
            *measured = Some(run(host, &guests, &disks, *backend)?);
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
            "iops_of_blkback": theirs.iops, "iops_of_rblkback": ours.iops,
            "ratio": ours.iops / theirs.iops,
            "dom0_percent_of_blkback": theirs.dom0_percent, "dom0_percent_of_rblkback": ours.dom0_percent,
        }));
    }
    guests.into_iter().try_for_each(Guest::destroy)?;
    disks.into_iter().try_for_each(|disk| disk.remove(host))?;
    summary(pairs).context("a pair without a ratio")
}

fn summary(pairs: Vec<Value>) -> Option<Value> {
    let ratios: Vec<f64> = pairs
        .iter()
        .map(|pair| pair["ratio"].as_f64())
        .collect::<Option<_>>()?;
    Some(json!({
        "iops_vs_blkback_median": median(&ratios)?,
        "iops_vs_blkback_min": ratios.iter().copied().reduce(f64::min)?,
        "iops_vs_blkback_max": ratios.iter().copied().reduce(f64::max)?,
        "guests": GUESTS, "dom0_cap_percent": CAP, "options": OPTIONS, "seconds": SECONDS,
        "environment": "emulated by QEMU (TCG), two processors beside each other, in real time",
        "pairs": pairs,
    }))
}

fn run(host: &Host<'_>, guests: &[Guest<'_, '_>], disks: &[Disk], backend: Backend) -> Result<Run> {
    host.load(backend)?;
    for (guest, disk) in guests.iter().zip(disks) {
        guest.attach(disk, "xvda")?;
    }
    let (warm_up, all) = (WARM_UP, WARM_UP + SECONDS);
    let command = fio::Job::of(
        "/dev/xvda",
        &format!("{OPTIONS} --ramp_time={warm_up} --runtime={SECONDS} --output=/run/report"),
    )
    .command();
    host.ok(&format!("xl sched-credit2 -d Domain-0 -c {CAP}"))?;
    let before = host.run_time()? as f64;
    let running: Vec<Running<'_>> = guests
        .iter()
        .map(|guest| guest.start(&command))
        .collect::<Result<_>>()?;
    for fio in running {
        fio.ok_within(DEADLINE)?;
    }
    let spent = host.run_time()? as f64 - before;
    host.ok("xl sched-credit2 -d Domain-0 -c 0")?;
    let mut iops = 0.0;
    for guest in guests {
        iops += fio::parse(&guest.ok("cat /run/report")?)?.read.iops;
        guest.detach("xvda")?;
    }
    for guest in guests {
        host.store_wait(&guest.vbd("xvda").path("state"), "absent")?;
    }
    let may = all as f64 * 1e9 * f64::from(CAP) / 100.0;
    Ok(Run {
        iops,
        dom0_percent: 100.0 * spent / may,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spread() {
        let pairs = [1.0, 1.5, 1.25].map(|ratio| json!({"ratio": ratio}));
        let summary = summary(pairs.to_vec()).unwrap();
        assert_eq!(summary["iops_vs_blkback_median"], 1.25);
        assert_eq!(summary["iops_vs_blkback_max"], 1.5);
        assert!(super::summary(vec![]).is_none());
    }
}
