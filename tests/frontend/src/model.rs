// SPDX-License-Identifier: GPL-2.0

//! Seeded runs: random requests, well-formed and not, over a shadow of the disk.
//!
//! Every request is answered exactly once, with its own id and operation and the status that the
//! protocol demands; every byte that was read is the one that was last written; nothing else
//! changes, neither in the pages nor on the ring. The same seed gives the same requests; how many of
//! them are in flight together depends on the backend.

use std::collections::HashMap;

use anyhow::Context;
use anyhow::Result;
use anyhow::ensure;
use rand::Rng;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use crate::arena::Arena;
use crate::arena::SECTORS;
use crate::link::Link;
use crate::plan;
use crate::plan::Plan;
use crate::pool::PAGE_SECTORS;
use crate::pool::Pool;
use crate::queue::Answer;
use crate::queue::Queue;
use crate::request::BARRIER;
use crate::request::Body;
use crate::request::FLUSH;
use crate::request::OKAY;
use crate::request::READ;
use crate::request::Request;
use crate::request::Segment;

/// What a run did.
#[derive(Debug, Default, Serialize)]
pub struct Tally {
    pub reads: u64,
    pub writes: u64,
    pub indirect: u64,
    pub flushes: u64,
    pub barriers: u64,
    pub discards: u64,
    pub refused: u64,
    /// Most requests in flight at once.
    pub deepest: usize,
}

/// What was asked, and what has to come of it.
struct Asked {
    request: Request,
    queue: usize,
    /// Any of these is right.
    statuses: &'static [i16],
    /// Sectors of the arena that it uses.
    sector: u64,
    sectors: u64,
    /// Its pages with the part of each that it uses.
    parts: Vec<(usize, Segment)>,
    /// A page of segments.
    list: Option<usize>,
    effect: Effect,
}

enum Effect {
    /// Nothing changes, nor does any of its pages.
    Nothing,
    Reads,
    Writes(u32),
    Discards,
}

pub struct Run<'a> {
    link: &'a mut Link,
    arena: &'a mut Arena,
    pool: &'a Pool,
    random: ChaCha8Rng,
    segments: u16,
    free: Vec<usize>,
    in_flight: HashMap<u64, Asked>,
    tally: Tally,
}

impl<'a> Run<'a> {
    /// `segments` is how many an indirect request may have.
    pub fn new(
        link: &'a mut Link,
        arena: &'a mut Arena,
        pool: &'a Pool,
        segments: u16,
        seed: u64,
    ) -> Self {
        Run {
            link,
            arena,
            pool,
            random: ChaCha8Rng::seed_from_u64(seed),
            segments,
            free: (0..pool.pages.memory().pages()).collect(),
            in_flight: HashMap::new(),
            tally: Tally::default(),
        }
    }

    /// Asks `count` requests and checks all that comes of them.
    pub fn run(mut self, count: u64) -> Result<Tally> {
        let mut asked = 0;
        while asked < count {
            let burst = self.random.random_range(1..=64).min(count - asked);
            for number in asked..asked + burst {
                self.ask().with_context(|| format!("request {number}"))?;
            }
            asked += burst;
            self.publish()?;
            // Now and then wait until all is answered.
            if self.random.random_ratio(1, 8) {
                self.collect(0)
                    .with_context(|| format!("after {asked} requests"))?;
            }
        }
        self.collect(0).context("at the end")?;
        self.arena.verify(self.link, self.pool, 0, 0, SECTORS)?;
        Ok(self.tally)
    }

    fn publish(&mut self) -> Result<()> {
        self.tally.deepest = self.tally.deepest.max(self.in_flight.len());
        self.link.queues.iter().try_for_each(Queue::publish)
    }

    /// Puts the next request on a random queue, once there is room for it and nothing in flight
    /// makes its result uncertain.
    fn ask(&mut self) -> Result<()> {
        let queue = self.random.random_range(0..self.link.queues.len());
        let handle = self.random.random();
        let plan = plan::draw(&mut self.random, &self.link.traits, self.segments);
        let (sector, sectors, writes) = plan.sectors();
        while self.link.queues[queue].free() == 0
            || self.free.len() < plan.pages()
            || !self.arena.is_free(sector, sectors, writes)
        {
            self.publish()?;
            let fewer = self.in_flight.len().checked_sub(1);
            self.collect(fewer.context("nothing is in flight, and yet there is no room")?)?;
        }
        self.arena.claim(sector, sectors, writes);
        let mut asked = self.dress(plan, queue);
        (asked.sector, asked.sectors) = (sector, sectors);
        asked.request.id = self.link.next_id();
        asked.request.handle = handle;
        self.link.queues[queue].put(&asked.request);
        self.in_flight.insert(asked.request.id, asked);
        Ok(())
    }

    /// Gives a plan its pages.
    fn dress(&mut self, plan: Plan, queue: usize) -> Asked {
        let asked = |request, statuses, effect| Asked {
            request,
            queue,
            statuses,
            sector: 0,
            sectors: 0,
            parts: Vec::new(),
            list: None,
            effect,
        };
        match plan {
            Plan::Bare { request, statuses } => asked(request, statuses, Effect::Nothing),
            Plan::Discard {
                sector,
                sectors,
                flags,
            } => {
                let request = Request::discard(sector, sectors, flags);
                asked(request, &[OKAY], Effect::Discards)
            }
            Plan::Malformed { request, statuses } => {
                let page = self.page();
                self.pool.mark(page);
                let gref = self.pool.pages.grefs[page];
                Asked {
                    parts: vec![(page, self.pool.whole(page))],
                    ..asked(request.granting(gref), statuses, Effect::Nothing)
                }
            }
            Plan::Transfer {
                operation,
                sector,
                parts,
                indirect,
            } => {
                let parts = self.parts(&parts);
                let effect = self.prepare(operation, sector, &parts);
                let (request, list) = self.transfer(operation, sector, &parts, indirect);
                Asked {
                    parts,
                    list,
                    ..asked(request, &[OKAY], effect)
                }
            }
        }
    }

