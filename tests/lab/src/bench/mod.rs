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
pub mod plan;
mod record;
mod table;

use std::collections::VecDeque;
use std::iter;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::thread;
use std::time::Instant;

use anyhow::Result;
use serde_json::Value;

use crate::device::Device;
use crate::host::Host;
use crate::lab::Lab;
use crate::run;
use crate::run::LANES;
use crate::scenario::Kind;
use crate::scenario::Machine;
use bound::Bound;
use findings::Findings;
use plan::Run;
use record::Record;

/// What is done on a host of its own.
#[derive(Clone, Copy)]
enum Task {
    Run(Run),
    Idle,
    Bound(&'static Bound),
}

impl Task {
    fn name(self) -> String {
        match self {
            Task::Run(run) => run.name(),
            Task::Idle => idle::NAME.into(),
            Task::Bound(bound) => bound.name.into(),
        }
    }

    fn kind(self) -> Kind {
        match self {
            Task::Run(_) | Task::Idle => Kind::Timed,
            Task::Bound(_) => Kind::Parallel,
        }
    }

    fn device(self) -> Device {
        match self {
            Task::Run(run) => run.device,
            Task::Idle => Device::AtOnce,
            Task::Bound(bound) => bound.device,
        }
    }

    fn seconds(self) -> u64 {
        match self {
            Task::Run(run) => run.seconds(),
            Task::Idle => idle::TAKES,
            Task::Bound(bound) => bound.seconds(),
        }
    }
}

/// What came of one.
enum Found {
    Record(Run, Record),
    Idle(Value),
    Bound(Value),
}

/// Runs all, or one such as `read-4k-1` or `read-4k-1@80us`, and leaves a table,
/// `build/results/bench.json` and `build/bench.png`. True if nothing went wrong.
pub fn run(lab: &Lab, only: Option<&str>) -> Result<bool> {
    let begin = Instant::now();
    let (alone, beside): (Vec<Task>, Vec<Task>) = tasks(only)?
        .into_iter()
        .partition(|task| task.kind() == Kind::Parallel);
    println!("this will take {} minutes", minutes(&alone, &beside));
    let queue = Mutex::new(VecDeque::from(beside));
    let next = || lock(&queue).pop_front();
    let findings = Mutex::new(Findings::default());
    thread::scope(|scope| {
        for _ in 0..LANES {
            scope.spawn(|| {
                while let Some(task) = next() {
                    perform(lab, task, &findings);
                }
            });
        }
    });
    // With both processors to itself.
    for task in alone {
        perform(lab, task, &findings);
    }
    let findings = findings
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    findings.report(lab, begin)
}

/// How long tasks will take on two idle processors.
fn minutes(alone: &[Task], beside: &[Task]) -> u64 {
    let sum = |tasks: &[Task]| tasks.iter().map(|task| task.seconds()).sum::<u64>();
    let longest = beside.iter().map(|task| task.seconds()).max().unwrap_or(0);
    let lanes = (sum(beside) / LANES as u64).max(longest);
    (sum(alone) + lanes).div_ceil(60)
}

/// The dearest first, so that no lane is left with one.
fn tasks(only: Option<&str>) -> Result<Vec<Task>> {
    let mut others = iter::once(Task::Idle).chain(bound::ALL.iter().map(Task::Bound));
    let Some(name) = only else {
        let runs = plan::all().into_iter().rev().map(Task::Run);
        return Ok(runs.chain(others).collect());
    };
    match others.find(|task| task.name() == name) {
        Some(task) => Ok(vec![task]),
        None => Ok(vec![Task::Run(Run::by_name(name)?)]),
    }
}

fn perform(lab: &Lab, task: Task, findings: &Mutex<Findings>) {
    let begin = Instant::now();
    let name = task.name();
    let found = Host::boot(lab, Machine::of(task.kind())).and_then(|host| {
        host.use_device(task.device());
        run::watched(&host, &name, || match task {
            Task::Run(run) => measure::run(&host, run).map(|record| Found::Record(run, record)),
            Task::Idle => idle::idle(&host).map(Found::Idle),
            Task::Bound(which) => bound::bound(&host, which).map(Found::Bound),
        })
    });
    let took = begin.elapsed().as_secs();
    match &found {
        Ok(_) => println!("measured {name:<24} {took:>4} s"),
        Err(error) => println!("FAILED   {name:<24} {took:>4} s\n{error:#}"),
    }
    lock(findings).add(name, found.ok());
}

/// What one lane leaves is whole, whatever becomes of the other.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
