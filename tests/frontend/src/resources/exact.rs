// SPDX-License-Identifier: GPL-2.0

//! Requests of which each has to be answered once, however long the guest does not look.

use std::collections::HashMap;
use std::io::Read;

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
use crate::pool::PAGE_SECTORS;
use crate::pool::Pool;
use crate::request::OKAY;
use crate::request::READ;
use crate::request::Request;
use crate::request::WRITE;

const QUEUES: [u32; 2] = [1, 4];
const ORDER: u32 = 4;
/// What all sectors are written with.
const GENERATION: u32 = 1;

struct Filled {
    disk: Disk,
    link: Link,
    /// A page for each request.
    pool: Pool,
    /// The page of each request that was not answered yet.
    expected: HashMap<u64, usize>,
}

/// Fills the rings of all disks, says so, and waits for the end of the input.
pub fn exact(vdevs: &[u32]) -> Result<()> {
    let (grants, events) = (Grants::open()?, Events::open()?);
    let mut disks = Vec::new();
    for (number, vdev) in vdevs.iter().enumerate() {
        let layouts = layout::ALL.len();
        let setup = Setup {
            queues: QUEUES[number / layouts % QUEUES.len()],
            order: ORDER,
            ..Setup::plain(&layout::ALL[number % layouts])
        };
        let filled = Filled::new(Disk::open(*vdev)?, &grants, &events, &setup);
        disks.push(filled.with_context(|| format!("disk {vdev}"))?);
    }
    let asked: usize = disks.iter().map(|disk| disk.expected.len()).sum();
    println!("{}", json!({"ok": true, "asked": asked}));
    std::io::stdin().read_to_end(&mut Vec::new())?;
    for (disk, vdev) in disks.iter_mut().zip(vdevs) {
        disk.collect()
            .and_then(|()| disk.verify())
            .with_context(|| format!("disk {vdev}"))?;
    }
    disks.iter().try_for_each(|disk| disk.disk.reopen())
}

impl Filled {
    fn new(disk: Disk, grants: &Grants, events: &Events, setup: &Setup) -> Result<Self> {
        disk.reset()?;
        let mut link = Link::connect(&disk, grants, events, setup)?;
        let entries: u32 = link.queues.iter().map(|queue| queue.entries).sum();
        let pool = Pool {
            pages: grants.pages(entries as usize)?,
        };
        let (mut expected, mut page) = (HashMap::new(), 0);
        for number in 0..link.queues.len() {
            while link.queues[number].free() > 0 {
                let sector = sector_of(page);
                for slot in 0..PAGE_SECTORS {
                    pool.fill(page, slot, sector + u64::from(slot), GENERATION);
                }
                let id = link.next_id();
                let write = Request::direct(WRITE, sector, &[pool.whole(page)]);
                link.queues[number].put(&Request { id, ..write });
                expected.insert(id, page);
                page += 1;
            }
            link.queues[number].publish()?;
        }
        Ok(Filled {
            disk,
            link,
            pool,
            expected,
        })
    }

    /// Every request is answered, and no other.
    fn collect(&mut self) -> Result<()> {
        for number in 0..self.link.queues.len() {
            while self.link.queues[number].in_flight() > 0 {
                let answer = self.link.answer(number)?;
                let known = self.expected.remove(&answer.id);
                ensure!(
                    known.is_some(),
                    "answered twice, or never asked: {answer:?}"
                );
                ensure!(answer.status == OKAY, "answered with {answer:?}");
            }
        }
        let left = self.expected.len();
        ensure!(left == 0, "{left} requests were answered by others' ids");
        // One more would be for no request that is in flight.
        self.link.glance()?;
        self.link
            .queues
            .iter()
            .try_for_each(|queue| queue.pending().map(drop))
    }

    /// The disk holds what was written, through each queue.
    fn verify(&mut self) -> Result<()> {
        let queues = self.link.queues.len();
        let pages = self.pool.pages.memory().pages();
        for number in 0..queues {
            let own: Vec<usize> = (number..pages).step_by(queues).collect();
            let read = |page: &usize| {
                self.pool.mark(*page);
                Request::direct(READ, sector_of(*page), &[self.pool.whole(*page)])
            };
            let statuses = self.link.ask_all(number, own.iter().map(read).collect())?;
            ensure!(statuses.iter().all(|s| *s == OKAY), "a read has failed");
            for page in own {
                for slot in 0..PAGE_SECTORS {
                    let sector = sector_of(page) + u64::from(slot);
                    self.pool.check(page, slot, sector, GENERATION)?;
                }
            }
        }
        Ok(())
    }
}

fn sector_of(page: usize) -> u64 {
    page as u64 * u64::from(PAGE_SECTORS)
}
