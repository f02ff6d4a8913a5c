// SPDX-License-Identifier: GPL-2.0

//! Grants that are not there, not writable, not for this backend, or used twice.

use anyhow::Result;
use anyhow::ensure;

use super::Case;
use super::Outcome;
use super::Scope;
use super::Verdict;
use super::case;
use crate::bench::Bench;
use crate::grants::DOM0;
use crate::layout::DIRECT_SEGMENTS;
use crate::pool::PAGE_SECTORS;
use crate::request::ERROR;
use crate::request::OKAY;
use crate::request::READ;
use crate::request::Request;
use crate::request::Segment;
use crate::request::WRITE;

pub static CASES: &[Case] = &[
    case(
        "H11",
        "grants that are not for the backend",
        Scope::Ends,
        not_granted,
    ),
    case(
        "H20",
        "grants of frames that are not the guest's",
        Scope::Ends,
        foreign,
    ),
    case(
        "H12",
        "one bad grant among good ones, at each place",
        Scope::EachLayout,
        one_bad,
    ),
    case(
        "H12",
        "one bad grant among 256, at each place",
        Scope::Once,
        one_bad_of_many,
    ),
    case("H13", "good and bad grants by turns", Scope::Once, by_turns),
    case(
        "H14",
        "only bad grants, beside a queue that works",
        Scope::Once,
        only_bad,
    ),
    case(
        "H15",
        "one grant many times in a request",
        Scope::Ends,
        same_in_one,
    ),
    case(
        "H16",
        "one grant in many requests and queues",
        Scope::Ends,
        same_in_many,
    ),
    case(
        "H17",
        "a read into a page granted read-only",
        Scope::Ends,
        read_only,
    ),
    case(
        "H18",
        "a grant revoked while in flight",
        Scope::Ends,
        revoked,
    ),
];

const LIST: usize = 20;
const DATA: usize = 21;
/// Never granted: far beyond what this guest's table has.
const NOBODYS: u32 = 0x00ff_ffff;

fn at(gref: u32) -> Segment {
    Segment {
        gref,
        first: 0,
        last: PAGE_SECTORS - 1,
    }
}

fn not_granted(bench: &mut Bench) -> Outcome {
    // Given back, so its reference is free again.
    let former = bench.grants.pages(1)?.grefs[0];
    let others = bench.grants.pages_for(DOM0 + 77, true, 1)?;
    // 0 is not among them: the toolstack grants dom0 the console's page under that number.
    let bad = [7, former, others.grefs[0], NOBODYS, u32::MAX];
    let requests = [READ, WRITE].into_iter().flat_map(|operation| {
        bad.map(|gref| {
            let name = format!("operation {operation} with grant {gref}");
            (name, Request::direct(operation, 0, &[at(gref)]))
        })
    });
    bench.all_get(ERROR, requests.collect())?;
    bench.verify_page(0, 0)?;
    if bench.offer.segments > 0 {
        let lists = bad.map(|gref| {
            let name = format!("segments in grant {gref}");
            (name, Request::indirect(READ, 0, 1, gref))
        });
        bench.all_get(ERROR, lists.into())?;
    }
    Ok(Verdict::Held)
}

/// The grant is in order, but the frame behind it is a device's or nobody's.
fn foreign(bench: &mut Bench) -> Outcome {
    ensure!(
        !bench.foreign.is_empty(),
        "there are none: name them with --foreign"
    );
    let foreign = bench.foreign.clone();
    let good = bench.pool.whole(DATA);
    let mut requests = Vec::new();
    for gref in foreign {
        for operation in [READ, WRITE] {
            for segments in [vec![at(gref)], vec![good, at(gref)], vec![at(gref), good]] {
                let name = format!("operation {operation} with {segments:?}");
                requests.push((name, Request::direct(operation, 0, &segments)));
            }
        }
        if bench.offer.segments > 0 {
            let name = format!("segments in grant {gref}");
            requests.push((name, Request::indirect(READ, 0, 1, gref)));
        }
    }
    bench.all_get(ERROR, requests)?;
    bench.verify(0, 0, 88)?;
    Ok(Verdict::Held)
}

fn one_bad(bench: &mut Bench) -> Outcome {
    let good: Vec<Segment> = (DATA..DATA + DIRECT_SEGMENTS)
        .map(|page| bench.pool.whole(page))
        .collect();
    let mut requests = Vec::new();
    for operation in [READ, WRITE] {
        for place in 0..DIRECT_SEGMENTS {
            let mut segments = good.clone();
            segments[place].gref = NOBODYS;
            let request = Request::direct(operation, 0, &segments);
            requests.push((format!("operation {operation}, bad at {place}"), request));
        }
    }
    bench.all_get(ERROR, requests)?;
    bench.verify(0, 0, 88)?;
    Ok(Verdict::Held)
}

fn one_bad_of_many(bench: &mut Bench) -> Outcome {
    let most = usize::from(bench.offer.segments);
    if most == 0 {
        return Ok(Verdict::Skipped("indirect requests are not offered"));
    }
    let good: Vec<Segment> = (DATA..DATA + most)
        .map(|page| bench.pool.segment(page, 0, 0))
        .collect();
    // Reads into pages of the pool: nothing of the disk can change.
    for place in 0..most {
        let mut segments = good.clone();
        segments[place].gref = NOBODYS;
        bench.pool.describe(LIST, &segments);
        let request = Request::indirect(READ, 0, most as u16, bench.pool.pages.grefs[LIST]);
        bench.all_get(ERROR, vec![(format!("bad at {place}"), request)])?;
    }
    Ok(Verdict::Held)
}

