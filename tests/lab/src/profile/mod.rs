// SPDX-License-Identifier: GPL-2.0

//! Where the instructions of a request go in dom0 and Xen, function by function, for xen-blkback
//! and for rblkback.
//!
//! QEMU names each instruction that it executes ([`log`]). By its address it belongs to a function
//! ([`symbols`]) and, as calls and returns show in the addresses, to a path of callers ([`paths`]);
//! whose it is show the page tables in use ([`stints`]).

mod bench;
mod cost;
mod groups;
mod log;
mod paths;
mod report;
mod stints;
mod symbols;

use std::collections::BTreeMap;
use std::fs;
use std::time::Instant;

use anyhow::Result;
use serde::Serialize;

use self::bench::Bench;
use self::cost::Cost;
use self::report::Comparison;
use crate::bench::jobs::Job;
use crate::bench::plan::Run;
use crate::check;
use crate::device::Device;
use crate::host::Host;
use crate::lab::Backend;
use crate::lab::Lab;
use crate::results::round;
use crate::results::write_json;
use crate::scenario::Kind;
use crate::scenario::Machine;

/// How the sum of all instructions may differ from Xen's account, in percent.
const TOLERANCE: f64 = 5.0;
/// Stands beside the numbers.
const ENVIRONMENT: &str = "emulated by QEMU, one processor; instructions, not time: caches, TLBs and memory cost \
     nothing, `rep` counts each repetition";

/// Jobs of the benchmark whose requests are one bio each.
const JOBS: [&str; 4] = ["read-4k-1", "read-4k-32", "write-4k-32", "read-64k-8"];
/// Those that are looked at when nobody asks for any.
const USUAL: usize = 2;

/// All that was seen.
#[derive(Serialize)]
struct Record<'a> {
    ok: bool,
    seconds: f64,
    environment: &'static str,
    lab: &'a BTreeMap<String, String>,
    /// Of the whole host, for each job and backend.
    instructions_looked_at: u64,
    jobs: Vec<Comparison>,
}

/// Looks at what is named, or at the usual jobs. True if the sums are what Xen accounts for.
pub fn run(lab: &Lab, only: &[String], instructions: u64) -> Result<bool> {
    let begin = Instant::now();
    let looks = looks(only)?;
    let host = Host::boot(lab, Machine::of(Kind::Timed))?;
    println!("{ENVIRONMENT}");
    let mut compared = Vec::new();
    for (job, device) in looks {
        host.use_device(device);
        let bench = Bench::new(&host)?;
        let cost = |backend: Backend| {
            let seen = bench.look(backend, job, instructions)?;
            Cost::new(&backend.module().replace('_', "-"), &seen)
        };
        let (theirs, ours) = (cost(Backend::Blkback)?, cost(Backend::Rblkback)?);
        let comparison = Comparison {
            job: job.name,
            device: device.name(),
            about: job.options,
            costs: [theirs, ours],
        };
        println!("\n{}", comparison.table());
        compared.push(comparison);
        bench.end()?;
    }
    write(lab, begin, instructions, compared)
}

/// The jobs that are named, each with its device, or the usual ones.
fn looks(only: &[String]) -> Result<Vec<(&'static Job, Device)>> {
    let usual = JOBS[..USUAL].iter().map(|name| name.to_string());
    let names: Vec<String> = match only {
        [] => usual.collect(),
        only => only.to_vec(),
    };
    let look = |name: &String| {
        let Run { job, device } = Run::by_name(name)?;
        check::that(JOBS.contains(&job.name), || {
            format!("{} is not looked at, only {JOBS:?}", job.name)
        })?;
        Ok((job, device))
    };
    names.iter().map(look).collect()
}

fn write(lab: &Lab, begin: Instant, instructions: u64, jobs: Vec<Comparison>) -> Result<bool> {
    let folded = lab.build("results/profile.folded");
    let record = Record {
        ok: jobs
            .iter()
            .flat_map(|job| &job.costs)
            .all(|cost| cost.difference_percent.abs() <= TOLERANCE),
        seconds: round(begin.elapsed()),
        environment: ENVIRONMENT,
        lab: &lab.versions,
        instructions_looked_at: instructions,
        jobs,
    };
    let json = lab.build("results/profile.json");
    write_json(&json, &record)?;
    fs::write(
        &folded,
        record
            .jobs
            .iter()
            .map(Comparison::folded)
            .collect::<String>(),
    )?;
    println!(
        "figures: {}   stacks: {}   {:.0} s",
        json.display(),
        folded.display(),
        record.seconds
    );
    if !record.ok {
        println!("the sums differ from Xen's account by more than {TOLERANCE} %");
    }
    Ok(record.ok)
}
