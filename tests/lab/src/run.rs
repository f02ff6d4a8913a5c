// SPDX-License-Identifier: GPL-2.0

//! Runs checks and scenarios, at most two hosts at a time, and judges each.

use std::collections::VecDeque;
use std::iter;
use std::str::FromStr;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use anyhow::ensure;

use crate::checks;
use crate::checks::Check;
use crate::debug;
use crate::device::Device;
use crate::guest_type::GuestType;
use crate::host::Host;
use crate::lab::Lab;
use crate::logs;
use crate::logs::Mark;
use crate::results::Entry;
use crate::results::Figures;
use crate::results::Results;
use crate::results::round;
use crate::scenario::Kind;
use crate::scenario::Machine;
use crate::scenario::Scenario;
use crate::scenarios;

/// An emulated host that counts instructions keeps one processor busy.
pub const LANES: usize = 2;
const LOG_LINES: usize = 40;

/// What one lane does before it looks for more.
enum Job {
    Checks(Vec<&'static Check>),
    /// On one host.
    Scenarios(Machine, Vec<Run>),
}

/// Every so manieth run of all, beginning with one of the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    number: usize,
    of: usize,
}

impl Part {
    pub const WHOLE: Part = Part { number: 1, of: 1 };

    fn has(self, index: usize) -> bool {
        index % self.of == self.number - 1
    }
}

impl FromStr for Part {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Part> {
        let (number, of) = text.split_once('/').context("such as 2/4")?;
        let (number, of) = (number.parse()?, of.parse()?);
        ensure!((1..=of).contains(&number), "no part {number} of {of}");
        Ok(Part { number, of })
    }
}

/// A scenario, what backs its disks, and what its guests are.
#[derive(Clone, Copy)]
struct Run {
    scenario: &'static Scenario,
    device: Device,
    guests: GuestType,
}

impl Run {
    /// On the device that answers at once, with PV guests.
    fn plain(scenario: &'static Scenario) -> Run {
        Run {
            scenario,
            device: Device::AtOnce,
            guests: GuestType::Pv,
        }
    }

    /// All that there are: each scenario by itself, and on the devices and with the guests that are
    /// listed for it.
    fn all() -> impl Iterator<Item = Run> {
        scenarios::all().flat_map(|scenario| {
            let plain = Run::plain(scenario);
            let late = scenarios::late::devices(scenario.name);
            let late = late.map(move |device| Run { device, ..plain });
            let others = scenarios::guests::types(scenario.name);
            let others = others.map(move |guests| Run { guests, ..plain });
            iter::once(plain).chain(late).chain(others)
        })
    }

    /// `takeover`, `takeover@50ms`, `takeover@pvh` or `takeover@50ms@pvh`. Any scenario can be asked for
    /// on any device and with any guests.
    fn by_name(name: &str) -> Option<Run> {
        let mut words = name.split('@');
        let scenario = words.next()?;
        let mut run = Run::plain(scenarios::all().find(|s| s.name == scenario)?);
        for word in words {
            match (Device::by_name(word), GuestType::by_name(word)) {
                (Some(device), _) => run.device = device,
                (None, Some(guests)) => run.guests = guests,
                (None, None) => return None,
            }
        }
        Some(run)
    }

    fn name(&self) -> String {
        let mut name = self.scenario.name.to_string();
        if self.device != Device::AtOnce {
            name += &format!("@{}", self.device.name());
        }
        if self.guests != GuestType::Pv {
            name += &format!("@{}", self.guests.name());
        }
        name
    }

    /// As it is called where a scenario runs on a second kind of host.
    fn name_on(&self, kind: Kind) -> String {
        match self.scenario.kind == kind {
            true => self.name(),
            false => format!("{} ({})", self.name(), kind.name()),
        }
    }
}

