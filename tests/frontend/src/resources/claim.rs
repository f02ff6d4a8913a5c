// SPDX-License-Identifier: GPL-2.0

//! Grants that are to stay, and do not.

use std::io::Read;

use anyhow::Result;
use anyhow::ensure;
use serde_json::json;

use crate::disk::Disk;
use crate::disk::Setup;
use crate::events::Events;
use crate::grants::Grants;
use crate::link::Link;
use crate::pool::PAGE_SECTORS;
use crate::pool::Pool;
use crate::request::OKAY;
use crate::request::READ;
use crate::request::Request;
use crate::request::WRITE;

/// Pages that each queue writes from, and as many to read into.
const PAGES: usize = 400;
const GENERATION: u32 = 7;

/// Writes from pages of its own through each queue, takes the grants back, says so, and waits for the end of
/// the input. Then other pages, which may have the same references, have to get what was written.
pub fn claim(disk: &Disk, setup: &Setup) -> Result<()> {
    let (grants, events) = (Grants::open()?, Events::open()?);
    let mut link = Link::connect(disk, &grants, &events, setup)?;
    for number in 0..link.queues.len() {
        let pool = pool(&grants)?;
        ask(&mut link, &pool, number, WRITE)?;
        // What was there is not what will be read.
        (0..PAGES).for_each(|page| pool.mark(page));
    }
    println!("{}", json!({"ok": true}));
    std::io::stdin().read_to_end(&mut Vec::new())?;
    for number in 0..link.queues.len() {
        ask(&mut link, &pool(&grants)?, number, READ)?;
    }
    disk.reopen()
}

fn pool(grants: &Grants) -> Result<Pool> {
    let pages = grants.pages(PAGES)?;
    Ok(Pool { pages })
}

/// Writes or reads a page at a time; what is read has to be what was written.
fn ask(link: &mut Link, pool: &Pool, number: usize, operation: u8) -> Result<()> {
    let sector = |page: usize| ((number * PAGES + page) * usize::from(PAGE_SECTORS)) as u64;
    let parts = || (0..PAGES).flat_map(|page| (0..PAGE_SECTORS).map(move |slot| (page, slot)));
    for (page, slot) in parts().filter(|_| operation == WRITE) {
        pool.fill(page, slot, sector(page) + u64::from(slot), GENERATION);
    }
    let requests = (0..PAGES)
        .map(|page| Request::direct(operation, sector(page), &[pool.whole(page)]))
        .collect();
    let statuses = link.ask_all(number, requests)?;
    ensure!(
        statuses.iter().all(|status| *status == OKAY),
        "operation {operation} on queue {number}: {statuses:?}"
    );
    parts()
        .filter(|_| operation == READ)
        .try_for_each(|(page, slot)| {
            pool.check(page, slot, sector(page) + u64::from(slot), GENERATION)
        })
}
