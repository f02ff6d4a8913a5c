// SPDX-License-Identifier: GPL-2.0

//! Memory that changes while the backend reads it. A second thread rewrites a request, or the
//! segments of an indirect one, or an index, as fast as it can.
//!
//! The backend cannot copy a slot in one instant, so what it sees may be made of both versions.
//! But what it has seen is what it checks and what it does: each answer is one that some mixture
//! allows, and nothing outside of the pages of a legal one is touched. Only a guest with two
//! processors, on a host with two, really races.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Instant;

use anyhow::Result;
use anyhow::ensure;

use super::Case;
use super::Outcome;
use super::Scope;
use super::Verdict;
use super::case;
use crate::bench::Bench;
use crate::disk::LIMIT;
use crate::layout;
use crate::pool::Pool;
use crate::request::ERROR;
use crate::request::OKAY;
use crate::request::READ;
use crate::request::Request;
use crate::request::Segment;
use crate::request::UNSUPPORTED;
use crate::sys::PAGE;

pub static CASES: &[Case] = &[
    case(
        "H05",
        "a request rewritten while it is read",
        Scope::EachLayout,
        request,
    ),
    case(
        "H06",
        "segments rewritten while they are read",
        Scope::Once,
        segments,
    ),
    case(
        "H03",
        "req_prod toggled while it is read",
        Scope::Once,
        producer,
    ),
];

/// Loops for each round: a round is worth many requests.
const LOOPS_A_ROUND: u64 = 20;
const LIST: usize = 20;
/// Only a mixture or a legal request reads into this one.
const DATA: usize = 21;
/// No version of a request has this one.
const BESIDE: usize = 22;

/// Runs `action` while another thread repeats `disturb`.
fn beside<T>(disturb: impl Fn(u64) + Sync + Send, action: impl FnOnce() -> T) -> T {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut number = 0;
            while !done.load(Ordering::Relaxed) {
                disturb(number);
                number += 1;
            }
        });
        let result = action();
        done.store(true, Ordering::Relaxed);
        result
    })
}

/// The page holds either nothing new or, sector by sector, what one of `sectors` holds.
fn judge(bench: &Bench, pool: &Pool, sectors: [u64; 2]) -> Result<()> {
    let Some(arena) = &bench.arena else {
        return Ok(());
    };
    for slot in 0..8 {
        let of = |sector: u64| {
            let now = sector + u64::from(slot);
            arena
                .generation(now)
                .is_some_and(|generation| pool.holds(DATA, slot, now, generation))
        };
        ensure!(
            pool.is_marked(DATA, slot) || sectors.into_iter().any(of),
            "a page holds bytes that neither version of the request reads"
        );
    }
    ensure!(
        pool.is_all_marked(BESIDE),
        "a page changed that no version of the request names"
    );
    Ok(())
}

/// Good and bad versions of one request. Whatever bytes of them are mixed, each field is one of
/// theirs.
fn versions(good: Segment, sectors: [u64; 2]) -> [Request; 4] {
    let outside = Segment { last: 255, ..good };
    [
        Request::direct(READ, sectors[0], &[good]),
        Request::direct(READ, 1 << 55, &[outside; 11]).claiming(255),
        Request::direct(READ, sectors[1], &[good]),
        Request {
            operation: 255,
            ..Request::direct(READ, sectors[0], &[good]).claiming(0)
        },
    ]
}

fn request(bench: &mut Bench) -> Outcome {
    bench.link()?;
    let sectors = [0, 4096];
    let versions = versions(bench.pool.whole(DATA), sectors);
    for _ in 0..bench.loops / LOOPS_A_ROUND {
        bench.pool.mark(DATA);
        bench.pool.mark(BESIDE);
        let status = race(bench, &versions)?;
        ensure!(
            [OKAY, ERROR, UNSUPPORTED].contains(&status),
            "status {status}"
        );
        judge(bench, &bench.pool, sectors)?;
    }
    Ok(Verdict::Held)
}

/// Asks the first version of a request while the others are written over it. Gives the status.
fn race(bench: &mut Bench, versions: &[Request; 4]) -> Result<i16> {
    let link = bench.link()?;
    let id = link.next_id();
    let queue = &mut link.queues[0];
    let of = |version: &Request| Request {
        id,
        ..version.clone()
    };
    let slots = versions.each_ref().map(|v| of(v).encode(queue.layout));
    let (place, answered) = (queue.next_slot(), queue.rsp_cons);
    queue.put(&of(&versions[0]));
    let (memory, size) = (queue.ring.memory(), queue.layout.slot);
    let disturb = |number: u64| {
        let slot = &slots[(number % 4) as usize];
        // Not where operation and status of the answer will be: those have to be readable.
        memory.store(place, &slot[..2]);
        memory.store(place + 12, &slot[12..size]);
    };
    beside(disturb, || -> Result<()> {
        queue.publish()?;
        let end = Instant::now() + LIMIT;
        while queue.get(layout::RSP_PROD) == answered {
            ensure!(Instant::now() < end, "no answer");
            thread::yield_now();
        }
        Ok(())
    })?;
    let answer = queue.take_raced()?;
    // Its first two bytes may be those of a request again.
    ensure!(
        answer.id >> 16 == id >> 16 && queue.pending()? == 0,
        "answered with {answer:?}"
    );
    Ok(answer.status)
}

fn segments(bench: &mut Bench) -> Outcome {
    if bench.offer.segments == 0 {
        return Ok(Verdict::Skipped("indirect requests are not offered"));
    }
    bench.link()?;
    let good = bench.pool.whole(DATA);
    let outside = Segment { last: 255, ..good };
    let nobodys = Segment {
        gref: u32::MAX,
        ..good
    };
    let list = bench.pool.pages.grefs[LIST];
    for round in 0..bench.loops / LOOPS_A_ROUND {
        bench.pool.mark(DATA);
        bench.pool.mark(BESIDE);
        bench.pool.describe(LIST, &[good]);
        let sector = round % 64 * 8;
        let request = Request::indirect(READ, sector, 1, list);
        let versions = [good, outside, nobodys].map(|s| u64::from_le_bytes(s.bytes()));
        let status = {
            let (link, pool) = bench.parts()?;
            let memory = pool.pages.memory();
            beside(
                |number| memory.write(LIST * PAGE, versions[(number % 3) as usize]),
                || link.ask(0, request),
            )?
        };
        ensure!([OKAY, ERROR].contains(&status), "status {status}");
        judge(bench, &bench.pool, [sector, sector])?;
        if status == OKAY {
            ensure!(!bench.pool.is_all_marked(DATA), "OK, but nothing was read");
        }
    }
    Ok(Verdict::Held)
}

/// Whatever the backend makes of it, it may not loop, and the guest can start again.
fn producer(bench: &mut Bench) -> Outcome {
    let read = Request::direct(READ, 0, &[bench.pool.whole(DATA)]);
    let loops = bench.loops;
    let link = bench.link()?;
    let queue = &mut link.queues[0];
    queue.put_everywhere(&read);
    let (less, more) = (queue.req_prod, queue.req_prod.wrapping_add(queue.entries));
    for i in 0..loops {
        queue.set(layout::REQ_PROD, if i % 2 == 0 { more } else { less });
        if i % 16 == 0 {
            queue.port.notify()?;
        }
    }
    bench.recover()?;
    Ok(Verdict::Held)
}
