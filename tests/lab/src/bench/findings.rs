// SPDX-License-Identifier: GPL-2.0

//! All that a run of the benchmark found, and its report.

use std::time::Instant;

use anyhow::Result;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use super::Found;
use super::Task;
use super::jobs;
use super::jobs::Server;
use super::picture;
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
    records: Vec<(&'static str, Record)>,
    idle: Option<Value>,
    bound: Option<Value>,
    failed: Vec<&'static str>,
}

impl Findings {
    pub fn add(&mut self, task: Task, found: Option<Found>) {
        match found {
            Some(Found::Record(record)) => self.records.push((task.name(), record)),
            Some(Found::Idle(figures)) => self.idle = Some(figures),
            Some(Found::Bound(figures)) => self.bound = Some(figures),
            None => self.failed.push(task.name()),
        }
    }

    /// Prints the tables and writes the files. True if nothing went wrong.
    pub fn report(mut self, lab: &Lab, begin: Instant) -> Result<bool> {
        let place = |name: &str| jobs::ALL.iter().position(|job| job.name == name);
        self.records.sort_by_key(|(name, _)| place(name));
        self.print();
        let (file, png) = (lab.build("results/bench.json"), lab.build("bench.png"));
        let mut json = self.json();
        json.insert("seconds".into(), json!(round(begin.elapsed())));
        json.insert("lab".into(), json!(lab.versions));
        write_json(&file, &json)?;
        println!("figures: {}", file.display());
        if !self.records.is_empty() {
            picture::draw(&png, &self.records)?;
            println!("picture: {}", png.display());
        }
        println!("{} s in all", begin.elapsed().as_secs());
        if !self.failed.is_empty() {
            println!("FAILED: {}", self.failed.join(", "));
        }
        Ok(self.failed.is_empty())
    }

    fn summary(&self, server: Server) -> Summary {
        Summary::of(self.records.iter().map(|(_, record)| record), server)
    }

    fn print(&self) {
        if !self.records.is_empty() {
            let summary = self.summary(Server::Rblkback);
            println!("\n{}", table::costs(&self.records));
            println!("{}", table::pairs(&self.records));
            println!("{}\n", table::summary(&summary));
        }
        for (name, record) in &self.records {
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
        if let Some(bound) = &self.bound {
            println!("{}", table::bound(bound));
        }
        println!("\n{}\n", table::ENVIRONMENT);
    }

    fn json(&self) -> Map<String, Value> {
        let object = |value: Value| value.as_object().cloned().unwrap_or_default();
        let mut all = object(json!(self.summary(Server::Rblkback)));
        all.insert(
            "limit_out_of_reach".into(),
            json!(self.summary(Server::Limited)),
        );
        let mut jobs = Map::new();
        for (name, record) in &self.records {
            let job = jobs::ALL.iter().find(|job| job.name == *name);
            jobs.insert((*name).into(), record.json(job));
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
            let (_, record) = self.records.iter().find(|(other, _)| *other == name)?;
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