/// Runs what is named, or everything. True if all passed.
pub fn test(lab: &Lab, only: &[String], part: Part) -> Result<bool> {
    let begin = Instant::now();
    let known =
        |name: &String| checks::ALL.iter().any(|c| c.name == name) || Run::by_name(name).is_some();
    if let Some(name) = only.iter().find(|name| !known(name)) {
        bail!("there is no scenario {name:?}; `lab list` shows all");
    }
    let results = Results::default();
    let jobs = Mutex::new(plan(lab, only, part));
    thread::scope(|scope| {
        for _ in 0..LANES {
            scope.spawn(|| {
                while let Some(job) = next(&jobs) {
                    match job {
                        Job::Checks(list) => list
                            .into_iter()
                            .for_each(|check| run_check(lab, check, &results)),
                        Job::Scenarios(machine, list) => {
                            run_scenarios(lab, machine, list, &results);
                        }
                    }
                }
            });
        }
    });
    // With both processors to itself.
    for machine in machines(&[Kind::Parallel]) {
        for list in on_hosts(lab, wanted(lab, only, part, machine)) {
            run_scenarios(lab, machine, list, &results);
        }
    }
    let kernel = lab.kernel_name().map(|name| format!("-{name}"));
    let file = format!("results/test{}.json", kernel.unwrap_or_default());
    results.write(&lab.build(&file), &lab.versions, begin.elapsed())?;
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
fn plan(lab: &Lab, only: &[String], part: Part) -> VecDeque<Job> {
    let mut jobs = VecDeque::new();
    // They do not depend on a kernel.
    if lab.kernel_name().is_none() && part.has(0) {
        let checks = checks::ALL
            .iter()
            .filter(|c| is_wanted(only, c.name))
            .collect();
        jobs.push_back(Job::Checks(checks));
    }
    let mut kinds = vec![Kind::Cycles, Kind::Timed, Kind::Plain, Kind::Scarce];
    // They boot what is on their own disk.
    if lab.kernel_name().is_none() {
        kinds.extend([Kind::Debian, Kind::Kernels]);
    }
    for machine in machines(&kinds) {
        for list in on_hosts(lab, wanted(lab, only, part, machine)) {
            jobs.push_back(Job::Scenarios(machine, list));
        }
    }
    jobs.make_contiguous().sort_by_key(|job| match job {
        Job::Scenarios(_, list) => !list
            .iter()
            .any(|run| scenarios::LONG.contains(&run.scenario.name)),
        Job::Checks(_) => true,
    });
    jobs
}

/// Those of some kinds, one for each type of guest.
fn machines(kinds: &[Kind]) -> impl Iterator<Item = Machine> {
    let each = |kind| GuestType::ALL.map(|guests| Machine { kind, guests });
    kinds.iter().copied().flat_map(each)
}

/// Each scenario has a host of its own. The debug kernel looks at what is left of a whole life at
/// its end, which takes long, so there they share one.
fn on_hosts(lab: &Lab, list: Vec<Run>) -> Vec<Vec<Run>> {
    let mut alone: Vec<_> = list.into_iter().map(|run| vec![run]).collect();
    if lab.is_debug() {
        let is_last = |list: &Vec<Run>| scenarios::LAST.contains(&list[0].scenario.name);
        let (last, others): (Vec<_>, Vec<_>) = alone.into_iter().partition(is_last);
        alone = last;
        alone.push(others.concat());
    }
    alone
}

fn is_wanted(only: &[String], name: &str) -> bool {
    only.is_empty() || only.iter().any(|o| o == name)
}

fn wanted(lab: &Lab, only: &[String], part: Part, machine: Machine) -> Vec<Run> {
    let Machine { kind, guests } = machine;
    let debug = lab.is_debug();
    let here = |s: &Scenario| {
        s.kind == kind || debug && kind == Kind::Parallel && debug::has_twice(s.name)
    };
    // What other guests change is the same with every kernel of dom0's.
    let other = |run: &Run| run.guests != GuestType::Pv && lab.kernel_name().is_some();
    let long = |run: &Run| {
        !lab.at_length && scenarios::is_at_length(&run.name())
            || scenarios::BY_NAME.contains(&run.scenario.name)
            || !debug && debug::is_only_here(run.scenario.name)
            || !lab.is_realtime() && scenarios::REALTIME.contains(&run.scenario.name)
    };
    let skipped = |run: &Run| debug && !debug::has(run.scenario.name) || long(run) || other(run);
    let fits =
        |run: &Run| here(run.scenario) && run.guests == guests && run.scenario.fits(lab.backend);
    match only {
        [] => {
            let part = Run::all().enumerate().filter(|(index, _)| part.has(*index));
            part.map(|(_, run)| run)
                .filter(|run| fits(run) && !skipped(run))
                .collect()
        }
        only => {
            let named = only.iter().filter_map(|name| Run::by_name(name));
            named.filter(fits).collect()
        }
    }
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

fn run_scenarios(lab: &Lab, machine: Machine, list: Vec<Run>, results: &Results) {
    let kind = machine.kind;
    let mut host: Option<Host<'_>> = None;
    for run in list {
        let mut figures = Figures::new();
        let begin = Instant::now();
        let verdict = match host.take().map_or_else(|| Host::boot(lab, machine), Ok) {
            Ok(booted) => {
                let begin = Instant::now();
                let verdict = run_scenario(&booted, &run, &mut figures);
                // A host on which something failed is not to be trusted any more.
                host = verdict.is_ok().then_some(booted);
                results.add(entry(
                    &run.name_on(kind),
                    run.scenario.rows,
                    begin.elapsed(),
                    figures,
                    verdict,
                ));
                continue;
            }
            Err(error) => Err(error),
        };
        results.add(entry(
            &run.name_on(kind),
            run.scenario.rows,
            begin.elapsed(),
            figures,
            verdict,
        ));
    }
    if let Some(host) = host.filter(|host| lab.is_debug() && !host.is_off()) {
        let name = format!("debug-kernel ({})", kind.name());
        let begin = Instant::now();
        let verdict = judged(&host, &name, debug::end_of_life(&host));
        results.add(entry(&name, &[], begin.elapsed(), Figures::new(), verdict));
    }
}

fn run_scenario(host: &Host<'_>, run: &Run, figures: &mut Figures) -> Result<()> {
    host.use_device(run.device);
    watched(host, &run.name(), || (run.scenario.script)(host, figures))
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
