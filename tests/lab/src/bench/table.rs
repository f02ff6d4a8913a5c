// SPDX-License-Identifier: GPL-2.0

//! The tables on the terminal.

use serde_json::Value;

use super::jobs::Server;
use super::record;
use super::record::Record;
use super::record::Summary;

/// What a reader has to know before comparing anything with real hardware.
pub const ENVIRONMENT: &str = "\
A Xen host emulated by QEMU (TCG), one processor for all domains, each instruction counted as one
nanosecond: times are instruction counts, caches and the cost of entering Xen do not show. `rep movs`
counts once for each word it moves, so copies look dear. The guest takes most of a request's
instructions, so IOPS and latency move little whatever a backend does.";

/// Two figures of each server side by side, as ratios to xen-blkback's.
pub fn costs(records: &[(String, &Record)]) -> String {
    let mut text = format!(
        "{:<24}{:^38}  {:^36}\n{:<24}{:>11} {:>11} {:>6} {:>7}  {:>8} {:>9} {:>9} {:>6}\n",
        "",
        "dom0's instructions a request",
        "IOPS",
        "job",
        "xen-blkback",
        "rblkback",
        "ratio",
        "limited",
        "bare",
        "blkback",
        "rblkback",
        "ratio"
    );
    for (name, record) in records {
        let dom0 = |server| number(record.mean(server, record::DOM0));
        let iops = |server| number(record.mean(server, record::IOPS));
        text += &format!(
            "{name:<24}{:>11} {:>11} {:>6} {:>7}  {:>8} {:>9} {:>9} {:>6}\n",
            dom0(Server::Blkback),
            dom0(Server::Rblkback),
            ratio(record.ratio(Server::Rblkback, record::DOM0)),
            ratio(record.ratio(Server::Limited, record::DOM0)),
            iops(Server::Bare),
            iops(Server::Blkback),
            iops(Server::Rblkback),
            ratio(record.ratio(Server::Rblkback, record::IOPS)),
        );
    }
    text
}

/// Figures of which each job has a pair: xen-blkback's and rblkback's.
pub fn pairs(records: &[(String, &Record)]) -> String {
    const COLUMNS: [(&str, &str, f64); 9] = [
        ("all instr.", record::ALL, 1.0),
        ("p50 us", record::P50, 1e-3),
        ("p99 us", record::P99, 1e-3),
        ("p99.9 us", record::P999, 1e-3),
        ("hypercalls", record::HYPERCALLS, 1.0),
        ("interrupts", record::INTERRUPTS, 1.0),
        ("switches", record::SWITCHES, 1.0),
        ("events in", record::EVENTS_IN, 1.0),
        ("events out", record::EVENTS_OUT, 1.0),
    ];
    let mut text = format!("{:<24}", "a request: C -> Rust");
    for (title, ..) in COLUMNS {
        text += &format!(" {title:>17}");
    }
    for (name, record) in records {
        text += &format!("\n{name:<24}");
        for (_, figure, unit) in COLUMNS {
            let of = |server| record.mean(server, figure).map(|value| value * unit);
            let pair = format!(
                "{} -> {}",
                number(of(Server::Blkback)),
                number(of(Server::Rblkback))
            );
            text += &format!(" {pair:>17}");
        }
    }
    text + "\n"
}

/// What disks cost dom0 in memory, if that was measured.
pub fn memory(name: &str, record: &Record) -> String {
    let kib = |server, figure| number(record.mean(server, figure).map(|bytes| bytes / 1024.0));
    let line = |server: Server| {
        record.mean(server, record::USED)?;
        Some(format!(
            "{name}: {} {} KiB of dom0's memory a disk when attached, {} after its load\n",
            server.name(),
            kib(server, record::ATTACHED),
            kib(server, record::USED),
        ))
    };
    [Server::Blkback, Server::Rblkback]
        .into_iter()
        .filter_map(line)
        .collect()
}

/// What idle disks cost, of both backends.
pub fn idle(figures: &Value) -> String {
    let mut text = format!("{} idle disks, all together:\n", figures["disks"]);
    for (server, figures) in figures["servers"].as_object().into_iter().flatten() {
        text += &format!("    {server:<14}");
        let figures = figures.as_object().into_iter().flatten();
        let each: Vec<String> = figures
            .map(|(name, value)| format!("{} {}", number(value.as_f64()), name.replace('_', " ")))
            .collect();
        text += &each.join(", ");
        text.push('\n');
    }
    text
}

/// What several guests reach where dom0 limits them.
pub fn bound(figures: &Value) -> String {
    let ratio = |name: &str| ratio(figures[name].as_f64());
    format!(
        "{} guests that keep their rings full, dom0 with one processor, busy for {:.0} % of the time at \
         least, real time: IOPS {} of xen-blkback's ({} to {} in {} pairs)",
        figures["guests"],
        figures["dom0_percent_min"].as_f64().unwrap_or(f64::NAN),
        ratio("iops_vs_blkback_median"),
        ratio("iops_vs_blkback_min"),
        ratio("iops_vs_blkback_max"),
        figures["pairs"].as_array().map_or(0, Vec::len),
    )
}

/// The figures to win.
pub fn summary(devices: &str, summary: &Summary) -> String {
    format!(
        "devices: {devices}; rblkback without a limit, of xen-blkback's: dom0's instructions a request {} in \
         the geometric mean, {} at most; IOPS {} in the geometric mean, {} at least; p99 {} at most",
        ratio(summary.dom0_cost_geomean_vs_blkback),
        ratio(summary.dom0_cost_max_vs_blkback),
        ratio(summary.iops_geomean_vs_blkback),
        ratio(summary.iops_min_vs_blkback),
        ratio(summary.p99_max_vs_blkback),
    )
}

/// As many digits as say something.
fn number(value: Option<f64>) -> String {
    match value {
        None => "-".into(),
        Some(value) if value.abs() >= 100.0 => format!("{value:.0}"),
        Some(value) if value.abs() >= 10.0 => format!("{value:.1}"),
        Some(value) => format!("{value:.2}"),
    }
}

fn ratio(value: Option<f64>) -> String {
    value.map_or("-".into(), |value| format!("{value:.3}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::record::tests::record;

    #[test]
    fn a_row() {
        let record = record((1000.0, 10.0), (750.0, 12.5));
        let records = [("read".to_string(), &record)];
        let text = costs(&records);
        let row: Vec<&str> = text.lines().last().unwrap().split_whitespace().collect();
        assert_eq!(
            row,
            [
                "read", "1000", "750", "0.750", "-", "-", "10.0", "12.5", "1.250"
            ]
        );
        assert!(pairs(&records).lines().last().unwrap().contains("- -> -"));
    }

    #[test]
    fn digits() {
        assert_eq!(number(Some(1234.5)), "1234");
        assert_eq!(number(Some(0.125)), "0.12");
        assert_eq!(number(None), "-");
    }
}
