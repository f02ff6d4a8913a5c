// SPDX-License-Identifier: GPL-2.0

//! Files that use each other, directly or round about.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use crate::Violation;
use crate::modules::Use;

/// For each file those that it uses, with the first line that does.
type Graph<'a> = BTreeMap<&'a str, BTreeMap<&'a str, usize>>;

/// Every circle, with a line for each step of it.
pub fn find(uses: &[Use]) -> Vec<Violation> {
    let mut graph = Graph::new();
    for one in uses {
        let line = graph.entry(&one.from).or_default().entry(&one.to);
        line.and_modify(|line| *line = one.line.min(*line))
            .or_insert(one.line);
    }
    let reached: BTreeMap<&str, BTreeSet<&str>> = graph
        .keys()
        .map(|file| (*file, reach(&graph, file)))
        .collect();
    let mut circles = BTreeSet::new();
    for (file, others) in &reached {
        let circle: BTreeSet<&str> = others
            .iter()
            .filter(|other| reached.get(*other).is_some_and(|r| r.contains(file)))
            .copied()
            .collect();
        if !circle.is_empty() {
            circles.insert(circle);
        }
    }
    circles.iter().map(|circle| told(&graph, circle)).collect()
}

/// The files that one uses, directly or round about.
fn reach<'a>(graph: &Graph<'a>, file: &str) -> BTreeSet<&'a str> {
    let mut reached = BTreeSet::new();
    let mut open = vec![file];
    while let Some(file) = open.pop() {
        for next in graph.get(file).into_iter().flat_map(BTreeMap::keys) {
            if reached.insert(*next) {
                open.push(next);
            }
        }
    }
    reached
}

fn told(graph: &Graph, circle: &BTreeSet<&str>) -> Violation {
    let names: Vec<&str> = circle.iter().copied().collect();
    let mut what = format!("uses and is used by {}:", names[1..].join(", "));
    for from in &names {
        for (to, line) in graph[from].iter().filter(|(to, _)| circle.contains(*to)) {
            what += &format!("\n    {from}:{line} uses {to}");
        }
    }
    Violation::new(names[0], 0, what)
}
