// SPDX-License-Identifier: GPL-2.0

//! Keys that make no sense when a frontend connects. Each is refused by name, and a good
//! connection follows.

use anyhow::Context;
use anyhow::Result;

use super::Case;
use super::Outcome;
use super::Scope;
use super::Verdict;
use super::case;
use crate::bench::Bench;
use crate::disk::Setup;
use crate::layout;

pub static CASES: &[Case] = &[
    case(
        "H04",
        "more requests at connect than slots",
        Scope::Everywhere,
        overfull,
    ),
    case("H33", "ring-ref", Scope::EachLayout, ring_ref),
    case("H34", "event-channel", Scope::EachLayout, event_channel),
    case("H34", "event channels of others", Scope::Once, ports),
    case("H35", "ring-page-order", Scope::EachLayout, order),
    case(
        "H35",
        "one page of a large ring missing or bad",
        Scope::Once,
        one_page,
    ),
    case(
        "H36",
        "multi-queue-num-queues",
        Scope::EachLayout,
        queue_count,
    ),
    case("H36", "directories of queues", Scope::Once, directories),
];

fn overfull(bench: &mut Bench) -> Outcome {
    let setup = bench.setup;
    let queues = bench.queues(&setup)?;
    let last = &queues[queues.len() - 1];
    last.set(layout::REQ_PROD, setup.start.wrapping_add(last.entries + 1));
    bench.refused_with(&setup, &queues, (&[], &[]), "ring-ref")?;
    Ok(Verdict::Held)
}

/// What no key that holds a number may hold.
const NO_NUMBERS: [&str; 5] = ["", "-1", "4294967296", "junk", "1x"];

/// `key` must be refused with each of the values, and when it is missing.
fn key(bench: &mut Bench, setup: &Setup, name: &str, values: &[&str]) -> Result<()> {
    for value in values {
        let shown = &value[..value.len().min(20)];
        bench
            .refused(setup, (&[(name, value)], &[]), name)
            .with_context(|| format!("{name} {shown:?}"))?;
    }
    Ok(())
}

fn missing(bench: &mut Bench, setup: &Setup, name: &str) -> Result<()> {
    bench
        .refused(setup, (&[], &[name]), name)
        .with_context(|| format!("no {name}"))
}

fn ring_ref(bench: &mut Bench) -> Outcome {
    let setup = Setup::plain(bench.setup.layout);
    key(bench, &setup, "ring-ref", &NO_NUMBERS)?;
    missing(bench, &setup, "ring-ref")?;
    // As long as xenstored lets a guest write.
    let long = "9".repeat(2000);
    key(bench, &setup, "ring-ref", &[&long])?;
    // Numbers, but no grants: free, far beyond the table.
    key(bench, &setup, "ring-ref", &["7", "16777215", "4294967295"])?;
    Ok(Verdict::Held)
}

fn event_channel(bench: &mut Bench) -> Outcome {
    let setup = Setup::plain(bench.setup.layout);
    key(bench, &setup, "event-channel", &NO_NUMBERS)?;
    missing(bench, &setup, "event-channel")?;
    key(
        bench,
        &setup,
        "event-channel",
        &["0", "100000", "4294967295"],
    )?;
    Ok(Verdict::Held)
}

/// Ports that exist, but are not for this backend to bind.
fn ports(bench: &mut Bench) -> Outcome {
    let setup = bench.setup;
    let name = if setup.queues > 1 {
        "queue-0/event-channel"
    } else {
        "event-channel"
    };
    let others = bench.events.port(77)?;
    // Ports are handed out from the lowest: this one is nobody's for a while.
    let free = others.number + 100;
    // The first ports of a guest are those of xenstore and console, bound since it began.
    for port in [free, others.number, 1, 2] {
        bench
            .refused(&setup, (&[(name, &port.to_string())], &[]), "event-channel")
            .with_context(|| format!("port {port}"))?;
    }
    if setup.queues > 1 {
        let queues = bench.queues(&setup)?;
        let twice = queues[1].port.number.to_string();
        bench
            .refused_with(&setup, &queues, (&[(name, &twice)], &[]), "event-channel")
            .context("two queues with one port")?;
    }
    Ok(Verdict::Held)
}

fn order(bench: &mut Bench) -> Outcome {
    let setup = Setup {
        numbered: true,
        ..Setup::plain(bench.setup.layout)
    };
    let beyond = (bench.offer.order + 1).to_string();
    let values = [&beyond, "5", "31", "32", "4294967295", "-1", "", "junk"];
    key(bench, &setup, "ring-page-order", &values)?;
    Ok(Verdict::Held)
}

fn one_page(bench: &mut Bench) -> Outcome {
    if bench.setup.order == 0 {
        return Ok(Verdict::Skipped("large rings are not offered"));
    }
    let setup = bench.setup;
    let place = if setup.queues > 1 {
        format!("queue-{}/", setup.queues - 1)
    } else {
        String::new()
    };
    for page in [0, (1 << setup.order) - 1] {
        let name = format!("{place}ring-ref{page}");
        let named = format!("ring-ref{page}");
        bench
            .refused(&setup, (&[], &[&name]), &named)
            .with_context(|| format!("no {name}"))?;
        for value in ["", "junk", "4294967296"] {
            bench
                .refused(&setup, (&[(&name, value)], &[]), &named)
                .with_context(|| format!("{name} {value:?}"))?;
        }
        // All pages are mapped at once, so any of their names will do.
        for value in ["7", "16777215"] {
            bench
                .refused(&setup, (&[(&name, value)], &[]), "ring-ref")
                .with_context(|| format!("{name} {value:?}"))?;
        }
    }
    Ok(Verdict::Held)
}

fn queue_count(bench: &mut Bench) -> Outcome {
    let setup = Setup::plain(bench.setup.layout);
    let beyond = (bench.offer.queues + 1).to_string();
    let values = [&beyond, "0", "4294967295", "-1", "", "junk"];
    key(bench, &setup, "multi-queue-num-queues", &values)?;
    Ok(Verdict::Held)
}

fn directories(bench: &mut Bench) -> Outcome {
    if bench.setup.queues == 1 {
        return Ok(Verdict::Skipped("several queues are not offered"));
    }
    let setup = Setup {
        order: 0,
        ..bench.setup
    };
    for number in 0..setup.queues {
        let keys = ["ring-ref", "event-channel"].map(|key| format!("queue-{number}/{key}"));
        for (left_out, named) in [
            (vec![keys[0].as_str()], "ring-ref"),
            (vec![keys[1].as_str()], "event-channel"),
            (vec![keys[0].as_str(), keys[1].as_str()], "queue-"),
        ] {
            bench
                .refused(&setup, (&[], &left_out), named)
                .with_context(|| format!("without {left_out:?}"))?;
        }
    }
    // Keys of one queue beside those of several mean nothing: a frontend that came from a host
    // with fewer queues leaves them behind.
    let queues = bench.queues(&setup)?;
    let gref = queues[0].ring.grefs[0].to_string();
    let port = queues[0].port.number.to_string();
    let both = [
        ("ring-ref", gref.as_str()),
        ("event-channel", port.as_str()),
    ];
    bench
        .accepted_with(&setup, &queues, (&both, &[]))
        .context("keys of one queue beside those of several")?;
    Ok(Verdict::Held)
}
