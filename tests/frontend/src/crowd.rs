// SPDX-License-Identifier: GPL-2.0

//! Many disks at once, each with as many queues as a large guest has processors.

use anyhow::Context;
use anyhow::Result;
use anyhow::ensure;
use serde_json::json;

use crate::disk::Disk;
use crate::disk::Setup;
use crate::events::Events;
use crate::grants::Grants;
use crate::layout;
use crate::link::Link;
use crate::pool::Pool;
use crate::request::OKAY;
use crate::request::READ;
use crate::request::Request;
use crate::request::Segment;

/// Reads that have no page in common: Xen counts in a byte how often a grant is mapped.
const APART: usize = 8;

/// What a crowd of disks does.
#[derive(clap::Args)]
pub struct Crowd {
    /// The largest read there is, in all queues at once.
    #[arg(long)]
    large: bool,
    #[arg(long, value_delimiter = ',')]
    disks: Vec<u32>,
    #[arg(long)]
    queues: u32,
    #[arg(long, default_value_t = 0)]
    order: u32,
    /// Reads that each queue is asked for.
    #[arg(long, default_value_t = 1)]
    each: u32,
    /// Says so when all are connected, and asks when a line comes; then says so, and looks at the answers when
    /// another line comes.
    #[arg(long)]
    held: bool,
}

/// Connects all disks, has each ring of each answer reads while all are connected, and closes
/// them. All are asked before any answer is looked at.
pub fn crowd(wanted: &Crowd) -> Result<()> {
    let (grants, events) = (Grants::open()?, Events::open()?);
    let disks = wanted
        .disks
        .iter()
        .map(|vdev| Disk::open(*vdev))
        .collect::<Result<Vec<_>>>()?;
    let segments = match (wanted.large, disks.first()) {
        (true, Some(disk)) => disk.offer()?.segments,
        _ => 1,
    };
    let pool = Pool {
        // One page more for each read, that lists its segments.
        pages: grants.pages(APART * (1 + usize::from(segments)))?,
    };
    let mut links = wanted.connect(&disks, &grants, &events)?;
    pause(wanted.held)?;
    let reads = (0..APART).map(|number| read(&pool, number, segments));
    for (link, read) in links.iter_mut().zip(reads.cycle()) {
        for queue in wanted.queues_of_reads() {
            let id = link.next_id();
            link.queues[queue].put(&Request { id, ..read.clone() });
        }
    }
    for queue in links.iter_mut().flat_map(|link| &mut link.queues) {
        queue.publish()?;
    }
    pause(wanted.held)?;
    let mut answers = 0;
    for (link, vdev) in links.iter_mut().zip(&wanted.disks) {
        for queue in wanted.queues_of_reads() {
            let status = link.answer(queue)?.status;
            ensure!(
                status == OKAY,
                "queue {queue} of disk {vdev} answered a read with {status}"
            );
            answers += 1;
        }
    }
    println!("{}", json!({"ok": true, "answers": answers}));
    disks.iter().try_for_each(Disk::close)
}

impl Crowd {
    fn connect(&self, disks: &[Disk], grants: &Grants, events: &Events) -> Result<Vec<Link>> {
        let setup = Setup {
            queues: self.queues,
            order: self.order,
            ..Setup::plain(&layout::ALL[0])
        };
        let connect = |(number, disk): (usize, &Disk)| {
            // Not from the beginning: keys that are there already may be all that it can have.
            disk.restart()?;
            let link = Link::connect(disk, grants, events, &setup);
            link.with_context(|| format!("disk {}, the {number}th", self.disks[number]))
        };
        disks.iter().enumerate().map(connect).collect()
    }

    /// The queue of each read that a disk is asked for.
    fn queues_of_reads(&self) -> impl Iterator<Item = usize> {
        let each = self.each;
        (0..self.queues as usize).flat_map(move |queue| (0..each).map(move |_| queue))
    }
}

/// A read of so many pages, which it shares with every eighth disk.
fn read(pool: &Pool, number: usize, segments: u16) -> Request {
    let first = number * (1 + usize::from(segments));
    let pages: Vec<Segment> = (first + 1..=first + usize::from(segments))
        .map(|page| pool.whole(page))
        .collect();
    if segments == 1 {
        return Request::direct(READ, 0, &pages);
    }
    pool.describe(first, &pages);
    Request::indirect(READ, 0, segments, pool.pages.grefs[first])
}

/// Says that it has come so far, and waits for a line.
fn pause(held: bool) -> Result<()> {
    if held {
        println!("{}", json!({"ok": true}));
        std::io::stdin().read_line(&mut String::new())?;
    }
    Ok(())
}
