// SPDX-License-Identifier: GPL-2.0

//! From the ring to the device: asking the gate, checking requests, submitting them.
//!
//! Context: as [`super`].

use kernel::{
    prelude::*,
    sync::Arc, //
};

use super::Engine;
use super::Pause;
use crate::datapath::pending_request::Admitted;
use crate::datapath::pending_request::Checked;
use crate::datapath::pending_request::Free;
use crate::datapath::pending_request::PendingRequest;
use crate::datapath::pending_request::RequestQueue;
use crate::datapath::ring::Response;
use crate::datapath::ring_control::RingControl;
use crate::datapath::run_check;
use crate::datapath::run_check::Moment;
use crate::datapath::run_check::RunCheck;
use crate::datapath::run_check::Verdict;
use crate::logic::protocol::abi::Segment;
use crate::logic::protocol::abi::Slot;
use crate::logic::protocol::abi::Status;
use crate::logic::protocol::discard::Discard;
use crate::logic::protocol::disk_view::Refusal;
use crate::logic::protocol::index::Overrun;
use crate::logic::protocol::request::parse;
use crate::logic::protocol::request::response_operation;
use crate::logic::protocol::request::Operation;
use crate::logic::protocol::request::Parsed;
use crate::logic::protocol::request::Transfer;
use crate::qos::permit::Permit;
use crate::qos::permit::PermitBatch;
use crate::sys::bio::Plug;

/// From so many staged requests on, the thread submits them before it consumes more. So the device has the
/// first of a deep ring while the thread looks at the rest, and much of what it answers finds the thread awake.
const STAGED_MAX: u32 = 32;

impl Engine {
    /// Consumes requests until something stops it, and submits them.
    pub(super) fn intake(&mut self, control: &Arc<RingControl>, budget: &mut u32) -> Pause {
        let pause = self.consume_all(control, budget);
        if !self.mapper.is_idle() {
            self.submit_staged(control);
        }
        pause
    }

    fn consume_all(&mut self, control: &Arc<RingControl>, budget: &mut u32) -> Pause {
        loop {
            self.barrier_is_active = control.disk.write_barrier.is_active();
            if self.barrier.is_some() || self.barrier_is_active {
                self.leave(control);
                return Pause::Barrier;
            }
            if self.mapper.has_postponed() {
                self.leave(control);
                return Pause::NoMemory;
            }
            let moment = Moment::now();
            let unread = match self.look(control) {
                Ok(0) => {
                    self.credit = 0;
                    self.leave(control);
                    self.note_empty(control, moment);
                    return Pause::Idle;
                }
                Ok(unread) => unread,
                Err(overrun) => return Pause::Broken(overrun),
            };
            let wanted = unread.min(*budget).min(STAGED_MAX);
            if wanted == 0 {
                return Pause::Budget;
            }
            // The device may keep this thread as long as it likes, but not while the thread has tokens that
            // other rings could use.
            let staged = self.mapper.staged().len();
            if staged >= STAGED_MAX as usize || staged > 0 && control.disk.gate.is_gated() {
                self.submit_staged(control);
            }
            if !self.may_consume(control) {
                self.leave(control);
                return Pause::Suspended;
            }
            if core::mem::take(&mut self.orders.admit_backlog) {
                self.credit = unread;
            }
            let Some(batch) = self.ask(control, wanted) else {
                return Pause::Throttled;
            };
            *budget = budget.saturating_sub(wanted);
            if let Some(pause) = self.use_permits(control, batch) {
                return pause;
            }
        }
    }

    /// Consumes a request for each permit. Gives back the permits that it cannot use.
    fn use_permits(&mut self, control: &Arc<RingControl>, mut batch: PermitBatch) -> Option<Pause> {
        while let Some(permit) = batch.next() {
            let refused = self.consume_one(control, permit);
            let pause = match refused {
                Ok(()) if self.barrier.is_some() => Pause::Barrier,
                Ok(()) => continue,
                Err(permit) => {
                    batch.put_back(permit);
                    control.disk.stats.count_out_of_memory();
                    Pause::NoMemory
                }
            };
            self.credit = self.credit.saturating_add(batch.on_credit());
            control.disk.gate.give_back(batch);
            self.leave(control);
            return Some(pause);
        }
        None
    }

