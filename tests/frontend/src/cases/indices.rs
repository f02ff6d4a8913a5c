// SPDX-License-Identifier: GPL-2.0

//! Indices that cannot be true, that wrap, or that the guest has no business with.

use anyhow::Context;
use anyhow::Result;
use anyhow::ensure;

use super::Case;
use super::Outcome;
use super::Scope;
use super::Verdict;
use super::case;
use crate::bench::Bench;
use crate::disk::LIMIT;
use crate::disk::Setup;
use crate::layout;
use crate::queue::Queue;
use crate::request::ERROR;
use crate::request::OKAY;
use crate::request::READ;
use crate::request::Request;
use crate::request::Segment;
use crate::request::UNSUPPORTED;

pub static CASES: &[Case] = &[
    case(
        "H07",
        "the backend's own indices overwritten",
        Scope::Ends,
        overwritten,
    ),
    case(
        "H08",
        "slots keep what is not the answer's",
        Scope::Ends,
        padding,
    ),
    case(
        "H09",
        "answers that are not consumed",
        Scope::Ends,
        not_consumed,
    ),
    case("H10", "the same id in every request", Scope::Ends, same_ids),
    case("H04", "indices that wrap soon", Scope::Everywhere, wrap),
    case(
        "H04",
        "requests that wait at connect",
        Scope::Everywhere,
        waiting,
    ),
    case(
        "H01",
        "one request more than slots",
        Scope::Everywhere,
        one_too_many,
    ),
    case("H02", "req_prod 2^31 ahead", Scope::EachLayout, far_ahead),
    case("H02", "req_prod at its maximum", Scope::EachLayout, maximum),
    case("H02", "req_prod goes back", Scope::EachLayout, backwards),
];

const DATA: usize = 3;

/// Requests that are in flight together have different pages: Xen maps one grant only so many
/// times at once.
fn page_of(bench: &Bench, number: u32) -> Segment {
    bench.pool.whole(DATA + number as usize % 512)
}

/// A read for each slot of a ring.
fn reads(bench: &Bench, count: u32) -> Vec<Request> {
    (0..count)
        .map(|i| Request::direct(READ, 0, &[page_of(bench, i)]))
        .collect()
}

/// Waits for answers without counting on events: the guest may have spoilt those.
fn look(bench: &mut Bench, done: impl Fn(&Queue) -> bool) -> Result<()> {
    let end = std::time::Instant::now() + LIMIT;
    let link = bench.link()?;
    while !done(&link.queues[0]) {
        ensure!(std::time::Instant::now() < end, "no answer");
        link.glance()?;
    }
    Ok(())
}

fn overwritten(bench: &mut Bench) -> Outcome {
    let read = Request::direct(READ, 0, &[bench.pool.whole(DATA)]);
    for (index, value) in [
        (layout::RSP_PROD, 0xdead_beef),
        (layout::RSP_PROD, 0),
        (layout::REQ_EVENT, 0x8000_0000),
        (layout::RSP_EVENT, 0x8000_0000),
        (layout::RSP_EVENT, 0),
    ] {
        let link = bench.link()?;
        let id = link.next_id();
        let queue = &mut link.queues[0];
        let wanted = queue.rsp_cons.wrapping_add(1);
        queue.put(&Request { id, ..read.clone() });
        queue.set(index, value);
        queue.set(layout::REQ_PROD, queue.req_prod);
        queue.port.notify()?;
        look(bench, |queue| queue.get(layout::RSP_PROD) == wanted)?;
        let answer = bench.link()?.answer(0)?;
        ensure!(answer.id == id && answer.status == OKAY, "{answer:?}");
    }
    Ok(Verdict::Held)
}

/// Every answer is compared with its slot as it was; here are some of each kind.
fn padding(bench: &mut Bench) -> Outcome {
    let rows = [
        (OKAY, READ, 0),
        (ERROR, READ, 1 << 55),
        (UNSUPPORTED, 200, 0),
    ];
    for (wanted, operation, sector) in rows {
        let count = bench.link()?.queues[0].entries;
        let requests = (0..count).map(|i| {
            let segment = page_of(bench, i);
            Request::direct(operation, sector, &[segment])
        });
        let requests = requests.collect();
        let statuses = bench.link()?.ask_all(0, requests)?;
        ensure!(
            statuses.iter().all(|s| *s == wanted),
            "expected {wanted}, saw {statuses:?}"
        );
    }
    Ok(Verdict::Held)
}

