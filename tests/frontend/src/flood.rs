// SPDX-License-Identifier: GPL-2.0

//! Rings that are kept full: more requests than a guest's kernel and programs can offer for the
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
use crate::request::DISCARD;
use crate::request::OKAY;
use crate::request::READ;
use crate::request::WRITE;

/// What is asked for: each is about one page of the disk.
#[derive(Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    #[default]
    Reads,
    Writes,
    Discards,
}

impl Kind {
    /// The first bytes of a slot.
    fn head(self) -> [u8; 8] {
        let (operation, segments) = match self {
            Kind::Reads => (READ, 1),
            Kind::Writes => (WRITE, 1),
            // Where the others have the count of segments, it has flags.
            Kind::Discards => (DISCARD, 0),
        };
        [operation, segments, 0, 0, 0, 0, 0, 0]
    }
}

/// Asks for pages here and there for `warm_up`, then for `counted`; says how many requests the backend
/// answered in the second part, how long it was, and how many there were in all.
pub fn flood(
    disk: &Disk,
    setup: &Setup,
    kind: Kind,
    warm_up: Duration,
    counted: Duration,
) -> Result<()> {
    let (grants, events) = (Grants::open()?, Events::open()?);
    disk.reset()?;
    let mut link = Link::connect(disk, &grants, &events, setup)?;
    let sectors = link.traits.sectors;
    let queues = &mut link.queues[..];
    let entries = setup.layout.entries(setup.order) as usize;
    // Each queue has its own.
    let pages = entries * queues.len();
    let pool = Pool {
        pages: grants.pages(pages)?,
    };
    let tail = |page| match kind {
        Kind::Discards => u64::from(PAGE_SECTORS),
        Kind::Reads | Kind::Writes => u64::from_le_bytes(pool.whole(page).bytes()),
    };
    let mut asking = Asking {
        head: u64::from_le_bytes(kind.head()),
        tails: (0..pages).map(tail).collect(),
        pages: sectors / u64::from(PAGE_SECTORS),
        next: 0,
    };
    for (number, queue) in queues.iter_mut().enumerate() {
        for page in number * entries..(number + 1) * entries {
            asking.put(queue, page as u64);
        }
        queue.publish()?;
    }
    let answered_before = asking.serve(queues, &events, warm_up)?;
    let begin = Instant::now();
    let answered = asking.serve(queues, &events, counted)?;
    let seconds = begin.elapsed().as_secs_f64();
    let in_flight = |queues: &[Queue]| -> u64 {
        queues
            .iter()
            .map(|queue| u64::from(queue.in_flight()))
            .sum()
    };
    let all = answered_before + answered + in_flight(queues);
    while in_flight(queues) > 0 {
        let mut got = 0;
        for queue in queues.iter_mut().filter(|queue| queue.in_flight() > 0) {
            got += u64::from(answer(queue)?.is_some());
        }
        if got == 0 {
            wait(&events)?;
        }
    }
    println!(
        "{}",
        json!({"ok": true, "done": {"answered": answered, "seconds": seconds, "all": all}})
    );
    disk.close()
}

struct Asking {
    /// The first bytes of a slot.
    head: u64,
    /// What a slot has after the sector, for each page of the pool: a segment, or how many sectors to discard.
    tails: Vec<u64>,
    /// Of the disk.
    pages: u64,
    next: u64,
}

impl Asking {
    /// Puts a request with page `page` of the pool, whose number is the request's name. Of a 64-bit
    /// layout, where all is aligned.
    fn put(&mut self, queue: &mut Queue, page: u64) {
        // By a prime's steps, so that no two neighbours are in flight together.
        self.next = (self.next + 104_729) % self.pages;
        let (slot, layout) = (queue.next_slot(), queue.layout);
        let memory = queue.ring.memory();
        memory.write(slot, self.head);
        memory.write(slot + layout.id, page);
        memory.write(slot + layout.sector, self.next * u64::from(PAGE_SECTORS));
        memory.write(slot + layout.tail, self.tails[page as usize]);
        queue.req_prod = queue.req_prod.wrapping_add(1);
    }

    /// Puts a new request wherever one was answered, for so long. Says how many were.
    fn serve(&mut self, queues: &mut [Queue], events: &Events, time: Duration) -> Result<u64> {
        let (begin, mut answered) = (Instant::now(), 0);
        while begin.elapsed() < time {
            for queue in &mut *queues {
                while let Some(page) = answer(queue)? {
                    self.put(queue, page);
                    answered += 1;
                }
                queue.publish()?;
            }
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
    ensure!(status == OKAY, "a request was answered with {status}");
    queue.rsp_cons = queue.rsp_cons.wrapping_add(1);
    Ok(Some(memory.read(slot + RSP_ID)))
}

fn wait(events: &Events) -> Result<()> {
    ensure!(events.wait(LIMIT)?, "no answer within {LIMIT:?}");
    Ok(())
}