    /// PermitBatch for some of `wanted` requests, or `None` to wait for them.
    fn ask(&mut self, control: &RingControl, wanted: u32) -> Option<PermitBatch> {
        let gate = &control.disk.gate;
        let on_credit = wanted.min(self.credit);
        if on_credit == 0 || self.orders.stopping {
            let batch = gate.admit(control.number, wanted);
            self.asked |= !batch.as_ref().is_some_and(PermitBatch::is_free);
            return batch;
        }
        self.asked = true;
        self.credit = self.credit.saturating_sub(on_credit);
        Some(gate.admit_on_credit(control.number, on_credit))
    }

    /// Tells the gate that there is nothing to ask for, unless it knows.
    #[inline(always)]
    pub(super) fn leave(&mut self, control: &RingControl) {
        if self.asked {
            self.leave_gate(control);
        }
    }

    #[inline(never)]
    fn leave_gate(&mut self, control: &RingControl) {
        self.asked = false;
        control.disk.gate.leave(control.number);
    }

    /// How many requests are on the ring. If there is none, the guest sends an event for the next
    /// one.
    fn look(&mut self, control: &RingControl) -> Result<u32, Overrun> {
        let responses = control.completions.responses();
        match self.ring.unconsumed_requests(responses)? {
            0 => self.ring.final_check(responses),
            unread => Ok(unread),
        }
    }

    /// Consumes one request and stages, queues or refuses it. May sleep.
    ///
    /// # Errors
    ///
    /// Gives the permit back if there is no memory for the request, which then stays on the ring.
    fn consume_one(&mut self, control: &Arc<RingControl>, permit: Permit) -> Result<(), Permit> {
        let mut slot = Slot::EMPTY;
        self.ring.peek(&mut slot);
        let response = Response {
            id: slot.id(self.ring.abi()),
            operation: response_operation(&slot),
            status: Status::Error,
        };
        self.update_view();
        match parse(&slot, self.ring.abi()) {
            Ok(Parsed::Transfer(transfer)) => {
                let segments = usize::from(transfer.count());
                let fits = self.mapper.can_take(transfer.count());
                let Some(memory) = fits.then(|| self.pool.take(segments)).flatten() else {
                    return Err(permit);
                };
                self.consume();
                self.dispatch(control, permit, response, &slot, transfer, memory);
            }
            Ok(Parsed::Discard(discard)) => {
                return self.consume_discard(control, permit, response, discard);
            }
            Err(refusal) => {
                self.consume();
                self.refuse(control, response, refusal);
            }
        }
        Ok(())
    }

    #[inline(never)]
    fn consume_discard(
        &mut self,
        control: &Arc<RingControl>,
        permit: Permit,
        response: Response,
        discard: Discard,
    ) -> Result<(), Permit> {
        let mut checked = discard.check(&self.view);
        if checked.is_err() && self.view_was_old() {
            checked = discard.check(&self.view);
        }
        match checked {
            Ok(range) => {
                let Some(memory) = self.pool.take_for_discard() else {
                    return Err(permit);
                };
                self.consume();
                control.disk.stats.count_discard();
                control.queue_discard(memory.discard(range, permit, response));
            }
            Err(refusal) => {
                self.consume();
                self.refuse(control, response, refusal);
            }
        }
        Ok(())
    }

    fn consume(&mut self) {
        self.ring.consume();
        self.worked = true;
    }

    #[cold]
    fn refuse(&mut self, control: &RingControl, mut response: Response, refusal: Refusal) {
        response.status = refusal.status();
        self.unpushed = true;
        let responses = control.completions.responses();
        responses.respond(&[response], |response| *response, false);
    }

    /// Checks a transfer and stages it.
    fn dispatch(
        &mut self,
        control: &Arc<RingControl>,
        permit: Permit,
        response: Response,
        slot: &Slot,
        transfer: Transfer,
        memory: PendingRequest<Free>,
    ) {
        let checked = match self.check(slot, &transfer, memory) {
            Err((_, memory)) if self.view_was_old() => self.check(slot, &transfer, memory),
            checked => checked,
        };
        match checked {
            Ok(checked) => {
                self.tally.count(checked.summary());
                control
                    .disk
                    .gate
                    .charge_size(&permit, checked.summary().bytes());
                let request = checked.admit(permit, response);
                if request.operation() == Operation::Barrier {
                    self.barrier = Some(request);
                } else {
                    self.stage(control, request);
                }
            }
            Err((refusal, memory)) => {
                self.pool.put(memory);
                self.refuse(control, response, refusal);
            }
        }
    }