/// Requests of two good pages, of which in those that are `bad` one is not granted. Those that can
/// be in flight together have different pages: Xen maps one grant only so many times at once.
fn pairs(bench: &Bench, bad: impl Fn(u64) -> bool, count: u64) -> Vec<Request> {
    let pair = |i| {
        let page = DATA + 2 * (i % 256) as usize;
        let mut segments = [bench.pool.whole(page), bench.pool.whole(page + 1)];
        if bad(i) {
            segments[1].gref = NOBODYS;
        }
        Request::direct(READ, 0, &segments)
    };
    (0..count).map(pair).collect()
}

fn by_turns(bench: &mut Bench) -> Outcome {
    let requests = pairs(bench, |i| i % 2 == 1, bench.loops);
    let statuses = bench.link()?.ask_all(0, requests)?;
    for (i, status) in statuses.into_iter().enumerate() {
        let wanted = [OKAY, ERROR][i % 2];
        ensure!(
            status == wanted,
            "request {i}: expected {wanted}, saw {status}"
        );
    }
    Ok(Verdict::Held)
}

fn only_bad(bench: &mut Bench) -> Outcome {
    let good = bench.link()?.queues.len() - 1;
    let rounds = 20;
    for _ in 0..rounds {
        let requests = pairs(bench, |_| true, bench.loops / rounds);
        let statuses = bench.link()?.ask_all(0, requests)?;
        ensure!(
            statuses.iter().all(|s| *s == ERROR),
            "a request with a bad grant was answered with another status than {ERROR}"
        );
        bench.verify_page(good, 8)?;
    }
    Ok(Verdict::Held)
}

/// One grant under all segments. Which part of the page wins is the guest's own business; that it
/// is answered, and all goes on, is the backend's.
fn same_in_one(bench: &mut Bench) -> Outcome {
    for operation in [READ, WRITE] {
        let sector = scratch(bench)?;
        let page = bench.pool.whole(DATA);
        let two = Request::direct(operation, sector, &[page; 2]);
        let eleven = Request::direct(operation, sector, &[page; DIRECT_SEGMENTS]);
        let mut requests = vec![two, eleven];
        if bench.offer.segments > 0 {
            bench.pool.describe(LIST, &[page; 256]);
            let list = bench.pool.pages.grefs[LIST];
            let most = bench.offer.segments.min(256);
            requests.push(Request::indirect(operation, sector, most, list));
        }
        // Twice: what the first left behind must not disturb the second.
        for request in [requests.clone(), requests].concat() {
            let status = bench.ask(0, request)?;
            ensure!(
                status == OKAY || status == ERROR,
                "operation {operation}: status {status}"
            );
        }
    }
    bench.verify(0, 0, 64)?;
    Ok(Verdict::Held)
}

/// Sectors outside of the arena, for writes whose content does not matter.
fn scratch(bench: &mut Bench) -> Result<u64> {
    let sectors = bench.traits()?.sectors;
    ensure!(
        sectors >= crate::arena::SECTORS + 2048,
        "the disk is too small"
    );
    Ok(crate::arena::SECTORS)
}

fn same_in_many(bench: &mut Bench) -> Outcome {
    let sector = scratch(bench)?;
    let page = bench.pool.whole(DATA);
    let link = bench.link()?;
    let mut waiting = 0;
    for number in 0..link.queues.len() {
        for i in 0..16 {
            let operation = if i % 4 == 3 { WRITE } else { READ };
            let mut request = Request::direct(operation, sector, &[page]);
            request.id = link.next_id();
            link.queues[number].put(&request);
            waiting += 1;
        }
    }
    for queue in &link.queues {
        queue.publish()?;
    }
    for number in 0..link.queues.len() {
        for _ in 0..16 {
            let answer = link.answer(number)?;
            waiting -= 1;
            ensure!(
                [OKAY, ERROR].contains(&answer.status),
                "answered with {answer:?}"
            );
        }
    }
    ensure!(waiting == 0, "{waiting} requests were not answered");
    Ok(Verdict::Held)
}

fn read_only(bench: &mut Bench) -> Outcome {
    let page = bench.grants.pages_for(DOM0, false, 1)?;
    let segment = at(page.grefs[0]);
    let sector = scratch(bench)?;
    let status = bench.ask(0, Request::direct(READ, sector, &[segment]))?;
    ensure!(
        status == ERROR,
        "a read into it: expected {ERROR}, saw {status}"
    );
    if !bench.setup.persistent {
        // That is what read-only grants are for.
        let status = bench.ask(0, Request::direct(WRITE, sector, &[segment]))?;
        ensure!(
            status == OKAY,
            "a write from it: expected {OKAY}, saw {status}"
        );
    }
    Ok(Verdict::Held)
}

fn revoked(bench: &mut Bench) -> Outcome {
    let sector = scratch(bench)?;
    for operation in [READ, WRITE] {
        let pages = bench.grants.pages(4)?;
        let segments: Vec<Segment> = pages.grefs.iter().map(|gref| at(*gref)).collect();
        let link = bench.link()?;
        let mut request = Request::direct(operation, sector, &segments);
        request.id = link.next_id();
        link.queues[0].put(&request);
        link.queues[0].publish()?;
        drop(pages);
        let answer = link.answer(0)?;
        ensure!(
            answer.id == request.id && [OKAY, ERROR].contains(&answer.status),
            "answered with {answer:?}"
        );
    }
    Ok(Verdict::Held)
}
