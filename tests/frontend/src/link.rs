// SPDX-License-Identifier: GPL-2.0

//! A connected disk: its queues, and requests that are asked and answered.

use std::collections::HashMap;
use std::time::Instant;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use anyhow::ensure;

use crate::disk::Disk;
use crate::disk::LIMIT;
use crate::disk::Refusal;
use crate::disk::Setup;
use crate::disk::Traits;
use crate::disk::keys;
use crate::events::Events;
use crate::grants::DOM0;
use crate::grants::Grants;
use crate::queue::Answer;
use crate::queue::Queue;
use crate::request::Request;

pub struct Link {
    pub traits: Traits,
    pub queues: Vec<Queue>,
    events: Events,
    ids: u64,
}

/// Queues as `setup` wants them; the backend knows nothing of them yet.
pub fn queues(grants: &Grants, events: &Events, setup: &Setup) -> Result<Vec<Queue>> {
    let queue = |_| {
        let ring = grants.pages(1 << setup.order)?;
        let port = events.port(u32::from(DOM0))?;
        Ok(Queue::new(
            ring,
            port,
            setup.layout,
            setup.order,
            setup.start,
        ))
    };
    (0..setup.queues).map(queue).collect()
}

/// Their keys.
pub fn keys_of(setup: &Setup, queues: &[Queue]) -> Vec<(String, String)> {
    let ends: Vec<(Vec<u32>, u32)> = queues
        .iter()
        .map(|q| (q.ring.grefs.clone(), q.port.number))
        .collect();
    keys(setup, &ends)
}

impl Link {
    /// Connects; the backend has to be waiting for that.
    pub fn connect(disk: &Disk, grants: &Grants, events: &Events, setup: &Setup) -> Result<Self> {
        let queues = queues(grants, events, setup)?;
        Self::connect_with(disk, events, setup, queues)
    }

    /// Connects with queues that were made before.
    pub fn connect_with(
        disk: &Disk,
        events: &Events,
        setup: &Setup,
        queues: Vec<Queue>,
    ) -> Result<Self> {
        if let Err(Refusal { state, error }) = disk.connect(&keys_of(setup, &queues))? {
            bail!("refused to connect (state {state}): {error:?}");
        }
        Ok(Link {
            traits: disk.traits()?,
            queues,
            events: events.clone(),
            ids: 0,
        })
    }

    /// An id that no other request of this connection has.
    pub fn next_id(&mut self) -> u64 {
        self.ids += 1;
        self.ids.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    /// The next answer of queue `number`.
    pub fn answer(&mut self, number: usize) -> Result<Answer> {
        let end = Instant::now() + LIMIT;
        loop {
            if let Some(answer) = self.queues[number].take()? {
                return Ok(answer);
            }
            let left = end.saturating_duration_since(Instant::now());
            ensure!(
                self.events.wait(left)?,
                "no answer: {} requests are in flight in queue {number}",
                self.queues[number].in_flight()
            );
        }
    }

    /// Waits until something may have happened in any queue.
    pub fn wait(&self) -> Result<()> {
        ensure!(self.events.wait(LIMIT)?, "no event, and no answer");
        Ok(())
    }

    /// Waits for an event for a moment; there need not be one.
    pub fn glance(&self) -> Result<()> {
        self.events
            .wait(std::time::Duration::from_millis(10))
            .map(drop)
    }

    /// Asks one request and gives the status of its answer.
    pub fn ask(&mut self, queue: usize, request: Request) -> Result<i16> {
        Ok(self.ask_all(queue, vec![request])?[0])
    }

    /// Asks requests, as many at once as the ring holds, and gives the statuses in their order.
    /// Each has to be answered exactly once, with its own id and operation.
    pub fn ask_all(&mut self, number: usize, requests: Vec<Request>) -> Result<Vec<i16>> {
        ensure!(
            self.queues[number].in_flight() == 0,
            "the queue is not empty"
        );
        let mut statuses = vec![0; requests.len()];
        let mut expected: HashMap<u64, (usize, Request)> = HashMap::new();
        let mut rest = requests.into_iter().enumerate().peekable();
        while rest.peek().is_some() || !expected.is_empty() {
            while self.queues[number].free() > 0 {
                let Some((place, mut request)) = rest.next() else {
                    break;
                };
                request.id = self.next_id();
                self.queues[number].put(&request);
                expected.insert(request.id, (place, request));
            }
            self.queues[number].publish()?;
            let first = self.answer(number)?;
            let mut answer = Some(first);
            while let Some(now) = answer {
                let (place, request) = expected
                    .remove(&now.id)
                    .with_context(|| format!("an answer to no request: {now:?}"))?;
                ensure!(
                    request.is_echoed_as(now.operation, now.status),
                    "{request:?} was answered as operation {}",
                    now.operation
                );
                statuses[place] = now.status;
                answer = self.queues[number].take()?;
            }
        }
        let queue = &self.queues[number];
        ensure!(queue.pending()? == 0 && queue.in_flight() == 0);
        Ok(statuses)
    }
}
