// SPDX-License-Identifier: GPL-2.0

//! A ring that is kept full: more requests than a guest's kernel and programs can offer for the
//! same work, for whoever wants to see how many a backend serves.
//!
//! So no more of a slot is written than a read of one page takes, no more of an answer is read than
//! whether it is one, and what was read is not looked at.

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
use crate::layout::RSP_ID;
use crate::layout::RSP_STATUS;
use crate::link::Link;
use crate::pool::PAGE_SECTORS;
use crate::pool::Pool;
use crate::queue::Queue;
use crate::request::OKAY;
use crate::request::READ;

/// Reads pages here and there for `warm_up`, then for `counted`; says how many the backend
/// answered in the second part and how long it was.
pub fn flood(disk: &Disk, setup: &Setup, warm_up: Duration, counted: Duration) -> Result<()> {
    let (grants, events) = (Grants::open()?, Events::open()?);
    disk.reset()?;
    let mut link = Link::connect(disk, &grants, &events, setup)?;
    let sectors = link.traits.sectors;
    let queue = &mut link.queues[0];
    let pool = Pool {
        pages: grants.pages(queue.entries as usize)?,
    };
    let mut reads = Reads {
        segments: (0..queue.entries as usize)
            .map(|page| u64::from_le_bytes(pool.whole(page).bytes()))
            .collect(),
        pages: sectors / u64::from(PAGE_SECTORS),
        next: 0,
    };
    for page in 0..queue.entries {
        reads.put(queue, u64::from(page));
    }
    queue.publish()?;
    reads.serve(queue, &events, warm_up)?;
    let begin = Instant::now();
    let answered = reads.serve(queue, &events, counted)?;
    let seconds = begin.elapsed().as_secs_f64();
    while queue.in_flight() > 0 {
        if answer(queue)?.is_none() {
            wait(&events)?;
        }
    }
    println!(
        "{}",
        json!({"ok": true, "done": {"answered": answered, "seconds": seconds}})
    );
    disk.close()
}

struct Reads {
    /// A segment for each page of the pool, as a slot has it.
    segments: Vec<u64>,
    /// Of the disk.
    pages: u64,
    next: u64,
}

impl Reads {
    /// Puts a read into page `page` of the pool, whose number is the request's name. Of a 64-bit
    /// layout, where all is aligned.
    fn put(&mut self, queue: &mut Queue, page: u64) {
        // By a prime's steps, so that no two neighbours are in flight together.
        self.next = (self.next + 104_729) % self.pages;
        let (slot, layout) = (queue.next_slot(), queue.layout);
        let memory = queue.ring.memory();
        memory.write(slot, u64::from_le_bytes([READ, 1, 0, 0, 0, 0, 0, 0]));
        memory.write(slot + layout.id, page);
        memory.write(slot + layout.sector, self.next * u64::from(PAGE_SECTORS));
        memory.write(slot + layout.tail, self.segments[page as usize]);
        queue.req_prod = queue.req_prod.wrapping_add(1);
    }

    /// Puts a new read wherever one was answered, for so long. Says how many were.
    fn serve(&mut self, queue: &mut Queue, events: &Events, time: Duration) -> Result<u64> {
        let (begin, mut answered) = (Instant::now(), 0);
        while begin.elapsed() < time {
            while let Some(page) = answer(queue)? {
                self.put(queue, page);
                answered += 1;
            }
            queue.publish()?;
            wait(events)?;
        }
        Ok(answered)
    }
}

/// The name of the next request that was answered. If there is none, asks for an event when half
/// of them are: a guest that looks at each of them at once is soon what limits the backend.
fn answer(queue: &mut Queue) -> Result<Option<u64>> {
    if !queue.is_answered(queue.in_flight().div_ceil(2))? {
        return Ok(None);
    }
    let slot = queue.layout.place(queue.rsp_cons, queue.entries);
    let memory = queue.ring.memory();
    let status: i16 = memory.read(slot + RSP_STATUS);
    ensure!(status == OKAY, "a read was answered with {status}");
    queue.rsp_cons = queue.rsp_cons.wrapping_add(1);
    Ok(Some(memory.read(slot + RSP_ID)))
}

fn wait(events: &Events) -> Result<()> {
    ensure!(events.wait(LIMIT)?, "no answer within {LIMIT:?}");
    Ok(())
}
