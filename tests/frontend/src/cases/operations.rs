// SPDX-License-Identifier: GPL-2.0

//! Barriers, flushes, discards, and everything that must not reach a read-only disk.

use anyhow::Context;
use anyhow::Result;
use anyhow::ensure;

use super::Case;
use super::Outcome;
use super::Scope;
use super::Verdict;
use super::case;
use crate::arena::SECTORS;
use crate::bench::Bench;
use crate::layout;
use crate::layout::DIRECT_SEGMENTS;
use crate::pool::PAGE_SECTORS;
use crate::request::BARRIER;
use crate::request::ERROR;
use crate::request::FLUSH;
use crate::request::OKAY;
use crate::request::READ;
use crate::request::Request;
use crate::request::SECURE;
use crate::request::UNSUPPORTED;
use crate::request::WRITE;

pub static CASES: &[Case] = &[
    case(
        "H27",
        "barriers among writes, in all queues",
        Scope::Ends,
        barriers,
    ),
    case("H28", "flushes with and without data", Scope::Ends, flushes),
    case("H28", "nothing but flushes", Scope::Once, many_flushes),
    case("H29", "discards of odd ranges", Scope::Ends, discards),
    case(
        "H30",
        "whatever writes, on a read-only disk",
        Scope::Ends,
        read_only,
    ),
    case(
        "H31",
        "a discard of the whole disk, then the end",
        Scope::Once,
        discard_and_leave,
    ),
];

/// Verifying the arena uses the pages before.
const DATA: usize = 20;
const LIST: usize = 19;

/// Three writes of the same page, the second of them a barrier, all in flight at once: the last
/// one wins, and without barriers on offer none of them is lost.
fn barriers(bench: &mut Bench) -> Outcome {
    let offered = bench.traits()?.barrier;
    // "Not likely to succeed" is all that a backend says by not offering them.
    let wanted: &[i16] = if offered {
        &[OKAY]
    } else {
        &[OKAY, UNSUPPORTED]
    };
    let queues = bench.link()?.queues.len();
    let mut expected = Vec::new();
    for number in 0..queues {
        let sector = 64 * number as u64;
        let rows = [WRITE, BARRIER, WRITE, BARRIER, BARRIER, WRITE];
        for (i, operation) in rows.into_iter().enumerate() {
            let request = generation(bench, DATA + 16 * number + i, operation, sector)?;
            expected.push((put(bench, number, request)?, operation));
        }
        let empty = Request::direct(BARRIER, sector, &[]);
        expected.push((put(bench, number, empty)?, BARRIER));
    }
    let each = expected.len() / queues;
    let link = bench.link()?;
    link.queues.iter().try_for_each(|queue| queue.publish())?;
    for number in 0..queues {
        for _ in 0..each {
            let answer = link.answer(number)?;
            let at = expected.iter().position(|(id, _)| *id == answer.id);
            let (_, operation) = expected.swap_remove(at.context("an answer to no request")?);
            let statuses = if operation == BARRIER {
                wanted
            } else {
                &[OKAY]
            };
            ensure!(
                statuses.contains(&answer.status),
                "operation {operation}: expected {statuses:?}, saw {answer:?}"
            );
        }
    }
    if offered {
        for number in 0..queues {
            bench.verify_page(number, 64 * number as u64)?;
        }
    } else {
        // Nothing orders the writes among themselves: make the arena certain again.
        for number in 0..queues {
            bench.write_page(number, 64 * number as u64)?;
        }
    }
    full_barrier(bench, wanted)?;
    Ok(Verdict::Held)
}

fn full_barrier(bench: &mut Bench, wanted: &[i16]) -> Result<()> {
    let pages: Vec<_> = (DATA..DATA + DIRECT_SEGMENTS)
        .map(|page| bench.pool.whole(page))
        .collect();
    let status = bench.ask(0, Request::direct(BARRIER, SECTORS, &pages))?;
    ensure!(
        wanted.contains(&status),
        "a barrier of 11 pages: status {status}"
    );
    Ok(())
}

/// A write of a page with something new, which the arena then expects.
fn generation(bench: &mut Bench, page: usize, operation: u8, sector: u64) -> Result<Request> {
    let arena = bench.arena.as_mut().context("no arena")?;
    let generation = arena.next_generation();
    for slot in 0..PAGE_SECTORS {
        bench
            .pool
            .fill(page, slot, sector + u64::from(slot), generation);
    }
    arena.set(sector, u64::from(PAGE_SECTORS), Some(generation));
    Ok(Request::direct(
        operation,
        sector,
        &[bench.pool.whole(page)],
    ))
}

fn put(bench: &mut Bench, queue: usize, mut request: Request) -> Result<u64> {
    let link = bench.link()?;
    request.id = link.next_id();
    link.queues[queue].put(&request);
    Ok(request.id)
}

