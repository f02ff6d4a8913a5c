// SPDX-License-Identifier: GPL-2.0

//! What was measured, and how it compares.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use super::jobs::Job;
use super::jobs::Server;

/// Names of figures. All but rates and latencies are per request of fio's.
pub const DOM0: &str = "dom0_instructions";
pub const ALL: &str = "guest_and_dom0_instructions";
pub const IOPS: &str = "iops";
pub const BANDWIDTH: &str = "bytes_per_second";
pub const LATENCY: &str = "latency_mean_ns";
pub const P50: &str = "latency_p50_ns";
pub const P99: &str = "latency_p99_ns";
pub const P999: &str = "latency_p999_ns";
pub const RING: &str = "ring_requests";
pub const HYPERCALLS: &str = "hypercalls";
pub const INTERRUPTS: &str = "interrupts";
pub const SWITCHES: &str = "context_switches";
pub const EVENTS_IN: &str = "events_to_dom0";
pub const EVENTS_OUT: &str = "events_to_guest";

/// Bytes of dom0's memory for each disk, before its first request and after its last.
pub const ATTACHED: &str = "dom0_bytes_per_attached_disk";
pub const USED: &str = "dom0_bytes_per_used_disk";

/// One run's figures by name.
pub type Sample = BTreeMap<String, f64>;

/// All runs of a job.
#[derive(Default)]
pub struct Record {
    runs: Vec<(Server, Sample)>,
}

impl Record {
    pub fn add(&mut self, server: Server, sample: Sample) {
        self.runs.push((server, sample));
    }

    fn values(&self, server: Server, figure: &str) -> Vec<f64> {
        let of = |(by, sample): &(Server, Sample)| {
            (*by == server)
                .then(|| sample.get(figure).copied())
                .flatten()
        };
        self.runs.iter().filter_map(of).collect()
    }

    /// The mean over the runs.
    pub fn mean(&self, server: Server, figure: &str) -> Option<f64> {
        let values = self.values(server, figure);
        (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
    }

    /// By how much the runs differ, as a part of their mean.
    pub fn spread(&self, server: Server, figure: &str) -> Option<f64> {
        let values = self.values(server, figure);
        let most = values.iter().copied().fold(f64::MIN, f64::max);
        let least = values.iter().copied().fold(f64::MAX, f64::min);
        self.mean(server, figure).map(|mean| {
            if most == least {
                0.0
            } else {
                (most - least) / mean
            }
        })
    }

    /// How a server's mean compares with xen-blkback's.
    pub fn ratio(&self, server: Server, figure: &str) -> Option<f64> {
        let theirs = self.mean(Server::Blkback, figure)?;
        Some(self.mean(server, figure)? / theirs)
    }

    /// Everything, for the file.
    pub fn json(&self, job: &Job) -> Value {
        let mut servers = Map::new();
        for server in Server::ALL {
            let runs: Vec<&Sample> = self.of(server).collect();
            let Some(first) = runs.first() else { continue };
            let by_figure = |value: &dyn Fn(&str) -> Option<f64>| -> Map<String, Value> {
                let pair = |figure: &String| Some((figure.clone(), json!(value(figure)?)));
                first.keys().filter_map(pair).collect()
            };
            servers.insert(
                server.name().into(),
                json!({
                    "mean": by_figure(&|figure| self.mean(server, figure)),
                    "vs_blkback": by_figure(&|figure| self.ratio(server, figure).filter(|r| r.is_finite())),
                    "spread": by_figure(&|figure| self.spread(server, figure).filter(|s| s.is_finite())),
                    "runs": runs,
                }),
            );
        }
        json!({"job": job, "servers": servers})
    }

    fn of(&self, server: Server) -> impl Iterator<Item = &Sample> {
        self.runs
            .iter()
            .filter(move |(by, _)| *by == server)
            .map(|(_, sample)| sample)
    }
}

/// The figures to win, over some runs: rblkback against xen-blkback.
#[derive(Debug, PartialEq, Serialize)]
pub struct Summary {
    pub dom0_cost_geomean_vs_blkback: Option<f64>,
    pub dom0_cost_max_vs_blkback: Option<f64>,
    pub iops_min_vs_blkback: Option<f64>,
    pub iops_geomean_vs_blkback: Option<f64>,
    pub p99_max_vs_blkback: Option<f64>,
}

impl Summary {
    pub fn of<'r>(records: impl Iterator<Item = &'r Record> + Clone, server: Server) -> Summary {
        let ratios = |figure| -> Vec<f64> {
            records
                .clone()
                .filter_map(|record| record.ratio(server, figure))
                .collect()
        };
        let (costs, iops) = (ratios(DOM0), ratios(IOPS));
        Summary {
            dom0_cost_geomean_vs_blkback: geometric_mean(&costs),
            dom0_cost_max_vs_blkback: costs.iter().copied().reduce(f64::max),
            iops_min_vs_blkback: iops.iter().copied().reduce(f64::min),
            iops_geomean_vs_blkback: geometric_mean(&iops),
            p99_max_vs_blkback: ratios(P99).into_iter().reduce(f64::max),
        }
    }
}

