// SPDX-License-Identifier: GPL-2.0

//! Events that a frontend asks for: each is for answers that it has not seen, and none is missing.

use std::time::Duration;
use std::time::Instant;

use anyhow::Result;
use anyhow::ensure;
use serde_json::json;

use crate::disk::Disk;
use crate::disk::LIMIT;
use crate::disk::Setup;
use crate::events::Events;
use crate::grants::Grants;
use crate::layout;
use crate::link::Link;
use crate::pool::PAGE_SECTORS;
use crate::pool::Pool;
use crate::queue::Queue;
use crate::request::OKAY;
use crate::request::READ;
use crate::request::Request;
use crate::sys::barrier;

/// Requests in flight in each queue.
const DEPTH: u32 = 32;

struct Counts {
    answered: u64,
    /// How often an event was asked for.
    asked: u64,
    longest: Duration,
}

/// Keeps requests in flight for so long; asks for an event at the next answer, then for one when half of them
/// are answered.
pub fn notified(disk: &Disk, setup: &Setup, time: Duration) -> Result<()> {
    for which in [1, DEPTH / 2] {
        let counts = once(disk, setup, time, which)?;
        let mut line = crate::describe(setup);
        line["ok"] = json!(true);
        line["done"] = json!({
            "which": which,
            "answered": counts.answered,
            "asked": counts.asked,
            "longest_us": counts.longest.as_micros() as u64,
        });
        println!("{line}");
        disk.reopen()?;
    }
    Ok(())
}

fn once(disk: &Disk, setup: &Setup, time: Duration, which: u32) -> Result<Counts> {
    let (grants, events) = (Grants::open()?, Events::open()?);
    let mut link = Link::connect(disk, &grants, &events, setup)?;
    let pool = Pool {
        pages: grants.pages(DEPTH as usize)?,
    };
    for number in 0..link.queues.len() {
        for page in 0..DEPTH as usize {
            let id = link.next_id();
            let sector = page as u64 * u64::from(PAGE_SECTORS);
            let read = Request::direct(READ, sector, &[pool.whole(page)]);
            link.queues[number].put(&Request { id, ..read });
        }
        link.queues[number].publish()?;
    }
    let mut counts = Counts {
        answered: 0,
        asked: 0,
        longest: Duration::ZERO,
    };
    let begin = Instant::now();
    let mut last = false;
    while !last || link.queues.iter().any(|queue| queue.in_flight() > 0) {
        last = begin.elapsed() >= time;
        for queue in &mut link.queues {
            serve(
                queue,
                &pool,
                which.min(queue.in_flight()),
                last,
                &mut counts,
            )?;
        }
        if link.queues.iter().all(|queue| queue.in_flight() == 0) {
            break;
        }
        let waits = Instant::now();
        ensure!(events.wait(LIMIT)?, "no event, and no answer");
        counts.longest = counts.longest.max(waits.elapsed());
    }
    Ok(counts)
}

/// Takes all answers, asks anew unless this is the last time, and then for an event.
fn serve(
    queue: &mut Queue,
    pool: &Pool,
    which: u32,
    last: bool,
    counts: &mut Counts,
) -> Result<()> {
    loop {
        while queue.pending()? > 0 {
            let answer = queue.take_raced()?;
            ensure!(answer.status == OKAY, "answered with {answer:?}");
            counts.answered += 1;
            if !last {
                let page = (counts.answered % u64::from(DEPTH)) as usize;
                let sector = page as u64 * u64::from(PAGE_SECTORS);
                let read = Request::direct(READ, sector, &[pool.whole(page)]);
                queue.put(&Request {
                    id: counts.answered,
                    ..read
                });
            }
        }
        queue.publish()?;
        let wanted = which.clamp(1, queue.in_flight().max(1));
        queue.set(layout::RSP_EVENT, queue.rsp_cons.wrapping_add(wanted));
        barrier();
        counts.asked += 1;
        // One that came before it was asked for brings no event.
        if queue.pending()? < wanted {
            return Ok(());
        }
    }
}
