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

use std::time::Instant;

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
    /// In each layout with the smallest and the largest connection, in the first layout with all.
    Everywhere,
    /// In each layout with the smallest and the largest connection.
    Ends,
    /// In each layout with the smallest.
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

/// Whether the backend has to refuse to connect in a case.
fn refuses(case: &Case) -> bool {
    connects::CASES.iter().any(|c| std::ptr::eq(c, case))
}

/// Which cases a user wants.
#[derive(clap::Args)]
pub struct Wanted {
    /// Rows such as H21; all without.
    rows: Vec<String>,
    /// Leave out what the backend has to refuse to connect with.
    #[arg(long)]
    no_connects: bool,
}

impl Wanted {
    fn has(&self, case: &Case) -> bool {
        let named = self.rows.is_empty() || self.rows.iter().any(|row| row == case.row);
        named && !(self.no_connects && refuses(case))
    }
}

impl Scope {
    fn fits(self, setups: &[Setup], number: usize) -> bool {
        let setup = &setups[number];
        let size = |s: &Setup| (s.queues, s.order);
        let sizes = || setups.iter().map(size);
        let smallest = sizes().min() == Some(size(setup));
        let largest = sizes().max() == Some(size(setup));
        let first = setup.layout == setups[0].layout;
        match self {
            Scope::Everywhere => first || smallest || largest,
            Scope::Ends => smallest || largest,
            Scope::EachLayout => smallest,
            Scope::Once => first && largest,
        }
    }
}

/// Runs a case in every setup it is of use in; prints a line for each. True if all held.
pub fn run(bench: &mut Bench, setups: &[Setup], wanted: &Wanted) -> Result<bool> {
    let mut good = true;
    for (number, setup) in setups.iter().enumerate() {
        bench.close()?;
        bench.setup = *setup;
        let fits = |case: &&Case| wanted.has(case) && case.scope.fits(setups, number);
        for case in all().filter(fits) {
            let begin = Instant::now();
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
            line["ms"] = json!(begin.elapsed().as_millis() as u64);
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