/// Of positive numbers; of none there is none.
pub fn geometric_mean(values: &[f64]) -> Option<f64> {
    let logs: f64 = values.iter().map(|value| value.ln()).sum();
    (!values.is_empty()).then(|| (logs / values.len() as f64).exp())
}

/// The one in the middle, or half way between two; of none there is none.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let above = *sorted.get(sorted.len() / 2)?;
    let below = sorted[(sorted.len() - 1) / 2];
    Some((below + above) / 2.0)
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A job with these costs and IOPS on xen-blkback and on rblkback.
    pub fn record(theirs: (f64, f64), ours: (f64, f64)) -> Record {
        let sample = |(cost, iops): (f64, f64)| {
            Sample::from([(DOM0.to_string(), cost), (IOPS.to_string(), iops)])
        };
        let mut record = Record::default();
        record.add(Server::Blkback, sample(theirs));
        record.add(Server::Rblkback, sample(ours));
        record
    }

    #[test]
    fn means_and_medians() {
        let close = |a: Option<f64>, b: f64| (a.unwrap() - b).abs() < 1e-12;
        assert!(close(geometric_mean(&[0.5, 2.0]), 1.0));
        assert!(close(geometric_mean(&[0.5]), 0.5));
        assert_eq!(geometric_mean(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn runs_are_averaged_and_their_spread_is_told() {
        let mut both = record((100.0, 10.0), (50.0, 10.0));
        both.add(Server::Rblkback, Sample::from([(DOM0.into(), 150.0)]));
        assert_eq!(both.mean(Server::Rblkback, DOM0), Some(100.0));
        assert_eq!(both.spread(Server::Rblkback, DOM0), Some(1.0));
        assert_eq!(both.spread(Server::Blkback, DOM0), Some(0.0));
        assert_eq!(both.ratio(Server::Rblkback, DOM0), Some(1.0));
        assert_eq!(both.ratio(Server::Bare, DOM0), None);
    }

    #[test]
    fn the_worst_job_shows() {
        let records = [
            record((100.0, 10.0), (50.0, 9.0)),
            record((100.0, 10.0), (200.0, 10.0)),
        ];
        let summary = Summary::of(records.iter(), Server::Rblkback);
        assert!((summary.dom0_cost_geomean_vs_blkback.unwrap() - 1.0).abs() < 1e-12);
        assert_eq!(summary.dom0_cost_max_vs_blkback, Some(2.0));
        assert_eq!(summary.iops_min_vs_blkback, Some(0.9));
        let nothing = Summary::of(records.iter(), Server::Limited);
        assert_eq!(nothing.iops_min_vs_blkback, None);
    }
}
