// SPDX-License-Identifier: GPL-2.0

//! What the gate costs, in the emulated processor's instructions.

use anyhow::Context;
use anyhow::Result;
use serde_json::json;

use crate::check;
use crate::disk::Disk;
use crate::fio::Job;
use crate::guest::Guest;
use crate::host::Host;
use crate::results::Figures;

const REQUESTS: u64 = 60_000;
const ROUNDS: usize = 3;
const OWN: &str = "/lab/rblkback.ko";
/// The same, but for the gate; `tests/cost/gate` builds it.
const UNGATED: &str = "/lab/ungated.ko";
/// Out of reach: what a request meets when it is never held.
const LIMIT: u64 = 1_000_000_000;

/// What was measured of one kind of run, one value a round.
#[derive(Default)]
struct Measured {
    /// Nanoseconds of dom0's, with what Xen does for it, for each request.
    cost: Vec<f64>,
    iops: Vec<f64>,
}

/// A guest that keeps the processor busy with random reads, on the module without a gate, with
/// the gate and no limit, and under a limit out of reach.
pub fn gate_cost(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    host.ok(&format!("[ -e {UNGATED} ]"))
        .context("run `tests/cost/gate`")?;
    let disk = Disk::instant(host, "nb0", 1024)?;
    let guest = host.guest("cost").start()?;
    let mut all: [Measured; 3] = Default::default();
    let kinds = [(UNGATED, false), (OWN, false), (OWN, true)];
    for _ in 0..ROUNDS {
        for ((module, limited), measured) in kinds.iter().zip(&mut all) {
            let (cost, iops) = run(host, &guest, &disk, module, *limited)?;
            measured.cost.push(cost);
            measured.iops.push(iops);
        }
    }
    let [ungated, free, limited] = &all;
    let more = |of: &Measured| 100.0 * (mean(&of.cost) / mean(&ungated.cost) - 1.0);
    let slower = |of: &Measured| 100.0 * (1.0 - mean(&of.iops) / mean(&ungated.iops));
    for (name, measured) in [
        ("ungated", ungated),
        ("no limit", free),
        ("out of reach", limited),
    ] {
        figures.insert(
            name.into(),
            json!({
                "dom0_ns_per_request": measured.cost, "iops": measured.iops,
                "dom0_percent_more": more(measured), "iops_percent_less": slower(measured),
            }),
        );
    }
    check::within(
        "percent of dom0's time without a limit",
        more(free),
        -100.0..=0.5,
    )?;
    check::within(
        "percent of dom0's time under a limit",
        more(limited),
        -100.0..=3.0,
    )?;
    check::within(
        "percent of IOPS without a limit",
        slower(free),
        -100.0..=0.5,
    )?;
    check::within(
        "percent of IOPS under a limit",
        slower(limited),
        -100.0..=1.0,
    )?;
    guest.destroy()?;
    disk.remove(host)
}

fn run(
    host: &Host<'_>,
    guest: &Guest<'_, '_>,
    disk: &Disk,
    module: &str,
    limited: bool,
) -> Result<(f64, f64)> {
    host.ok(&format!("rmmod rblkback && insmod {module}"))?;
    let vbd = guest.attach(disk, "xvda")?;
    if limited {
        vbd.limit(LIMIT, LIMIT)?;
    }
    let measured = measure(
        host,
        guest,
        &Job::random_reads("xvda", 600).depth(32),
        REQUESTS,
    )?;
    host.wait_unreferenced()?;
    Ok(measured)
}

/// Runs a job of so many requests on `xvda`, which is detached afterwards: what each request costs
/// dom0 in nanoseconds, and how many there are a second.
fn measure(host: &Host<'_>, guest: &Guest<'_, '_>, job: &Job, requests: u64) -> Result<(f64, f64)> {
    let job = |requests: u64| {
        job.clone()
            .with(&format!("--time_based=0 --number_ios={requests}"))
            .run(guest)
    };
    // Whatever is done the first time.
    job(2000)?;
    let before = host.run_time()?;
    let report = job(requests)?;
    let after = host.run_time()?;
    let state = guest.vbd("xvda").path("state");
    guest.detach("xvda")?;
    host.store_wait(&state, "absent")?;
    let done = report.read.total_ios + report.write.total_ios;
    check::equal("requests", done, requests)?;
    let cost = (after - before) as f64 / requests as f64;
    Ok((cost, report.read.iops + report.write.iops))
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}
