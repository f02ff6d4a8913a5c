// SPDX-License-Identifier: GPL-2.0

//! What a request costs dom0, split up in several ways.

use std::collections::BTreeMap;
use std::collections::HashMap;

use anyhow::Result;
use anyhow::bail;
use serde::Serialize;

use super::bench::Seen;
use super::groups;
use super::stints::Count;
use super::stints::Stint;
use super::symbols::Place;

/// Runs once for each request, whatever the backend: that is how they are counted.
const ONCE: &str = "submit_bio";

/// One job on one backend. All but the number of requests is for each of them.
#[derive(Serialize)]
pub struct Cost {
    pub backend: String,
    pub requests: u64,
    /// With what Xen did for dom0.
    pub dom0_instructions: f64,
    /// The same by Xen's own account, over a longer run that was not looked at.
    pub dom0_run_time_ns: f64,
    pub difference_percent: f64,
    pub guest_instructions: f64,
    pub idle_instructions: f64,
    pub groups: BTreeMap<&'static str, f64>,
    pub calls: BTreeMap<&'static str, f64>,
    /// The dearest first.
    pub functions: Vec<FunctionCost>,
    /// How many instructions each path had in all.
    #[serde(skip)]
    pub stacks: BTreeMap<String, u64>,
}

/// One function, without what it called.
#[derive(Serialize)]
pub struct FunctionCost {
    pub name: String,
    pub place: String,
    pub instructions: f64,
    pub calls: f64,
}

impl Cost {
    pub fn new(backend: &str, seen: &Seen) -> Result<Self> {
        let by_path = sum(&seen.shares.dom0);
        let mut by_function: HashMap<u32, Count> = HashMap::new();
        for (path, count) in &by_path {
            let function = by_function.entry(seen.paths.function(*path)).or_default();
            function.add(*count);
        }
        let once = seen.symbols.named(&Place::Kernel, ONCE)?;
        let requests = by_function.get(&(once as u32)).map_or(0, |c| c.entries);
        if requests == 0 {
            bail!("dom0 served no request while it was looked at");
        }
        let each = |number: u64| number as f64 / requests as f64;
        let instructions = |stints: &[Stint]| each(stints.iter().map(Stint::instructions).sum());
        let dom0_instructions = instructions(&seen.shares.dom0);
        let mut cost = Cost {
            backend: backend.into(),
            requests,
            dom0_instructions,
            dom0_run_time_ns: seen.run_time,
            difference_percent: 100.0 * (dom0_instructions / seen.run_time - 1.0),
            guest_instructions: instructions(&seen.shares.guests),
            idle_instructions: instructions(&seen.shares.idle),
            groups: BTreeMap::new(),
            calls: BTreeMap::new(),
            functions: Vec::new(),
            stacks: BTreeMap::new(),
        };
        for (path, count) in by_path {
            let group = groups::group(&seen.symbols, &seen.paths, path);
            *cost.groups.entry(group).or_default() += each(count.instructions);
            *cost.stacks.entry(stack(seen, path)).or_default() += count.instructions;
        }
        for (number, count) in by_function {
            let function = seen.symbols.get(number as usize);
            for calls in groups::counted(function) {
                *cost.calls.entry(calls).or_default() += each(count.entries);
            }
            cost.functions.push(FunctionCost {
                name: function.name.clone(),
                place: function.place.to_string(),
                instructions: each(count.instructions),
                calls: each(count.entries),
            });
        }
        cost.functions
            .sort_by(|a, b| b.instructions.total_cmp(&a.instructions));
        Ok(cost)
    }
}

fn sum(stints: &[Stint]) -> HashMap<u32, Count> {
    let mut sum: HashMap<u32, Count> = HashMap::new();
    for (path, count) in stints.iter().flat_map(|stint| &stint.counts) {
        sum.entry(*path).or_default().add(*count);
    }
    sum
}

/// A path as flame graphs have it.
fn stack(seen: &Seen, path: u32) -> String {
    let mut names: Vec<_> = seen.paths.outwards(path).collect();
    names.reverse();
    let names = names.into_iter().map(|path| {
        let function = seen.symbols.get(seen.paths.function(path) as usize);
        match &function.place {
            Place::User | Place::Kernel => function.name.clone(),
            place => format!("{} [{place}]", function.name),
        }
    });
    // What separates names there, and what comes before the number.
    names
        .map(|name| name.replace(';', ":"))
        .collect::<Vec<_>>()
        .join(";")
}
