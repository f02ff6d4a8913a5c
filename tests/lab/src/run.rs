// SPDX-License-Identifier: GPL-2.0

//! Runs checks and scenarios, at most two hosts at a time, and judges each.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use anyhow::Result;
use anyhow::bail;

use crate::checks;
use crate::checks::Check;
use crate::debug;
use crate::host::Host;
use crate::lab::Lab;
use crate::logs;
use crate::logs::Mark;
use crate::results::Entry;
use crate::results::Figures;
use crate::results::Results;
use crate::results::round;
use crate::scenario::Kind;
use crate::scenario::Scenario;
use crate::scenarios;

/// An emulated host that counts instructions keeps one processor busy.
pub const LANES: usize = 2;
const LOG_LINES: usize = 40;

/// What one lane does before it looks for more.
enum Job {
    Checks(Vec<&'static Check>),
    /// On one host.
    Scenarios(Kind, Vec<&'static Scenario>),
}

/// Runs what is named, or everything. True if all passed.
pub fn test(lab: &Lab, only: &[String]) -> Result<bool> {
    let begin = Instant::now();
    let known = |name: &String| {
        checks::ALL.iter().any(|c| c.name == name) || scenarios::ALL.iter().any(|s| s.name == name)
    };
    if let Some(name) = only.iter().find(|name| !known(name)) {
        bail!("there is no scenario {name:?}; `lab list` shows all");
    }
    let results = Results::default();
    let jobs = Mutex::new(plan(lab, only));
    thread::scope(|scope| {
        for _ in 0..LANES {
            scope.spawn(|| {
                while let Some(job) = next(&jobs) {
                    match job {
                        Job::Checks(list) => list
                            .into_iter()
                            .for_each(|check| run_check(lab, check, &results)),
                        Job::Scenarios(kind, list) => run_scenarios(lab, kind, list, &results),
                    }
                }
            });
        }
    });
    // With both processors to itself.
    for list in on_hosts(lab, wanted(lab, only, Kind::Parallel)) {
        run_scenarios(lab, Kind::Parallel, list, &results);
    }
    results.write(
        &lab.build(lab.amount("results/test.json", "results/test-debug.json")),
        &lab.versions,
        begin.elapsed(),
    )?;
    let (passed, failed) = results.counts();
    println!("{} s in all", begin.elapsed().as_secs());
    println!("{passed} passed, {failed} failed");
    Ok(failed == 0)
}

fn next(jobs: &Mutex<VecDeque<Job>>) -> Option<Job> {
    jobs.lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
        .pop_front()
}

/// The longest first, so that no lane is left with one when the other has nothing to do any more.
fn plan(lab: &Lab, only: &[String]) -> VecDeque<Job> {
    let mut jobs = VecDeque::new();
    // They do not depend on a kernel.
    if lab.debug_kernel.is_none() {
        let checks = checks::ALL
            .iter()
            .filter(|c| is_wanted(only, c.name))
            .collect();
        jobs.push_back(Job::Checks(checks));
    }
    for kind in [Kind::Cycles, Kind::Timed, Kind::Plain] {
        for list in on_hosts(lab, wanted(lab, only, kind)) {
            jobs.push_back(Job::Scenarios(kind, list));
        }
    }
    jobs.make_contiguous().sort_by_key(|job| match job {
        Job::Scenarios(_, list) => !list.iter().any(|s| scenarios::LONG.contains(&s.name)),
        Job::Checks(_) => true,
    });
    jobs
}

/// Each scenario has a host of its own. The debug kernel looks at what is left of a whole life at
/// its end, which takes long, so there they share one.
fn on_hosts(lab: &Lab, list: Vec<&'static Scenario>) -> Vec<Vec<&'static Scenario>> {
    let mut alone: Vec<_> = list.into_iter().map(|scenario| vec![scenario]).collect();
    if lab.debug_kernel.is_some() {
        let is_last = |list: &Vec<&Scenario>| scenarios::LAST.contains(&list[0].name);
        let (last, others): (Vec<_>, Vec<_>) = alone.into_iter().partition(is_last);
        alone = last;
        alone.push(others.concat());
    }
    alone
}

fn is_wanted(only: &[String], name: &str) -> bool {
    only.is_empty() || only.iter().any(|o| o == name)
}

fn wanted(lab: &Lab, only: &[String], kind: Kind) -> Vec<&'static Scenario> {
    let debug = lab.debug_kernel.is_some();
    let here = |s: &Scenario| {
        s.kind == kind || debug && kind == Kind::Parallel && debug::has_twice(s.name)
    };
    let long = |s: &Scenario| {
        !lab.at_length && scenarios::AT_LENGTH.contains(&s.name)
            || scenarios::BY_NAME.contains(&s.name)
    };
    let skipped = |s: &Scenario| only.is_empty() && (debug && !debug::has(s.name) || long(s));
    let fits =
        |s: &&Scenario| here(s) && is_wanted(only, s.name) && s.fits(lab.backend) && !skipped(s);
    scenarios::ALL.iter().filter(fits).collect()
}

fn run_check(lab: &Lab, check: &Check, results: &Results) {
    let begin = Instant::now();
    let mut figures = Figures::new();
    let verdict = check.run(lab, &mut figures);
    results.add(entry(
        check.name,
        check.rows,
        begin.elapsed(),
        figures,
        verdict,
    ));
}

fn run_scenarios(lab: &Lab, kind: Kind, list: Vec<&Scenario>, results: &Results) {
    let mut host: Option<Host<'_>> = None;
    for scenario in list {
        let mut figures = Figures::new();
        let begin = Instant::now();
        let verdict = match host.take().map_or_else(|| Host::boot(lab, kind), Ok) {
            Ok(booted) => {
                let begin = Instant::now();
                let verdict = run_scenario(&booted, scenario, &mut figures);
                // A host on which something failed is not to be trusted any more.
                host = verdict.is_ok().then_some(booted);
                results.add(entry(
                    &name_on(scenario, kind),
                    scenario.rows,
                    begin.elapsed(),
                    figures,
                    verdict,
                ));
                continue;
            }
            Err(error) => Err(error),
        };
        results.add(entry(
            &name_on(scenario, kind),
            scenario.rows,
            begin.elapsed(),
            figures,
            verdict,
        ));
    }
    if let Some(host) = host.filter(|host| lab.debug_kernel.is_some() && !host.is_off()) {
        let name = format!("debug-kernel ({})", kind.name());
        let begin = Instant::now();
        let verdict = judged(&host, &name, debug::end_of_life(&host));
        results.add(entry(&name, &[], begin.elapsed(), Figures::new(), verdict));
    }
}

/// A scenario may run on a second kind of host.
fn name_on(scenario: &Scenario, kind: Kind) -> String {
    if scenario.kind == kind {
        scenario.name.into()
    } else {
        format!("{} ({})", scenario.name, kind.name())
    }
}

fn run_scenario(host: &Host<'_>, scenario: &Scenario, figures: &mut Figures) -> Result<()> {
    watched(host, scenario.name, || (scenario.script)(host, figures))
}

/// Does something on a host that must neither make it complain nor leave anything behind.
pub fn watched<T>(host: &Host<'_>, name: &str, action: impl FnOnce() -> Result<T>) -> Result<T> {
    let mark = Mark::new(host, name)?;
    let mut verdict = action();
    // Complaints explain a failure better than what the script saw.
    if let Err(complaint) = mark.search(host) {
        verdict = match verdict {
            Ok(_) => Err(complaint),
            Err(seen) => Err(seen.context(complaint)),
        };
    }
    let verdict = verdict.and_then(|value| host.check_clean().map(|()| value));
    judged(host, name, verdict)
}

/// Passes a verdict on; if it is bad, collects and shows the host's logs.
fn judged<T>(host: &Host<'_>, name: &str, verdict: Result<T>) -> Result<T> {
    if verdict.is_err() {
        let dir = host.lab.build("logs").join(name);
        // What cannot be collected from a dead host must not hide why the scenario failed.
        match host
            .save_logs(&dir)
            .and_then(|()| logs::ends(&dir, LOG_LINES))
        {
            Ok(ends) => println!("{ends}"),
            Err(error) => println!("{}: logs are incomplete: {error:#}", dir.display()),
        }
    }
    verdict
}

fn entry(
    name: &str,
    rows: &[&str],
    took: Duration,
    figures: Figures,
    verdict: Result<()>,
) -> Entry {
    let error = verdict.as_ref().err().map(|e| format!("{e:#}"));
    let rows = rows.iter().map(ToString::to_string).collect();
    Entry {
        name: name.into(),
        rows,
        ok: verdict.is_ok(),
        seconds: round(took),
        figures,
        error,
    }
}