fn flushes(bench: &mut Bench) -> Outcome {
    let empty = Request::direct(FLUSH, u64::MAX, &[]);
    bench.all_get(OKAY, vec![("a flush without data".into(), empty)])?;
    let sector = 128;
    let request = generation(bench, DATA, FLUSH, sector)?;
    bench.all_get(OKAY, vec![("a flush with data".into(), request)])?;
    bench.verify_page(0, sector)?;
    let page = bench.pool.whole(DATA);
    let bad = [
        (
            "12 segments",
            Request::direct(FLUSH, 0, &[page]).claiming(12),
        ),
        (
            "data past the end",
            Request::direct(FLUSH, 1 << 55, &[page]),
        ),
    ];
    let named = bad.map(|(name, request)| (format!("a flush of {name}"), request));
    bench.all_get(ERROR, named.into())?;
    Ok(Verdict::Held)
}

fn many_flushes(bench: &mut Bench) -> Outcome {
    let flush = Request::direct(FLUSH, 0, &[]);
    let requests = vec![flush; bench.loops as usize];
    let statuses = bench.link()?.ask_all(0, requests)?;
    ensure!(statuses.iter().all(|s| *s == OKAY), "a flush failed");
    Ok(Verdict::Held)
}

fn discards(bench: &mut Bench) -> Outcome {
    let traits = bench.traits()?;
    let end = traits.sectors;
    let place = SECTORS;
    if !traits.discard {
        let one = [("a discard".into(), Request::discard(place, 8, 0))];
        bench.all_get(UNSUPPORTED, one.into())?;
        return Ok(Verdict::Held);
    }
    let bad = [
        ("past the end", end - 8, 16),
        ("at the end", end, 8),
        ("from far behind the end", 1 << 55, 8),
        ("of more than there is", 0, end + 1),
        ("that wraps", u64::MAX - 7, 16),
        ("whose length wraps", 8, u64::MAX - 7),
        ("whose bytes wrap", 0, 1 << 55),
    ];
    let named = bad.map(|(name, sector, sectors)| {
        let request = Request::discard(sector, sectors, 0);
        (format!("a discard {name}"), request)
    });
    bench.all_get(ERROR, named.into())?;
    bench.verify(0, 0, 64)?;
    let mut good = vec![("a discard".into(), Request::discard(place, 64, 0))];
    if !traits.secure {
        let secure = Request::discard(place, 64, SECURE);
        good.push(("secure where that is not offered".into(), secure));
    }
    bench.all_get(OKAY, good)?;
    let odd = bench.ask(0, Request::discard(place + 1, 3, 0))?;
    ensure!(
        odd == OKAY || odd == ERROR,
        "a discard of odd sectors: status {odd}"
    );
    bench.verify(0, 0, 64)?;
    let none = Request::discard(place, 0, 0);
    bench.all_get(OKAY, vec![("a discard of nothing".into(), none)])?;
    Ok(Verdict::Held)
}

fn read_only(bench: &mut Bench) -> Outcome {
    let traits = bench.traits()?;
    if !traits.read_only {
        return Ok(Verdict::Skipped("the disk is writable"));
    }
    let page = bench.pool.whole(DATA);
    let refused: &[i16] = &[ERROR];
    // What is not offered may be refused for either reason.
    let unless = |offered: bool| {
        if offered {
            refused
        } else {
            &[ERROR, UNSUPPORTED]
        }
    };
    let direct = |operation| Request::direct(operation, 0, &[page]);
    let (barrier, discard) = (unless(traits.barrier), unless(traits.discard));
    let mut rows = vec![
        ("a write", direct(WRITE), refused),
        ("a flush with data", direct(FLUSH), refused),
        ("a barrier with data", direct(BARRIER), barrier),
        ("a discard", Request::discard(0, 64, 0), discard),
        ("a secure discard", Request::discard(0, 64, SECURE), discard),
        ("a read", direct(READ), &[OKAY]),
    ];
    if bench.offer.segments > 0 {
        bench.pool.describe(LIST, &[page]);
        let list = bench.pool.pages.grefs[LIST];
        let request = Request::indirect(WRITE, 0, 1, list);
        rows.push(("an indirect write", request, refused));
    }
    for (name, request, wanted) in rows {
        let status = bench.ask(0, request)?;
        ensure!(
            wanted.contains(&status),
            "{name}: expected {wanted:?}, saw {status}"
        );
    }
    Ok(Verdict::Held)
}

/// Closed is only announced when the discard is done and answered.
fn discard_and_leave(bench: &mut Bench) -> Outcome {
    let traits = bench.traits()?;
    if !traits.discard {
        return Ok(Verdict::Skipped("discards are not offered"));
    }
    let answered = bench.link()?.queues[0].get(layout::RSP_PROD);
    put(bench, 0, Request::discard(0, traits.sectors, 0))?;
    bench.link()?.queues[0].publish()?;
    // Taken off the ring as soon as the backend asks for the next.
    bench.disk.close()?;
    let queue = &bench.link()?.queues[0];
    let taken = queue.get(layout::RSP_PROD).wrapping_sub(answered);
    ensure!(taken == 1, "Closed, but the discard was not answered");
    bench.forget_link()?;
    // Nobody knows what the sectors hold now.
    bench.arena = None;
    Ok(Verdict::Held)
}