    fn page(&mut self) -> usize {
        self.free.pop().expect("asked for before")
    }

    fn parts(&mut self, parts: &[(u8, u8)]) -> Vec<(usize, Segment)> {
        let mut part = |(first, last): &(u8, u8)| {
            let page = self.page();
            (page, self.pool.segment(page, *first, *last))
        };
        parts.iter().map(&mut part).collect()
    }

    /// Fills the pages of a write, marks those of a read.
    fn prepare(&mut self, operation: u8, sector: u64, parts: &[(usize, Segment)]) -> Effect {
        if operation == READ {
            parts.iter().for_each(|(page, _)| self.pool.mark(*page));
            return Effect::Reads;
        }
        let generation = self.arena.next_generation();
        for (page, slot, now) in sectors_of(parts, sector) {
            self.pool.fill(page, slot, now, generation);
        }
        Effect::Writes(generation)
    }

    fn transfer(
        &mut self,
        operation: u8,
        sector: u64,
        parts: &[(usize, Segment)],
        indirect: bool,
    ) -> (Request, Option<usize>) {
        let segments: Vec<Segment> = parts.iter().map(|(_, part)| *part).collect();
        if !indirect {
            return (Request::direct(operation, sector, &segments), None);
        }
        self.tally.indirect += 1;
        let list = self.page();
        self.pool.describe(list, &segments);
        let gref = self.pool.pages.grefs[list];
        let request = Request::indirect(operation, sector, segments.len() as u16, gref);
        (request, Some(list))
    }

    /// Takes answers until at most `left` requests are in flight.
    fn collect(&mut self, left: usize) -> Result<()> {
        loop {
            for queue in 0..self.link.queues.len() {
                while let Some(answer) = self.link.queues[queue].take()? {
                    self.settle(queue, answer)?;
                }
            }
            if self.in_flight.len() <= left {
                return Ok(());
            }
            self.link.wait()?;
        }
    }

    fn settle(&mut self, queue: usize, answer: Answer) -> Result<()> {
        let asked = self
            .in_flight
            .remove(&answer.id)
            .with_context(|| format!("an answer to no request: {answer:?}"))?;
        self.judge(queue, answer, &asked)
            .with_context(|| format!("{:?}", asked.request))?;
        self.count(&asked);
        self.arena.release(asked.sector, asked.sectors);
        self.free.extend(asked.parts.iter().map(|(page, _)| page));
        self.free.extend(asked.list);
        Ok(())
    }

    fn judge(&mut self, queue: usize, answer: Answer, asked: &Asked) -> Result<()> {
        ensure!(
            queue == asked.queue && asked.statuses.contains(&answer.status),
            "expected {:?} in queue {}, saw {} in queue {queue}",
            asked.statuses,
            asked.queue,
            answer.status
        );
        ensure!(
            asked.request.is_echoed_as(answer.operation, answer.status),
            "answered as operation {}",
            answer.operation
        );
        match asked.effect {
            Effect::Nothing => {
                for (page, _) in &asked.parts {
                    ensure!(
                        self.pool.is_all_marked(*page),
                        "a refused request changed its page"
                    );
                }
            }
            Effect::Reads => self.judge_read(asked)?,
            Effect::Writes(generation) => {
                self.arena
                    .set(asked.request.sector, asked.sectors, Some(generation));
            }
            Effect::Discards => self.arena.set(asked.request.sector, asked.sectors, None),
        }
        Ok(())
    }

    fn judge_read(&self, asked: &Asked) -> Result<()> {
        for (page, slot, now) in sectors_of(&asked.parts, asked.request.sector) {
            if let Some(generation) = self.arena.generation(now) {
                self.pool.check(page, slot, now, generation)?;
            }
        }
        for (page, part) in &asked.parts {
            let outside = (0..PAGE_SECTORS).filter(|s| *s < part.first || *s > part.last);
            for slot in outside {
                ensure!(
                    self.pool.is_marked(*page, slot),
                    "a read changed its page outside of its segment"
                );
            }
        }
        Ok(())
    }

    fn count(&mut self, asked: &Asked) {
        let counter = match (&asked.request.body, asked.request.operation) {
            _ if !asked.statuses.contains(&OKAY) => &mut self.tally.refused,
            (Body::Discard { .. }, _) => &mut self.tally.discards,
            (_, FLUSH) => &mut self.tally.flushes,
            (_, BARRIER) => &mut self.tally.barriers,
            _ if matches!(asked.effect, Effect::Writes(_)) => &mut self.tally.writes,
            _ => &mut self.tally.reads,
        };
        *counter += 1;
    }
}

/// Page, place in it and sector of each sector that the parts transfer.
fn sectors_of(parts: &[(usize, Segment)], sector: u64) -> impl Iterator<Item = (usize, u8, u64)> {
    parts
        .iter()
        .flat_map(|(page, part)| (part.first..=part.last).map(move |slot| (*page, slot)))
        .zip(sector..)
        .map(|((page, slot), now)| (page, slot, now))
}
