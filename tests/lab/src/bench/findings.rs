// SPDX-License-Identifier: GPL-2.0

//! All that a run of the benchmark found, and its report.

use std::time::Instant;

use anyhow::Result;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use super::Found;
use super::jobs;
use super::jobs::Server;
use super::picture;
use super::plan;
use super::plan::Group;
use super::plan::Run;
use super::record;
use super::record::Record;
use super::record::Summary;
use super::table;
use crate::lab::Lab;
use crate::results::round;
use crate::results::write_json;

/// The job that those with more disks are compared with.
const ONE_DISK: &str = "read-4k-32";

#[derive(Default)]
pub struct Findings {
    records: Vec<(Run, Record)>,
    idle: Option<Value>,
    /// By name.
    bound: Map<String, Value>,
    failed: Vec<String>,
}

impl Findings {
    pub fn add(&mut self, name: String, found: Option<Found>) {
        match found {
            Some(Found::Record(run, record)) => self.records.push((run, record)),
            Some(Found::Idle(figures)) => self.idle = Some(figures),
            Some(Found::Bound(figures)) => drop(self.bound.insert(name, figures)),
            None => self.failed.push(name),
        }
    }

    /// Prints the tables and writes the files. True if nothing went wrong.
    pub fn report(mut self, lab: &Lab, begin: Instant) -> Result<bool> {
        let order: Vec<String> = plan::all().into_iter().map(Run::name).collect();
        let place = |run: &Run| order.iter().position(|name| *name == run.name());
        self.records
            .sort_by_key(|(run, _)| (run.group() as usize, place(run)));
        self.print();
        let (file, png) = (lab.build("results/bench.json"), lab.build("bench.png"));
        let mut json = self.json();
        json.insert("seconds".into(), json!(round(begin.elapsed())));
        json.insert("lab".into(), json!(lab.versions));
        write_json(&file, &json)?;
        println!("figures: {}", file.display());
        if !self.records.is_empty() {
            picture::draw(&png, &self.named())?;
            println!("picture: {}", png.display());
        }
        println!("{} s in all", begin.elapsed().as_secs());
        if !self.failed.is_empty() {
            println!("FAILED: {}", self.failed.join(", "));
        }
        Ok(self.failed.is_empty())
    }

    /// Over a group of devices, or all. What runs beside a busy process is compared by itself.
    fn summary(&self, server: Server, group: Option<Group>) -> Summary {
        let these = self
            .records
            .iter()
            .filter(|(run, _)| !run.job.busy && group.is_none_or(|group| run.group() == group));
        Summary::of(these.map(|(_, record)| record), server)
    }

    fn named(&self) -> Vec<(String, &Record)> {
        self.records
            .iter()
            .map(|(run, record)| (run.name(), record))
            .collect()
    }

    fn print(&self) {
        let named = self.named();
        if !named.is_empty() {
            println!("\n{}", table::costs(&named));
            println!("{}", table::pairs(&named));
            for group in Group::ALL {
                let summary = self.summary(Server::Rblkback, Some(group));
                println!("{}", table::summary(group.name(), &summary));
            }
            println!(
                "{}\n",
                table::summary("all", &self.summary(Server::Rblkback, None))
            );
        }
        for (name, record) in &named {
            print!("{}", table::memory(name, record));
        }
        for server in [Server::Blkback, Server::Rblkback] {
            for (name, ratio) in self.more_disks(server) {
                println!(
                    "{name}: {} {ratio:.3} of a request's cost with one disk",
                    server.name()
                );
            }
        }
        if let Some(idle) = &self.idle {
            println!("{}", table::idle(idle));
        }
        for (name, bound) in &self.bound {
            println!("{name}: {}", table::bound(bound));
        }
        println!("\n{}\n", table::ENVIRONMENT);
    }

    fn json(&self) -> Map<String, Value> {
        let object = |value: Value| value.as_object().cloned().unwrap_or_default();
        let mut all = object(json!(self.summary(Server::Rblkback, None)));
        for group in Group::ALL {
            let summary = json!(self.summary(Server::Rblkback, Some(group)));
            all.insert(group.name().into(), summary);
        }
        all.insert(
            "limit_out_of_reach".into(),
            json!(self.summary(Server::Limited, None)),
        );
        let mut jobs = Map::new();
        for (run, record) in &self.records {
            jobs.insert(run.name(), record.json(run.job));
        }
        let more: Map<String, Value> = [Server::Blkback, Server::Rblkback]
            .into_iter()
            .map(|server| (server.name().into(), json!(self.more_disks(server))))
            .collect();
        all.extend(object(json!({
            "environment": table::ENVIRONMENT,
            "failed": self.failed,
            "jobs": jobs,
            "cost_of_more_disks_vs_one": more,
            "idle": self.idle,
            "dom0_bound": self.bound,
        })));
        all
    }

    /// What a request costs dom0 with more disks, compared with one.
    fn more_disks(&self, server: Server) -> Vec<(&'static str, f64)> {
        let cost = |name: &str| {
            let (_, record) = self.records.iter().find(|(run, _)| run.name() == name)?;
            record.mean(server, record::DOM0)
        };
        let Some(one) = cost(ONE_DISK) else {
            return Vec::new();
        };
        jobs::ALL
            .iter()
            .filter(|job| job.disks > 1)
            .filter_map(|job| Some((job.name, cost(job.name)? / one)))
            .collect()
    }
}
