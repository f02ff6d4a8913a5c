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
use crate::datapath::job::Room;
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
use crate::sys::bio::Plug;

impl Engine {
    /// Takes requests off the ring until something stops it.
    pub(super) fn intake(&mut self, worker: &Arc<Worker>, budget: &mut u32) -> Pause {
        let pause = self.take_all(worker, budget);
        self.submit_staged();
        pause
    }

    fn take_all(&mut self, worker: &Arc<Worker>, budget: &mut u32) -> Pause {
        loop {
            if self.barrier.is_some() || worker.vbd.turnstile().is_closed() {
                self.leave(worker);
                return Pause::Barrier;
            }
            let unread = match self.look() {
                Ok(0) => {
                    self.credit = 0;
                    self.leave(worker);
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
                self.submit_staged();
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
            self.leave(worker);
            return Some(pause);
        }
        None
    }

    /// Passes for some of `wanted` requests, or `None` to wait for them.
    fn ask(&mut self, worker: &Worker, wanted: u32) -> Option<Passes> {
        let gate = worker.vbd.gate();
        self.asked = true;
        let on_credit = wanted.min(self.credit);
        if on_credit == 0 || worker.is_stopping() {
            return gate.admit(worker.number, wanted);
        }
        self.credit = self.credit.saturating_sub(on_credit);
        Some(gate.admit_on_credit(worker.number, on_credit))
    }

    /// Tells the gate, if it does not know yet, that there is nothing to ask for.
    pub(super) fn leave(&mut self, worker: &Worker) {
        if core::mem::take(&mut self.asked) {
            worker.vbd.gate().leave(worker.number);
        }
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
        let mut slot = Slot::EMPTY;
        self.ring.peek(&mut slot);
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
                match discard.check(&self.view) {
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
        room: Room,
    ) {
        let (view, count, abi) = (&self.view, transfer.count(), self.ring.abi());
        let checked = match transfer.frame() {
            None => room.check(|room| transfer.check(view, slot.segments(abi, count), room)),
            Some(frame) => match self.mapper.segments(&transfer, frame, self.now) {
                Ok(bytes) => {
                    room.check(|room| transfer.check(view, Segment::list(bytes, count), room))
                }
                Err(_) => Err((Refusal::Segment, room)),
            },
        };
        match checked {
            Ok(filled) => {
                worker.vbd.stats().count(filled.request());
                worker.vbd.gate().price(&pass, filled.request().bytes());
                let job = Job::new(filled, pass, answer);
                if job.operation() == Operation::Barrier {
                    self.barrier = Some(job);
                } else {
                    self.stage(job);
                }
            }
            Err((refusal, room)) => {
                self.pool.put(room);
                self.refuse(answer, refusal);
            }
        }
    }

    pub(super) fn stage(&mut self, job: Job) {
        if self.mapper.must_map_first(job.frame_count()) {
            self.submit_staged();
        }
        self.mapper.stage(job, self.merges_late, self.now);
    }

    /// Maps what is staged and sends it to the disk. Sleeps.
    pub(super) fn submit_staged(&mut self) {
        if self.mapper.is_idle() {
            return;
        }
        self.mapper.map_staged(self.now);
        let staged = self.mapper.staged();
        let count = staged.len();
        {
            pin_init::stack_pin_init!(let plug = Plug::new());
            plug.each(staged.drain_all(), count, Job::submit);
        }
        self.look_at_disk();
    }
}
