// SPDX-License-Identifier: GPL-2.0

//! The benchmark: the same jobs of the same guest on the same device, served by xen-blkback and by
//! rblkback. What counts is what a request costs dom0, and how the two compare; see
//! Documentation/bench.rst.

mod bound;
mod counters;
mod findings;
mod idle;
pub mod jobs;
mod measure;
mod picture;
mod record;
mod table;

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::thread;
use std::time::Instant;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use serde_json::Value;

use crate::device::Device;
use crate::host::Host;
use crate::lab::Lab;
use crate::run;
use crate::run::LANES;
use crate::scenario::Kind;
use findings::Findings;
use jobs::Job;
use record::Record;

/// What is done on a host of its own.
#[derive(Clone, Copy)]
enum Task {
    Job(&'static Job),
    Idle,
    Bound,
}

impl Task {
    fn name(self) -> &'static str {
        match self {
            Task::Job(job) => job.name,
            Task::Idle => idle::NAME,
            Task::Bound => bound::NAME,
        }
    }

    fn kind(self) -> Kind {
        match self {
            Task::Job(_) | Task::Idle => Kind::Timed,
            Task::Bound => Kind::Parallel,
        }
    }
}

/// What came of one.
enum Found {
    Record(Record),
    Idle(Value),
    Bound(Value),
}

/// Runs all jobs, or one, and leaves a table, `build/results/bench.json` and `build/bench.png`. One job
/// can be run on a device that answers late, such as `read-4k-1@80us`. True if nothing went wrong.
pub fn run(lab: &Lab, only: Option<&str>) -> Result<bool> {
    let begin = Instant::now();
    let (only, device) = on_device(only)?;
    let (alone, beside): (Vec<Task>, Vec<Task>) = tasks(only)?
        .into_iter()
        .partition(|task| task.kind() == Kind::Parallel);
    let queue = Mutex::new(VecDeque::from(beside));
    let next = || lock(&queue).pop_front();
    let findings = Mutex::new(Findings::default());
    thread::scope(|scope| {
        for _ in 0..LANES {
            scope.spawn(|| {
                while let Some(task) = next() {
                    perform(lab, task, device, &findings);
                }
            });
        }
    });
    // With both processors to itself.
    for task in alone {
        perform(lab, task, device, &findings);
    }
    let findings = findings
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    findings.report(lab, begin)
}

/// A job's name, and the device behind it.
fn on_device(name: Option<&str>) -> Result<(Option<&str>, Device)> {
    let Some((job, device)) = name.and_then(|name| name.split_once('@')) else {
        return Ok((name, Device::AtOnce));
    };
    let known = Device::by_name(device);
    Ok((
        Some(job),
        known.with_context(|| format!("there is no device {device:?}"))?,
    ))
}

/// The dearest first, so that no lane is left with one.
fn tasks(only: Option<&str>) -> Result<Vec<Task>> {
    let all: Vec<Task> = [Task::Idle]
        .into_iter()
        .chain(jobs::ALL.iter().rev().map(Task::Job))
        .chain([Task::Bound])
        .collect();
    let Some(name) = only else {
        return Ok(all);
    };
    match all.iter().find(|task| task.name() == name) {
        Some(task) => Ok(vec![*task]),
        None => {
            let names: Vec<&str> = all.iter().rev().map(|task| task.name()).collect();
            bail!("there is no job {name:?}; there are {}", names.join(", "))
        }
    }
}

fn perform(lab: &Lab, task: Task, device: Device, findings: &Mutex<Findings>) {
    let begin = Instant::now();
    let found = Host::boot(lab, task.kind()).and_then(|host| {
        host.use_device(device);
        run::watched(&host, task.name(), || match task {
            Task::Job(job) => measure::job(&host, job).map(Found::Record),
            Task::Idle => idle::idle(&host).map(Found::Idle),
            Task::Bound => bound::bound(&host).map(Found::Bound),
        })
    });
    let (name, took) = (task.name(), begin.elapsed().as_secs());
    match &found {
        Ok(_) => println!("measured {name:<20} {took:>4} s"),
        Err(error) => println!("FAILED   {name:<20} {took:>4} s\n{error:#}"),
    }
    lock(findings).add(task, found.ok());
}

/// What one lane leaves is whole, whatever becomes of the other.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
