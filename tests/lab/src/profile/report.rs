// SPDX-License-Identifier: GPL-2.0

//! The table that is printed, and the text that flame graphs are drawn from.

use std::collections::BTreeMap;

use serde::Serialize;

use super::cost::Cost;

/// How many functions the table has.
const FUNCTIONS: usize = 40;
/// How much of a function's name it has: those of Rust can be long.
const NAME: usize = 70;

/// One job on both backends.
#[derive(Serialize)]
pub struct Comparison {
    pub job: &'static str,
    /// What answers, see [`crate::device::Device`].
    pub device: &'static str,
    pub about: &'static str,
    pub costs: [Cost; 2],
}

/// What is known of a line of the table: instructions, and calls where they are counted.
type Cell = Option<(f64, Option<f64>)>;

impl Comparison {
    /// The table, with the dearest of all functions.
    pub fn table(&self) -> String {
        let heads = self.costs.each_ref().map(|cost| cost.backend.as_str());
        let about = format!("{} ({}@{})", self.about, self.job, self.device);
        let mut text = format!("{about:<NAME$} {:>18} {:>18}\n", heads[0], heads[1]);
        text += &self.sums();
        text += "\ninstructions a request, by purpose\n";
        text += &lines(self.each(|cost| &cost.groups));
        text += "\ncalls a request\n";
        text += &lines(self.each(|cost| &cost.calls));
        text += "\ninstructions a request, by function (calls)\n";
        text += &lines(self.functions());
        text
    }

    /// The paths of all that was executed in dom0, with the number of instructions.
    pub fn folded(&self) -> String {
        let mut text = String::new();
        for cost in &self.costs {
            for (stack, instructions) in &cost.stacks {
                text += &format!(
                    "{}@{};{};{stack} {instructions}\n",
                    self.job, self.device, cost.backend
                );
            }
        }
        text
    }

    fn sums(&self) -> String {
        /// A row's name, and its number of a backend.
        type Row = (&'static str, fn(&Cost) -> f64);
        let rows: [Row; 6] = [
            ("requests looked at", |cost| cost.requests as f64),
            ("instructions of dom0, with Xen's for it", |cost| {
                cost.dom0_instructions
            }),
            ("the same by Xen's account, unobserved", |cost| {
                cost.dom0_run_time_ns
            }),
            ("difference in percent", |cost| cost.difference_percent),
            ("instructions of guests, with Xen's for them", |cost| {
                cost.guest_instructions
            }),
            ("instructions while nobody ran", |cost| {
                cost.idle_instructions
            }),
        ];
        let cells = |of: fn(&Cost) -> f64| self.costs.each_ref().map(|cost| Some((of(cost), None)));
        rows.map(|(name, of)| line(name, cells(of))).concat()
    }

    /// Lines of numbers by name.
    fn each(&self, of: fn(&Cost) -> &BTreeMap<&'static str, f64>) -> Vec<(String, [Cell; 2])> {
        let maps = self.costs.each_ref().map(of);
        let mut names: Vec<_> = maps.iter().flat_map(|map| map.keys()).collect();
        names.sort();
        names.dedup();
        let cells = |name| maps.map(|map| map.get(name).map(|number| (*number, None)));
        names
            .into_iter()
            .map(|name| (name.to_string(), cells(name)))
            .collect()
    }

    fn functions(&self) -> Vec<(String, [Cell; 2])> {
        let mut rows: BTreeMap<String, [Cell; 2]> = BTreeMap::new();
        for (i, cost) in self.costs.iter().enumerate() {
            for function in &cost.functions {
                let name = format!("{}: {}", function.place, function.name);
                let cell = &mut rows.entry(name).or_default()[i];
                // Some functions have the same name.
                let (instructions, calls) = cell.unwrap_or((0.0, Some(0.0)));
                let calls = calls.map(|calls| calls + function.calls);
                *cell = Some((instructions + function.instructions, calls));
            }
        }
        let mut rows: Vec<_> = rows.into_iter().collect();
        let most = |cells: &[Cell; 2]| cells.iter().flatten().map(|c| c.0).fold(0.0, f64::max);
        rows.sort_by(|a, b| most(&b.1).total_cmp(&most(&a.1)));
        rows.truncate(FUNCTIONS);
        rows
    }
}

fn lines(rows: Vec<(String, [Cell; 2])>) -> String {
    rows.into_iter()
        .map(|(name, cells)| line(&name, cells))
        .collect()
}

fn line(name: &str, cells: [Cell; 2]) -> String {
    let name = match name.char_indices().nth(NAME - 2) {
        Some((at, _)) => format!("{}…", &name[..at]),
        None => name.into(),
    };
    let [one, other] = cells.map(|cell| match cell {
        Some((number, Some(calls))) => format!("{number:.1} ({calls:.2})"),
        Some((number, None)) => format!("{number:.2}"),
        None => "-".into(),
    });
    format!("{name:<NAME$} {one:>18} {other:>18}\n")
}
