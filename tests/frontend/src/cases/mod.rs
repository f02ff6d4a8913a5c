// SPDX-License-Identifier: GPL-2.0

//! What a hostile guest may try, case by case, and what has to come of it.
//!
//! A request that makes no sense is answered with an error, one that is not offered as
//! unsupported; a ring that makes no sense halts the disk until the guest reconnects; a connection
//! that makes no sense is refused with an error node that names the key. After each case the disk
//! works again.

mod connects;
mod grants;
mod indices;
mod operations;
mod races;
mod shapes;

use anyhow::Context;
use anyhow::Result;
use serde_json::Value;
use serde_json::json;

use crate::bench::Bench;
use crate::disk::Setup;

/// How a case ended, when nothing was wrong.
pub enum Verdict {
    Held,
    /// There was nothing to try.
    Skipped(&'static str),
}

pub type Outcome = Result<Verdict>;

/// In which connections a case is of use.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// In all.
    Everywhere,
    /// In each layout, with one queue and the smallest ring.
    EachLayout,
    /// Once, with as much as there is of queues and ring.
    Once,
}

pub struct Case {
    /// Its row in the catalogue.
    pub row: &'static str,
    pub name: &'static str,
    pub scope: Scope,
    pub run: fn(&mut Bench) -> Outcome,
}

const fn case(
    row: &'static str,
    name: &'static str,
    scope: Scope,
    run: fn(&mut Bench) -> Outcome,
) -> Case {
    Case {
        row,
        name,
        scope,
        run,
    }
}

/// All cases, in the order of their rows but for those that end a connection.
pub fn all() -> impl Iterator<Item = &'static Case> {
    [
        shapes::CASES,
        grants::CASES,
        operations::CASES,
        races::CASES,
        indices::CASES,
        connects::CASES,
    ]
    .into_iter()
    .flatten()
}

/// Whether `wanted` names the case: by its row, or by row and first words.
pub fn matches(case: &Case, wanted: &[String]) -> bool {
    wanted.is_empty() || wanted.iter().any(|w| w == case.row)
}

impl Scope {
    fn fits(self, setups: &[Setup], number: usize) -> bool {
        let setup = &setups[number];
        match self {
            Scope::Everywhere => true,
            Scope::EachLayout => {
                let same = |s: &&Setup| s.layout == setup.layout;
                setups
                    .iter()
                    .position(|s| same(&s))
                    .is_some_and(|first| first == number)
            }
            Scope::Once => {
                let size = |s: &Setup| (s.queues, s.order);
                let most = setups.iter().map(size).max();
                let first = setups.iter().position(|s| Some(size(s)) == most);
                first == Some(number)
            }
        }
    }
}

/// Runs a case in every setup it is of use in; prints a line for each. True if all held.
pub fn run(bench: &mut Bench, setups: &[Setup], wanted: &[String]) -> Result<bool> {
    let mut good = true;
    for (number, setup) in setups.iter().enumerate() {
        bench.close()?;
        bench.setup = *setup;
        let fits = |case: &&Case| matches(case, wanted) && case.scope.fits(setups, number);
        for case in all().filter(fits) {
            let outcome = (case.run)(bench);
            let held = outcome.is_ok();
            let mut line = crate::describe(setup);
            line["case"] = json!(case.row);
            line["name"] = json!(case.name);
            // A failed case may have left anything.
            if !held {
                bench.recover()?;
            }
            let works = bench.works().context("afterwards");
            if works.is_err() {
                bench.recover()?;
            }
            report(&mut line, outcome.and_then(|v| works.map(|()| v)));
            good &= line["ok"] == json!(true);
            println!("{line}");
        }
    }
    bench.close()?;
    Ok(good)
}

fn report(line: &mut Value, outcome: Outcome) {
    line["ok"] = json!(outcome.is_ok());
    match outcome {
        Ok(Verdict::Held) => {}
        Ok(Verdict::Skipped(why)) => line["skipped"] = json!(why),
        Err(error) => line["seen"] = json!(format!("{error:#}")),
    }
}
