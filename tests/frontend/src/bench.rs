// SPDX-License-Identifier: GPL-2.0

//! What a case works with: a disk, the connection to it if there is one, and what it holds.

use std::time::Duration;

use anyhow::Context;
use anyhow::Result;
use anyhow::ensure;

use crate::arena::Arena;
use crate::disk::Disk;
use crate::disk::Offer;
use crate::disk::Refusal;
use crate::disk::Setup;
use crate::disk::Traits;
use crate::events::Events;
use crate::grants::Grants;
use crate::layout;
use crate::link::Link;
use crate::link::keys_of;
use crate::link::queues;
use crate::pool::PAGE_SECTORS;
use crate::pool::Pool;
use crate::queue::Queue;
use crate::request::OKAY;
use crate::request::READ;
use crate::request::Request;
use crate::request::WRITE;

/// Time in which a backend that has seen nonsense says so.
const SOON: Duration = Duration::from_secs(5);

/// Keys to add or change, and keys to leave out.
pub type Change<'a> = (&'a [(&'a str, &'a str)], &'a [&'a str]);

pub struct Bench {
    pub disk: Disk,
    pub grants: Grants,
    pub events: Events,
    pub pool: Pool,
    pub setup: Setup,
    pub offer: Offer,
    /// How often the cases that repeat themselves do so.
    pub loops: u64,
    /// Grants of frames that are not this guest's.
    pub foreign: Vec<u32>,
    pub arena: Option<Arena>,
    link: Option<Link>,
}

impl Bench {
    pub fn new(disk: Disk, setup: Setup, pages: usize, loops: u64) -> Result<Self> {
        let grants = Grants::open()?;
        disk.reset()?;
        Ok(Bench {
            offer: disk.offer()?,
            pool: Pool {
                pages: grants.pages(pages)?,
            },
            events: Events::open()?,
            grants,
            disk,
            setup,
            loops,
            foreign: Vec::new(),
            arena: None,
            link: None,
        })
    }

    /// The connection, made if there is none.
    pub fn link(&mut self) -> Result<&mut Link> {
        if self.link.is_none() {
            let mut link = Link::connect(&self.disk, &self.grants, &self.events, &self.setup)?;
            if self.arena.is_none() && !link.traits.read_only {
                self.arena = Some(Arena::new(&mut link, &self.pool)?);
            }
            self.link = Some(link);
        }
        self.link.as_mut().context("just made")
    }

    /// A connection with queues that the case made itself; an earlier one is closed.
    pub fn link_with(&mut self, setup: &Setup, queues: Vec<Queue>) -> Result<&mut Link> {
        self.close()?;
        let link = Link::connect_with(&self.disk, &self.events, setup, queues)?;
        Ok(self.link.insert(link))
    }

    /// Queues for `setup` that nobody knows of yet.
    pub fn queues(&self, setup: &Setup) -> Result<Vec<Queue>> {
        queues(&self.grants, &self.events, setup)
    }

    pub fn traits(&mut self) -> Result<Traits> {
        Ok(self.link()?.traits)
    }

    /// Ends the connection, if there is one, and gets ready for the next.
    pub fn close(&mut self) -> Result<()> {
        match self.link.take() {
            Some(_link) => self.disk.reopen(),
            None => Ok(()),
        }
    }

    /// After something went wrong: from whatever state to the next connection.
    pub fn recover(&mut self) -> Result<()> {
        self.link = None;
        self.disk.reopen()
    }

    /// The disk was closed already: ready for the next connection.
    pub fn forget_link(&mut self) -> Result<()> {
        self.link = None;
        self.disk.restart()
    }

    /// The connection and the pages, for use beside each other.
    pub fn parts(&mut self) -> Result<(&mut Link, &Pool)> {
        self.link()?;
        let link = self.link.as_mut().context("no connection")?;
        Ok((link, &self.pool))
    }

    pub fn ask(&mut self, queue: usize, request: Request) -> Result<i16> {
        self.link()?.ask(queue, request)
    }

    /// Asks through queue 0; each has to be answered with `status`.
    pub fn all_get(&mut self, status: i16, requests: Vec<(String, Request)>) -> Result<()> {
        let (names, requests): (Vec<String>, Vec<Request>) = requests.into_iter().unzip();
        let statuses = self.link()?.ask_all(0, requests)?;
        for (name, seen) in names.iter().zip(statuses) {
            ensure!(seen == status, "{name}: expected {status}, saw {seen}");
        }
        Ok(())
    }

