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

/// Connects all disks, has each ring of each answer a read while all are connected, and closes
/// them. All are asked before any answer is looked at. `large`: the largest read there is.
pub fn crowd(vdevs: &[u32], queues: u32, large: bool) -> Result<()> {
    let (grants, events) = (Grants::open()?, Events::open()?);
    let setup = Setup {
        queues,
        ..Setup::plain(&layout::ALL[0])
    };
    let disks = vdevs
        .iter()
        .map(|vdev| Disk::open(*vdev))
        .collect::<Result<Vec<_>>>()?;
    // The first page describes the others, which all reads share.
    let segments = match (large, disks.first()) {
        (true, Some(disk)) => disk.offer()?.segments,
        _ => 1,
    };
    let pool = Pool {
        pages: grants.pages(1 + usize::from(segments))?,
    };
    let pages: Vec<Segment> = (1..=usize::from(segments))
        .map(|page| pool.whole(page))
        .collect();
    let read = if large {
        pool.describe(0, &pages);
        Request::indirect(READ, 0, segments, pool.pages.grefs[0])
    } else {
        Request::direct(READ, 0, &pages)
    };
    let mut links = Vec::new();
    for (disk, vdev) in disks.iter().zip(vdevs) {
        // Not from the beginning: keys that are there already may be all that it can have.
        disk.restart()?;
        let link = Link::connect(disk, &grants, &events, &setup);
        links.push(link.with_context(|| format!("disk {vdev}, the {}th", links.len() + 1))?);
    }
    for link in &mut links {
        for queue in 0..queues as usize {
            let id = link.next_id();
            link.queues[queue].put(&Request { id, ..read.clone() });
        }
    }
    for queue in links.iter_mut().flat_map(|link| &mut link.queues) {
        queue.publish()?;
    }
    let mut answers = 0;
    for (link, vdev) in links.iter_mut().zip(vdevs) {
        for queue in 0..queues as usize {
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
