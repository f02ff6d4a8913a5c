// SPDX-License-Identifier: GPL-2.0

//! One ring with its event channel, seen from the frontend.
//!
//! Every answer is compared with the slot as it was written: a backend may change `id`,
//! `operation` and `status` in it, and may clear padding, but nothing else.

use anyhow::Result;
use anyhow::bail;
use anyhow::ensure;

use crate::events::Port;
use crate::grants::Pages;
use crate::layout;
use crate::layout::Layout;
use crate::layout::SLOT_MAX;
use crate::request::FILLER;
use crate::request::Request;
use crate::request::Slot;
use crate::sys::barrier;

/// An answer as the ring has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    pub id: u64,
    pub operation: u8,
    pub status: i16,
}

pub struct Queue {
    pub ring: Pages,
    pub port: Port,
    pub layout: &'static Layout,
    pub entries: u32,
    /// Requests written so far, published or not.
    pub req_prod: u32,
    /// Answers taken so far.
    pub rsp_cons: u32,
    /// What we wrote into each slot.
    images: Vec<Slot>,
}

impl Queue {
    /// A fresh ring whose indices begin at `start`.
    pub fn new(ring: Pages, port: Port, layout: &'static Layout, order: u32, start: u32) -> Self {
        let entries = layout.entries(order);
        let queue = Queue {
            ring,
            port,
            layout,
            entries,
            req_prod: start,
            rsp_cons: start,
            images: vec![[FILLER; SLOT_MAX]; entries as usize],
        };
        queue.set(layout::REQ_PROD, start);
        queue.set(layout::RSP_PROD, start);
        queue.set(layout::REQ_EVENT, start.wrapping_add(1));
        queue.set(layout::RSP_EVENT, start.wrapping_add(1));
        queue
    }

    /// One of the four indices.
    pub fn get(&self, index: usize) -> u32 {
        self.ring.memory().read(index)
    }

    pub fn set(&self, index: usize, value: u32) {
        self.ring.memory().write(index, value);
    }

    pub fn in_flight(&self) -> u32 {
        self.req_prod.wrapping_sub(self.rsp_cons)
    }

    pub fn free(&self) -> u32 {
        self.entries - self.in_flight()
    }

    /// Where the next request goes, as an offset into the ring's memory.
    pub fn next_slot(&self) -> usize {
        self.layout.place(self.req_prod, self.entries)
    }

    /// Writes a request into the next slot; there must be one.
    pub fn put(&mut self, request: &Request) {
        let slot = request.encode(self.layout);
        self.ring
            .memory()
            .store(self.next_slot(), &slot[..self.layout.slot]);
        self.images[(self.req_prod % self.entries) as usize] = slot;
        self.req_prod = self.req_prod.wrapping_add(1);
    }

    /// Shows what was put; sends an event if the backend asked for one.
    pub fn publish(&self) -> Result<()> {
        let old = self.get(layout::REQ_PROD);
        barrier();
        self.set(layout::REQ_PROD, self.req_prod);
        barrier();
        let event = self.get(layout::REQ_EVENT);
        let asked = self.req_prod.wrapping_sub(event) < self.req_prod.wrapping_sub(old);
        if asked { self.port.notify() } else { Ok(()) }
    }

    /// Whether there is an answer. If there is none, asks for an event at the `which` next one.
    pub fn is_answered(&self, which: u32) -> Result<bool> {
        if self.pending()? == 0 {
            self.set(layout::RSP_EVENT, self.rsp_cons.wrapping_add(which));
            barrier();
            if self.pending()? == 0 {
                return Ok(false);
            }
        }
        barrier();
        Ok(true)
    }

    /// The next answer, if there is one. Asks for an event at the next one if there is none.
    pub fn take(&mut self) -> Result<Option<Answer>> {
        if !self.is_answered(1)? {
            return Ok(None);
        }
        let answer = self.read_answer()?;
        self.rsp_cons = self.rsp_cons.wrapping_add(1);
        Ok(Some(answer))
    }

    /// Answers that are on the ring.
    pub fn pending(&self) -> Result<u32> {
        let pending = self.get(layout::RSP_PROD).wrapping_sub(self.rsp_cons);
        ensure!(
            pending <= self.in_flight(),
            "{pending} answers for {} requests in flight",
            self.in_flight()
        );
        Ok(pending)
    }

    /// The next answer, which is there, in a slot that somebody may have rewritten after us.
    pub fn take_raced(&mut self) -> Result<Answer> {
        ensure!(self.pending()? > 0, "no answer");
        barrier();
        let place = self.layout.place(self.rsp_cons, self.entries);
        let mut slot = [0; SLOT_MAX];
        self.ring
            .memory()
            .load(place, &mut slot[..self.layout.slot]);
        self.rsp_cons = self.rsp_cons.wrapping_add(1);
        answer(&slot)
    }

    fn read_answer(&self) -> Result<Answer> {
        let mut slot = [0; SLOT_MAX];
        let (place, size) = (
            self.layout.place(self.rsp_cons, self.entries),
            self.layout.slot,
        );
        self.ring.memory().load(place, &mut slot[..size]);
        let image = &self.images[(self.rsp_cons % self.entries) as usize];
        for (at, (byte, written)) in slot.iter().zip(image).take(size).enumerate() {
            let answer = at < layout::RSP_OPERATION + 1
                || (layout::RSP_STATUS..layout::RSP_STATUS + 2).contains(&at);
            let cleared = at < self.layout.response && *byte == 0;
            if !answer && !cleared && byte != written {
                bail!("byte {at} of a response's slot was {written:#x} and became {byte:#x}");
            }
        }
        answer(&slot)
    }

    /// The slots whose bytes are not what we wrote; for a ring that nobody should touch.
    pub fn changed_slots(&self) -> u32 {
        let changed = |index: &u32| {
            let mut slot = [0; SLOT_MAX];
            let place = self.layout.place(*index, self.entries);
            let size = self.layout.slot;
            self.ring.memory().load(place, &mut slot[..size]);
            slot[..size] != self.images[*index as usize][..size]
        };
        (0..self.entries).filter(changed).count() as u32
    }

    /// Writes `request` into every slot, without publishing anything.
    pub fn put_everywhere(&mut self, request: &Request) {
        let begin = self.req_prod;
        for _ in 0..self.entries {
            self.put(request);
        }
        self.req_prod = begin;
    }
}

fn answer(slot: &Slot) -> Result<Answer> {
    let id = &slot[layout::RSP_ID..][..8];
    let status = &slot[layout::RSP_STATUS..][..2];
    Ok(Answer {
        id: u64::from_le_bytes(id.try_into()?),
        operation: slot[layout::RSP_OPERATION],
        status: i16::from_le_bytes(status.try_into()?),
    })
}
