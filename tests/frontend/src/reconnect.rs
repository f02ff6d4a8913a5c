// SPDX-License-Identifier: GPL-2.0

//! A frontend that comes and goes, with requests in flight each time it goes.

use anyhow::Context;
use anyhow::Result;

use crate::disk::Disk;
use crate::disk::Setup;
use crate::events::Events;
use crate::grants::Grants;
use crate::link::Link;
use crate::pool::Pool;
use crate::request::READ;
use crate::request::Request;

/// Connects so many times, in each way by turns; fills all rings with reads, waits for the first
/// answer, and closes. The disk has to be waiting for a connection.
pub fn reconnect(disk: &Disk, setups: &[Setup], times: usize) -> Result<()> {
    let (grants, events) = (Grants::open()?, Events::open()?);
    let pool = Pool {
        pages: grants.pages(2)?,
    };
    for (number, setup) in (0..times).zip(setups.iter().cycle()) {
        once(disk, &grants, &events, &pool, setup)
            .with_context(|| format!("connection {number} ({})", crate::describe(setup)))?;
    }
    Ok(())
}

fn once(disk: &Disk, grants: &Grants, events: &Events, pool: &Pool, setup: &Setup) -> Result<()> {
    let mut link = Link::connect(disk, grants, events, setup)?;
    for number in 0..link.queues.len() {
        // Xen counts in a byte how often a grant is mapped: few of those in flight share a page.
        for place in 0..link.queues[number].free().min(64) {
            let id = link.next_id();
            let page = pool.whole(place as usize % 2);
            let read = Request::direct(READ, 8 * u64::from(place), &[page]);
            link.queues[number].put(&Request { id, ..read });
        }
        link.queues[number].publish()?;
    }
    link.answer(0)?;
    disk.reopen()
}
