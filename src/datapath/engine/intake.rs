// SPDX-License-Identifier: GPL-2.0

//! From the ring to the disk: asks the gate, looks at requests, makes jobs of them.

use kernel::{
    prelude::*,
    sync::Arc, //
};

use super::Engine;
use super::Pause;
use crate::datapath::eraser::Errand;
use crate::datapath::gate::Pass;
use crate::datapath::gate::Passes;
use crate::datapath::job::Job;
use crate::datapath::pool::Room;
use crate::datapath::ring::Answer;
use crate::datapath::worker::Worker;
use crate::logic::abi::Segment;
use crate::logic::abi::Slot;
use crate::logic::abi::Status;
use crate::logic::index::Overrun;
use crate::logic::request::answered_operation;
use crate::logic::request::parse;
use crate::logic::request::Operation;
use crate::logic::request::Parsed;
use crate::logic::request::Refusal;
use crate::logic::request::Transfer;
use crate::sys::bio;
use crate::sys::bio::Plug;

impl Engine {
    /// Takes requests off the ring until something stops it.
    pub(super) fn intake(&mut self, worker: &Arc<Worker>, budget: &mut u32) -> Pause {
        pin_init::stack_pin_init!(let _plug = Plug::new());
        let pause = self.take_all(worker, budget);
        self.submit_staged(worker);
        pause
    }

    fn take_all(&mut self, worker: &Arc<Worker>, budget: &mut u32) -> Pause {
        loop {
            if self.barrier.is_some() || worker.vbd.turnstile().is_closed() {
                worker.vbd.gate().leave(worker.number);
                return Pause::Barrier;
            }
            let unread = match self.look() {
                Ok(0) => {
                    self.credit = 0;
                    worker.vbd.gate().leave(worker.number);
                    return Pause::Idle;
                }
                Ok(unread) => unread,
                Err(overrun) => return Pause::Broken(overrun),
            };
            let wanted = unread.min(*budget);
            if wanted == 0 {
                return Pause::Budget;
            }
            if worker.take_hurry() {
                self.credit = unread;
            }
            if worker.vbd.gate().is_gated() {
                // The device may keep us as long as it likes: not while a token, which others
                // could use, waits for us.
                self.submit_staged(worker);
            }
            let Some(passes) = self.ask(worker, wanted) else {
                return Pause::Throttled;
            };
            *budget = budget.saturating_sub(wanted);
            if let Some(pause) = self.use_up(worker, passes) {
                return pause;
            }
        }
    }

    /// Takes a request for each pass. Gives the rest of them back if it cannot.
    fn use_up(&mut self, worker: &Arc<Worker>, mut passes: Passes) -> Option<Pause> {
        while let Some(pass) = passes.next() {
            let refused = self.take_one(worker, pass);
            let pause = match refused {
                Ok(()) if self.barrier.is_some() => Pause::Barrier,
                Ok(()) => continue,
                Err(pass) => {
                    passes.put_back(pass);
                    worker.vbd.stats().count_out_of_room();
                    Pause::NoRoom
                }
            };
            self.credit = self.credit.saturating_add(passes.on_credit());
            worker.vbd.gate().give_back(passes);
            worker.vbd.gate().leave(worker.number);
            return Some(pause);
        }
        None
    }

    /// Passes for some of `wanted` requests, or `None` to wait for them.
    fn ask(&mut self, worker: &Worker, wanted: u32) -> Option<Passes> {
        let gate = worker.vbd.gate();
        let on_credit = wanted.min(self.credit);
        if on_credit == 0 || worker.is_stopping() {
            return gate.admit(worker.number, wanted);
        }
        self.credit = self.credit.saturating_sub(on_credit);
        Some(gate.admit_on_credit(worker.number, on_credit))
    }

    /// How many requests are on the ring. If none, the guest sends an event for the
    /// next one.
    fn look(&self) -> Result<u32, Overrun> {
        match self.ring.unread()? {
            0 => self.ring.final_check(),
            unread => Ok(unread),
        }
    }

    /// Takes one request off the ring and sends it on its way. May sleep.
    ///
    /// # Errors
    ///
    /// Gives the pass back if there is no room for the request, which then stays on the
    /// ring.
    fn take_one(&mut self, worker: &Arc<Worker>, pass: Pass) -> Result<(), Pass> {
        let slot = self.ring.peek();
        let answer = Answer {
            id: slot.id(self.ring.abi()),
            operation: answered_operation(&slot),
            status: Status::Error,
        };
        match parse(&slot, self.ring.abi()) {
            Ok(Parsed::Transfer(transfer)) => {
                let segments = usize::from(transfer.count());
                let fits = self.mapper.has_room_for(transfer.count());
                let Some(room) = fits.then(|| self.pool.take(segments)).flatten() else {
                    return Err(pass);
                };
                self.consume();
                self.dispatch(worker, pass, answer, &slot, transfer, room);
            }
            Ok(Parsed::Discard(discard)) => {
                self.consume();
                match discard.check(&self.disk.view()) {
                    Ok(erasure) => {
                        worker.vbd.stats().count_discard();
                        worker.erase(Errand {
                            disk: self.disk.clone(),
                            erasure,
                            answer,
                            _pass: pass,
                        });
                    }
                    Err(refusal) => self.refuse(answer, refusal),
                }
            }
            Err(refusal) => {
                self.consume();
                self.refuse(answer, refusal);
            }
        }
        Ok(())
    }

    fn consume(&mut self) {
        self.ring.consume();
        self.worked = true;
    }

    fn refuse(&mut self, mut answer: Answer, refusal: Refusal) {
        answer.status = refusal.status();
        self.ring.answer(answer);
    }

    /// Checks a transfer and makes a job of it.
    fn dispatch(
        &mut self,
        worker: &Arc<Worker>,
        pass: Pass,
        answer: Answer,
        slot: &Slot,
        transfer: Transfer,
        mut room: Room,
    ) {
        let extents = core::mem::take(&mut room.extents);
        let disk = self.disk.view();
        let count = transfer.count();
        let checked = match transfer.frame() {
            None => transfer.check(&disk, slot.segments(self.ring.abi(), count), extents),
            Some(frame) => match self.mapper.segments(&transfer, frame) {
                Ok(bytes) => transfer.check(&disk, Segment::list(bytes, count), extents),
                Err(_) => Err((Refusal::Segment, extents)),
            },
        };
        match checked {
            Ok(request) => {
                worker.vbd.stats().count(&request);
                worker.vbd.gate().price(&pass, request.bytes());
                let disk = self.disk.clone();
                let job = Job::new(room, pass, worker.clone(), disk, answer, request);
                if job.operation() == Operation::Barrier {
                    self.barrier = Some(job);
                } else {
                    self.stage(worker, job);
                }
            }
            Err((refusal, extents)) => {
                room.extents = extents;
                self.pool.put(room);
                self.refuse(answer, refusal);
            }
        }
    }

    pub(super) fn stage(&mut self, worker: &Arc<Worker>, job: KBox<Job>) {
        if self.mapper.must_map_first(job.frame_count()) {
            self.submit_staged(worker);
        }
        self.mapper.stage(job, self.now);
    }

    /// Maps what is staged and sends it to the disk.
    pub(super) fn submit_staged(&mut self, worker: &Arc<Worker>) {
        self.mapper.map_staged(self.now, |job| {
            // Whatever does not get to the disk goes the same way back as what does, so
            // that what was mapped of it is unmapped first.
            let left = if job.is_mapped() {
                bio::submit(job).err()
            } else {
                Some(job)
            };
            if let Some(job) = left {
                worker.finished(job);
            }
        });
    }
}
