// SPDX-License-Identifier: GPL-2.0

//! Requests whose counts, segments and sectors make no sense. None of them may move a byte.

use anyhow::Result;
use anyhow::ensure;

use super::Case;
use super::Outcome;
use super::Scope;
use super::Verdict;
use super::case;
use crate::bench::Bench;
use crate::request::ERROR;
use crate::request::INDIRECT;
use crate::request::OKAY;
use crate::request::READ;
use crate::request::Request;
use crate::request::Segment;
use crate::request::UNSUPPORTED;
use crate::request::WRITE;

pub static CASES: &[Case] = &[
    case(
        "H21",
        "segment counts of direct requests",
        Scope::Ends,
        counts,
    ),
    case(
        "H22",
        "segment counts of indirect requests",
        Scope::Ends,
        indirect_counts,
    ),
    case("H23", "segments that leave their page", Scope::Ends, bounds),
    case(
        "H24",
        "sectors past the end and round it",
        Scope::Ends,
        ends,
    ),
    case(
        "H25",
        "parts of a logical block",
        Scope::EachLayout,
        alignment,
    ),
    case("H26", "operations that nobody knows", Scope::Ends, unknown),
    case(
        "H32",
        "indirect requests of what cannot be indirect",
        Scope::EachLayout,
        nested,
    ),
];

/// The page of segments of an indirect request, and the first page of its data. Verifying the arena
/// uses those before.
const LIST: usize = 20;
const DATA: usize = 21;
/// Pages of segments of requests that are in flight together.
const LISTS: usize = 40;

const BOTH: [u8; 2] = [READ, WRITE];

/// The data pages are marked, so that what arrives in them is seen.
fn mark(bench: &mut Bench) -> Result<()> {
    // Connecting may fill the arena, through the same pages.
    bench.link()?;
    (DATA..DATA + 3).for_each(|page| bench.pool.mark(page));
    Ok(())
}

/// No byte arrived, and none left: the arena is as it was where these cases aim at.
fn untouched(bench: &mut Bench) -> Result<()> {
    for page in DATA..DATA + 3 {
        ensure!(
            bench.pool.is_all_marked(page),
            "a refused request changed its page"
        );
    }
    bench.verify(0, 0, 64)
}

fn counts(bench: &mut Bench) -> Outcome {
    mark(bench)?;
    let page = bench.pool.whole(DATA);
    let requests = BOTH.into_iter().flat_map(|operation| {
        [0, 12, 13, 254, 255].map(|count| {
            let request = Request::direct(operation, 0, &[page; 11]).claiming(count);
            (
                format!("operation {operation} with {count} segments"),
                request,
            )
        })
    });
    bench.all_get(ERROR, requests.collect())?;
    untouched(bench)?;
    Ok(Verdict::Held)
}

fn indirect_counts(bench: &mut Bench) -> Outcome {
    let most = bench.offer.segments;
    if most == 0 {
        return Ok(Verdict::Skipped("indirect requests are not offered"));
    }
    mark(bench)?;
    // Each its own page: Xen maps one grant only so many times at once.
    let pages: Vec<Segment> = (DATA..DATA + 512)
        .map(|page| bench.pool.whole(page))
        .collect();
    bench.pool.describe(LIST, &pages);
    let list = bench.pool.pages.grefs[LIST];
    let of = |operation, count| {
        let name = format!("operation {operation} with {count} segments");
        (name, Request::indirect(operation, 0, count, list))
    };
    let requests = BOTH
        .into_iter()
        .flat_map(|operation| [0, most + 1, 512, 513, u16::MAX].map(|count| of(operation, count)));
    bench.all_get(ERROR, requests.collect())?;
    untouched(bench)?;
    // Few segments need no indirection, and may have it all the same.
    bench.all_get(OKAY, (1..=11).chain([most]).map(|n| of(READ, n)).collect())?;
    Ok(Verdict::Held)
}

/// Pairs of first and last sector that are no part of a page.
const OUTSIDE: [(u8, u8); 9] = [
    (1, 0),
    (7, 6),
    (255, 0),
    (0, 8),
    (7, 8),
    (8, 8),
    (8, 15),
    (0, 255),
    (255, 255),
];

