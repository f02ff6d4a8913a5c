// SPDX-License-Identifier: GPL-2.0

//! The shadow of the part of a disk that this program works on: what each sector holds.

use anyhow::Result;
use anyhow::ensure;

use crate::layout::DIRECT_SEGMENTS;
use crate::link::Link;
use crate::pool::PAGE_SECTORS;
use crate::pool::Pool;
use crate::request::OKAY;
use crate::request::READ;
use crate::request::Request;
use crate::request::Segment;
use crate::request::WRITE;

/// Sectors of the arena, from the disk's first one on.
pub const SECTORS: u64 = 8192;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    Free,
    Read(u16),
    Written,
}

pub struct Arena {
    /// The generation each sector holds; `None` after a discard, when nobody knows.
    generations: Vec<Option<u32>>,
    uses: Vec<Use>,
    next: u32,
}

impl Arena {
    /// Writes the whole arena once.
    pub fn new(link: &mut Link, pool: &Pool) -> Result<Self> {
        let mut arena = Arena {
            generations: vec![None; SECTORS as usize],
            uses: vec![Use::Free; SECTORS as usize],
            next: 1,
        };
        ensure!(
            link.traits.sectors >= 2 * SECTORS,
            "the disk has only {} sectors",
            link.traits.sectors
        );
        arena.write(link, pool, 0, SECTORS)?;
        Ok(arena)
    }

    pub fn next_generation(&mut self) -> u32 {
        self.next += 1;
        self.next
    }

    pub fn generation(&self, sector: u64) -> Option<u32> {
        self.generations[sector as usize]
    }

    pub fn set(&mut self, sector: u64, sectors: u64, generation: Option<u32>) {
        self.generations[sector as usize..(sector + sectors) as usize].fill(generation);
    }

    /// Whether a request may use these sectors beside those in flight, so that what it does to
    /// them is certain.
    pub fn is_free(&self, sector: u64, sectors: u64, writes: bool) -> bool {
        let uses = &self.uses[sector as usize..(sector + sectors) as usize];
        uses.iter().all(|use_| match use_ {
            Use::Free => true,
            Use::Read(_) => !writes,
            Use::Written => false,
        })
    }

    pub fn claim(&mut self, sector: u64, sectors: u64, writes: bool) {
        for use_ in &mut self.uses[sector as usize..(sector + sectors) as usize] {
            *use_ = match use_ {
                Use::Read(n) => Use::Read(*n + 1),
                _ if writes => Use::Written,
                _ => Use::Read(1),
            };
        }
    }

    pub fn release(&mut self, sector: u64, sectors: u64) {
        for use_ in &mut self.uses[sector as usize..(sector + sectors) as usize] {
            *use_ = match use_ {
                Use::Read(n) if *n > 1 => Use::Read(*n - 1),
                _ => Use::Free,
            };
        }
    }

    /// Writes sectors, whole pages at a time, through queue 0.
    pub fn write(&mut self, link: &mut Link, pool: &Pool, sector: u64, sectors: u64) -> Result<()> {
        let generation = self.next_generation();
        let step = DIRECT_SEGMENTS as u64 * u64::from(PAGE_SECTORS);
        // As many requests beside each other as there are pages.
        let together = step * 32;
        let mut at = sector;
        while at < sector + sectors {
            let end = (at + together).min(sector + sectors);
            let mut requests = Vec::new();
            let mut page = 0;
            while at < end {
                let count = (end - at).min(step);
                let segments = self.pages_for(pool, &mut page, at, count, Some(generation));
                requests.push(Request::direct(WRITE, at, &segments));
                at += count;
            }
            let statuses = link.ask_all(0, requests)?;
            ensure!(
                statuses.iter().all(|s| *s == OKAY),
                "filling the arena: {statuses:?}"
            );
        }
        self.set(sector, sectors, Some(generation));
        Ok(())
    }

    /// Reads sectors through queue `queue` and compares them with what they should hold.
    pub fn verify(
        &self,
        link: &mut Link,
        pool: &Pool,
        queue: usize,
        sector: u64,
        sectors: u64,
    ) -> Result<()> {
        let step = DIRECT_SEGMENTS as u64 * u64::from(PAGE_SECTORS);
        let mut at = sector;
        while at < sector + sectors {
            let count = (sector + sectors - at).min(step);
            let segments = self.pages_for(pool, &mut 0, at, count, None);
            let status = link.ask(queue, Request::direct(READ, at, &segments))?;
            ensure!(status == OKAY, "reading sector {at}: status {status}");
            for (i, now) in (at..at + count).enumerate() {
                if let Some(generation) = self.generation(now) {
                    let part = usize::from(PAGE_SECTORS);
                    pool.check(i / part, (i % part) as u8, now, generation)?;
                }
            }
            at += count;
        }
        Ok(())
    }

    /// Segments over pages from `page` on for sectors, filled for a write or marked for a read.
    fn pages_for(
        &self,
        pool: &Pool,
        page: &mut usize,
        sector: u64,
        count: u64,
        generation: Option<u32>,
    ) -> Vec<Segment> {
        let mut segments = Vec::new();
        let mut done = 0;
        while done < count {
            let part = (count - done).min(u64::from(PAGE_SECTORS)) as u8;
            match generation {
                Some(generation) => {
                    (0..part).for_each(|slot| {
                        pool.fill(*page, slot, sector + done + u64::from(slot), generation);
                    });
                }
                None => pool.mark(*page),
            }
            segments.push(pool.segment(*page, 0, part - 1));
            *page += 1;
            done += u64::from(part);
        }
        segments
    }
}