    /// Every queue still writes and reads back what was written.
    pub fn works(&mut self) -> Result<()> {
        let count = self.link()?.queues.len();
        if self.traits()?.read_only {
            for queue in 0..count {
                let request = Request::direct(READ, 0, &[self.pool.whole(0)]);
                let status = self.ask(queue, request)?;
                ensure!(status == OKAY, "queue {queue} answers a read with {status}");
            }
            return Ok(());
        }
        for queue in 0..count {
            self.write_page(queue, 8 * queue as u64)?;
        }
        for queue in 0..count {
            self.verify_page(queue, 8 * ((queue + 1) % count) as u64)?;
        }
        Ok(())
    }

    /// Writes the page at `sector` of the arena, with something new.
    pub fn write_page(&mut self, queue: usize, sector: u64) -> Result<()> {
        self.link()?;
        let arena = self.arena.as_mut().context("no arena")?;
        let generation = arena.next_generation();
        for slot in 0..PAGE_SECTORS {
            self.pool
                .fill(0, slot, sector + u64::from(slot), generation);
        }
        arena.set(sector, u64::from(PAGE_SECTORS), Some(generation));
        let status = self.ask(queue, Request::direct(WRITE, sector, &[self.pool.whole(0)]))?;
        ensure!(status == OKAY, "a write through queue {queue}: {status}");
        Ok(())
    }

    pub fn verify_page(&mut self, queue: usize, sector: u64) -> Result<()> {
        self.verify(queue, sector, u64::from(PAGE_SECTORS))
    }

    pub fn verify(&mut self, queue: usize, sector: u64, sectors: u64) -> Result<()> {
        self.link()?;
        let (Some(arena), Some(link)) = (&self.arena, &mut self.link) else {
            return Ok(());
        };
        arena
            .verify(link, &self.pool, queue, sector, sectors)
            .with_context(|| format!("through queue {queue}"))
    }

    /// A backend that sees what `poke` does to an idle ring halts the disk: an error for the
    /// administrator, no answer and no byte of the ring changed, until the guest reconnects.
    pub fn halts(&mut self, poke: impl Fn(&Queue)) -> Result<()> {
        let request = Request::direct(READ, 0, &[self.pool.whole(1)]);
        let link = self.link()?;
        // So that the indices differ from each other's beginnings.
        link.ask_all(0, vec![request.clone(); 3])?;
        self.pool.mark(1);
        self.disk.forget_error();
        let queue = &mut self.link()?.queues[0];
        queue.put_everywhere(&request);
        let answered = queue.get(layout::RSP_PROD);
        poke(queue);
        queue.port.notify()?;
        let error = self.disk.wait_error(SOON)?;
        self.link()?.queues[0].port.notify()?;
        self.disk.close()?;
        let queue = &self.link()?.queues[0];
        ensure!(
            queue.get(layout::RSP_PROD) == answered && queue.changed_slots() == 0,
            "requests that are not there were answered"
        );
        ensure!(
            self.pool.is_all_marked(1),
            "a request that is not there changed a page"
        );
        self.forget_link()?;
        self.works().context("after the guest reconnected")?;
        ensure!(error.is_some(), "halted, but there is no error node");
        Ok(())
    }

    /// Connects as the setup says, with some keys changed or left out: must be refused with an
    /// error that names `key`.
    pub fn refused(&mut self, setup: &Setup, change: Change<'_>, key: &str) -> Result<()> {
        let queues = self.queues(setup)?;
        self.refused_with(setup, &queues, change, key)
    }

    pub fn refused_with(
        &mut self,
        setup: &Setup,
        queues: &[Queue],
        change: Change<'_>,
        key: &str,
    ) -> Result<()> {
        let Err(Refusal { error, .. }) = self.attempt(setup, queues, change)? else {
            anyhow::bail!("the backend connected");
        };
        let error = error.context("refused, but there is no error node")?;
        ensure!(
            error.contains(key),
            "the error node does not name {key}: {error:?}"
        );
        Ok(())
    }

    /// The same, and the backend connects all the same.
    pub fn accepted_with(
        &mut self,
        setup: &Setup,
        queues: &[Queue],
        change: Change<'_>,
    ) -> Result<()> {
        match self.attempt(setup, queues, change)? {
            Ok(()) => Ok(()),
            Err(Refusal { error, .. }) => anyhow::bail!("refused: {error:?}"),
        }
    }

    fn attempt(
        &mut self,
        setup: &Setup,
        queues: &[Queue],
        (changed, left_out): Change<'_>,
    ) -> Result<Result<(), Refusal>> {
        self.close()?;
        let mut keys = keys_of(setup, queues);
        keys.retain(|(name, _)| {
            !left_out.contains(&name.as_str()) && !changed.iter().any(|(other, _)| other == name)
        });
        keys.extend(
            changed
                .iter()
                .map(|(name, value)| (name.to_string(), value.to_string())),
        );
        let outcome = self.disk.connect(&keys)?;
        self.disk.reopen()?;
        Ok(outcome)
    }
}