fn bounds(bench: &mut Bench) -> Outcome {
    mark(bench)?;
    let good = [DATA, DATA + 1, DATA + 2].map(|page| bench.pool.whole(page));
    let mut rows = Vec::new();
    for operation in BOTH {
        for (first, last) in OUTSIDE {
            let mut segments = good;
            segments[1] = Segment {
                first,
                last,
                ..good[1]
            };
            let name = format!("operation {operation} of {first}..={last}");
            rows.push((name, operation, 0, segments.to_vec()));
        }
    }
    refuse_both_ways(bench, rows)?;
    untouched(bench)?;
    Ok(Verdict::Held)
}

type Row = (String, u8, u64, Vec<Segment>);

/// Each row as a direct and, where that is offered, as an indirect request.
fn refuse_both_ways(bench: &mut Bench, rows: Vec<Row>) -> Result<()> {
    let mut requests = Vec::new();
    for (place, (name, operation, sector, segments)) in rows.into_iter().enumerate() {
        if bench.offer.segments > 0 {
            let list = LISTS + place;
            bench.pool.describe(list, &segments);
            let gref = bench.pool.pages.grefs[list];
            let request = Request::indirect(operation, sector, segments.len() as u16, gref);
            requests.push((format!("{name}, indirect"), request));
        }
        requests.push((name, Request::direct(operation, sector, &segments)));
    }
    bench.all_get(ERROR, requests)
}

fn ends(bench: &mut Bench) -> Outcome {
    let end = bench.traits()?.sectors;
    mark(bench)?;
    let (whole, pair) = (bench.pool.whole(DATA), bench.pool.segment(DATA, 0, 1));
    let past: [(u64, &[Segment]); 8] = [
        (end, &[whole]),
        (end - 1, &[pair]),
        (end - 8, &[whole, pair]),
        (1 << 55, &[whole]),
        // Times 512 this is the end in 64 bits.
        ((1 << 55) + end, &[whole]),
        (u64::MAX, &[pair]),
        (u64::MAX - 7, &[whole]),
        (u64::MAX - 7, &[whole, whole]),
    ];
    let rows = BOTH.into_iter().flat_map(|operation| {
        past.map(|(sector, segments)| {
            let name = format!("operation {operation} at {sector}");
            (name, operation, sector, segments.to_vec())
        })
    });
    refuse_both_ways(bench, rows.collect())?;
    untouched(bench)?;
    let last = Request::direct(READ, end - 8, &[whole]);
    bench.all_get(OKAY, vec![("the last page".into(), last)])?;
    Ok(Verdict::Held)
}

fn alignment(bench: &mut Bench) -> Outcome {
    let block = bench.traits()?.block;
    if block == 1 {
        return Ok(Verdict::Skipped("its logical blocks are sectors"));
    }
    mark(bench)?;
    let page = bench.pool.whole(DATA);
    let halves = [
        bench.pool.segment(DATA, 0, 3),
        bench.pool.segment(DATA, 4, 7),
    ];
    let wrong: [(&str, u64, &[Segment]); 4] = [
        ("a block and a half", 0, &[page, halves[0]]),
        ("half a block", 0, &[halves[0]]),
        ("from the middle of a block", block / 2, &[page]),
        ("one sector", 0, &[bench.pool.segment(DATA, 0, 0)]),
    ];
    for operation in BOTH {
        for (name, sector, segments) in wrong {
            let request = Request::direct(operation, sector, segments);
            bench.all_get(
                ERROR,
                vec![(format!("operation {operation}: {name}"), request)],
            )?;
        }
    }
    untouched(bench)?;
    Ok(Verdict::Held)
}

fn unknown(bench: &mut Bench) -> Outcome {
    mark(bench)?;
    let page = bench.pool.whole(DATA);
    let operations = [4].into_iter().chain(7..=255);
    let requests = operations.map(|operation| {
        let request = Request::direct(operation, 0, &[page]);
        (format!("operation {operation}"), request)
    });
    bench.all_get(UNSUPPORTED, requests.collect())?;
    untouched(bench)?;
    Ok(Verdict::Held)
}

fn nested(bench: &mut Bench) -> Outcome {
    mark(bench)?;
    let page = bench.pool.whole(DATA);
    bench.pool.describe(LIST, &[page]);
    let list = bench.pool.pages.grefs[LIST];
    let wanted = match bench.offer.segments {
        0 => UNSUPPORTED,
        _ => ERROR,
    };
    let requests = [2, 3, 4, 5, INDIRECT, 7, 255].map(|operation| {
        let request = Request::indirect(operation, 0, 1, list);
        (format!("inner operation {operation}"), request)
    });
    bench.all_get(wanted, requests.into())?;
    untouched(bench)?;
    Ok(Verdict::Held)
}
