// SPDX-License-Identifier: GPL-2.0

//! A connection that is held, for whoever wants to see what it costs the backend.

use std::io::Read;

use anyhow::Result;
use anyhow::ensure;
use serde_json::json;

use crate::disk::Disk;
use crate::disk::Setup;
use crate::events::Events;
use crate::grants::Grants;
use crate::link::Link;
use crate::pool::Pool;
use crate::request::OKAY;
use crate::request::READ;
use crate::request::Request;
use crate::request::Segment;

/// Requests of 256 segments that have no page in common.
const APART: usize = 8;

/// Connects, fills all rings with the largest reads if `full`, sends `storm` events for nothing,
/// says so, and holds that until its own input ends. Then every request has to be answered well.
pub fn hold(disk: &Disk, setup: &Setup, full: bool, storm: u32) -> Result<()> {
    let (grants, events) = (Grants::open()?, Events::open()?);
    disk.reset()?;
    let segments = usize::from(disk.offer()?.segments);
    let mut link = Link::connect(disk, &grants, &events, setup)?;
    let pool = Pool {
        // One page more for each, that lists its segments.
        pages: grants.pages(if full { APART * (segments + 1) } else { 1 })?,
    };
    let reads = if full { reads(&pool, segments) } else { vec![] };
    let mut asked = 0;
    for number in 0..link.queues.len() {
        for read in reads.iter().cycle() {
            if link.queues[number].free() == 0 {
                break;
            }
            let id = link.next_id();
            link.queues[number].put(&Request { id, ..read.clone() });
            asked += 1;
        }
        link.queues[number].publish()?;
    }
    for _ in 0..storm {
        link.queues[0].port.notify()?;
    }
    println!("{}", json!({"ok": true, "asked": asked}));
    std::io::stdin().read_to_end(&mut Vec::new())?;
    for number in 0..link.queues.len() {
        while link.queues[number].in_flight() > 0 {
            let status = link.answer(number)?.status;
            ensure!(status == OKAY, "a read was answered with {status}");
        }
    }
    disk.reopen()
}

/// Reads of `segments` whole pages each, from the disk's beginning.
fn reads(pool: &Pool, segments: usize) -> Vec<Request> {
    let read = |number: usize| {
        let first = number * (segments + 1);
        let pages: Vec<Segment> = (first + 1..=first + segments)
            .map(|page| pool.whole(page))
            .collect();
        pool.describe(first, &pages);
        Request::indirect(READ, 0, segments as u16, pool.pages.grefs[first])
    };
    (0..APART).map(read).collect()
}