    /// Checks a transfer by what is known of the device. Copies the segments of an indirect one each time,
    /// and what is submitted is what was copied and checked last.
    fn check(
        &mut self,
        slot: &Slot,
        transfer: &Transfer,
        memory: PendingRequest<Free>,
    ) -> Result<PendingRequest<Checked>, (Refusal, PendingRequest<Free>)> {
        let (view, count, abi) = (&self.view, transfer.count(), self.ring.abi());
        match transfer.frame() {
            None => memory.check(|memory| transfer.check(view, slot.segments(abi, count), memory)),
            Some(frame) => match self.mapper.segments(transfer, frame, self.now) {
                Ok(bytes) => {
                    memory.check(|memory| transfer.check(view, Segment::list(bytes, count), memory))
                }
                Err(_) => Err((Refusal::Segment, memory)),
            },
        }
    }

    pub(super) fn stage(&mut self, control: &RingControl, request: PendingRequest) {
        if self.mapper.must_map_first(request.frame_count()) {
            self.submit_staged(control);
        }
        self.mapper.stage(request, self.merges_late, self.now);
    }

    /// Goes on with requests that were consumed and had to wait: for their guest to run again, or for
    /// space to map their frames.
    pub(super) fn resume(&mut self, control: &RingControl) {
        if !self.held.is_empty() || self.mapper.has_postponed() {
            self.resume_waiting(control);
        }
    }

    #[cold]
    fn resume_waiting(&mut self, control: &RingControl) {
        if !self.may_go_on(control) {
            return;
        }
        for _ in 0..self.held.len() {
            if let Some(request) = self.held.pop_front() {
                submit(request, &mut self.held, &mut self.run_check, control);
            }
        }
        let mut left = self.mapper.postponed();
        while let Some(request) = self.mapper.take_postponed() {
            self.stage(control, request);
            self.submit_staged(control);
            // Once one has to wait again, the others have to as well.
            if self.mapper.postponed() >= left {
                return;
            }
            left = self.mapper.postponed();
        }
    }

    /// The ring was empty at `moment` or later. That says nothing of what was consumed before, so that is
    /// submitted first, by what was known when it was consumed.
    fn note_empty(&mut self, control: &RingControl, moment: Moment) {
        self.submit_staged(control);
        if self.held.is_empty() && !self.mapper.has_postponed() {
            self.run_check.saw_empty(moment);
        }
    }

    /// Has discards go on that were held while the guest was suspended. They may be of any age, so an empty
    /// ring says nothing of them.
    #[cold]
    pub(super) fn resume_discards(&mut self, control: &Arc<RingControl>) {
        if !self.orders.stopping && run_check::ask(&control.disk) == Verdict::Hold {
            self.again = true;
        } else {
            self.orders.holds_discards = false;
            control.resume_discards();
        }
    }

    /// May requests that wait go on, to the device or back?
    #[cold]
    pub(super) fn may_go_on(&mut self, control: &RingControl) -> bool {
        self.verdict(control) != Verdict::Hold
    }

    fn may_consume(&mut self, control: &RingControl) -> bool {
        self.verdict(control) == Verdict::Submit
    }

    /// What may be done with requests that the device does not have yet. If they are to be held, the
    /// thread looks again soon: nothing says that a suspended guest runs again.
    fn verdict(&mut self, control: &RingControl) -> Verdict {
        let verdict = control.verdict(self.run_check.verdict(&control.disk));
        self.again |= verdict == Verdict::Hold;
        verdict
    }

    /// Maps what is staged and submits it. Sleeps, for as long as the device's queue is full.
    pub(super) fn submit_staged(&mut self, control: &RingControl) {
        if self.mapper.is_idle() {
            return;
        }
        control.disk.stats.add(core::mem::take(&mut self.tally));
        self.mapper.map_staged(self.now);
        let (held, check) = (&mut self.held, &mut self.run_check);
        let staged = self.mapper.staged();
        let count = staged.len();
        let each = |request| submit(request, held, check, control);
        // A plug gathers bios, which a single one does not need. But where the block layer has a scheduler
        // or another queue below, it leaves a bio without a plug to a kworker.
        if count == 1 && !self.merges_late {
            staged.drain_all().for_each(each);
        } else {
            pin_init::stack_pin_init!(let plug = Plug::new());
            plug.each(staged.drain_all(), count, each);
        }
    }
}

/// Submits a request that is mapped, unless its guest was suspended while the device's queue was
/// full.
fn submit(
    request: PendingRequest,
    held: &mut RequestQueue<Admitted>,
    check: &mut RunCheck,
    control: &RingControl,
) {
    match control.verdict(check.verdict(&control.disk)) {
        Verdict::Submit => request.submit(),
        Verdict::GiveUp => request.give_up(),
        Verdict::Hold => held.push_back(request),
    }
}