fn not_consumed(bench: &mut Bench) -> Outcome {
    let count = bench.link()?.queues[0].free();
    let reads = reads(bench, count);
    let link = bench.link()?;
    let mut ids = Vec::new();
    for read in reads {
        let id = link.next_id();
        link.queues[0].put(&Request { id, ..read });
        ids.push(id);
    }
    link.queues[0].publish()?;
    let full = link.queues[0].req_prod;
    look(bench, |queue| queue.get(layout::RSP_PROD) == full)?;
    // The ring is full of answers; events without requests change nothing.
    for _ in 0..8 {
        bench.link()?.queues[0].port.notify()?;
        bench.link()?.glance()?;
    }
    let link = bench.link()?;
    let mut answers = Vec::new();
    while let Some(answer) = link.queues[0].take()? {
        ensure!(answer.status == OKAY, "{answer:?}");
        answers.push(answer.id);
    }
    ids.sort_unstable();
    answers.sort_unstable();
    ensure!(ids == answers, "not every request was answered once");
    Ok(Verdict::Held)
}

fn same_ids(bench: &mut Bench) -> Outcome {
    for id in [0, u64::MAX, 0xffff_8880_0000_1000] {
        let count = bench.link()?.queues[0].free();
        let reads = reads(bench, count);
        let link = bench.link()?;
        for read in reads {
            link.queues[0].put(&Request { id, ..read });
        }
        link.queues[0].publish()?;
        for _ in 0..count {
            let answer = link.answer(0)?;
            ensure!(answer.id == id && answer.status == OKAY, "{answer:?}");
        }
        ensure!(link.queues[0].pending()? == 0, "more answers than requests");
    }
    Ok(Verdict::Held)
}

fn wrap(bench: &mut Bench) -> Outcome {
    let setup = Setup {
        start: u32::MAX - 2,
        ..bench.setup
    };
    let queues = bench.queues(&setup)?;
    bench.link_with(&setup, queues)?;
    let read = Request::direct(READ, 0, &[bench.pool.whole(DATA)]);
    let statuses = bench.link()?.ask_all(0, vec![read; 40])?;
    ensure!(statuses.iter().all(|s| *s == OKAY), "saw {statuses:?}");
    Ok(Verdict::Held)
}

/// A ring is taken over with what is on it: nobody sends an event for those requests again.
fn waiting(bench: &mut Bench) -> Outcome {
    let setup = Setup {
        start: u32::MAX - 1,
        ..bench.setup
    };
    let mut queues = bench.queues(&setup)?;
    let count = queues[0].entries;
    for queue in &mut queues {
        for (id, read) in (0..).zip(reads(bench, count)) {
            queue.put(&Request { id, ..read });
        }
        queue.set(layout::REQ_PROD, queue.req_prod);
    }
    let link = bench.link_with(&setup, queues)?;
    for number in 0..link.queues.len() {
        for _ in 0..count {
            let answer = link
                .answer(number)
                .context("requests that waited at connect")?;
            ensure!(answer.status == OKAY, "{answer:?}");
        }
    }
    Ok(Verdict::Held)
}

fn one_too_many(bench: &mut Bench) -> Outcome {
    bench.halts(|queue| {
        let beyond = queue.rsp_cons.wrapping_add(queue.entries + 1);
        queue.set(layout::REQ_PROD, beyond);
    })?;
    Ok(Verdict::Held)
}

fn far_ahead(bench: &mut Bench) -> Outcome {
    bench.halts(|queue| {
        queue.set(layout::REQ_PROD, queue.req_prod.wrapping_add(1 << 31));
    })?;
    Ok(Verdict::Held)
}

fn maximum(bench: &mut Bench) -> Outcome {
    bench.halts(|queue| queue.set(layout::REQ_PROD, u32::MAX))?;
    Ok(Verdict::Held)
}

fn backwards(bench: &mut Bench) -> Outcome {
    bench.halts(|queue| {
        queue.set(layout::REQ_PROD, queue.req_prod.wrapping_sub(1));
    })?;
    Ok(Verdict::Held)
}
