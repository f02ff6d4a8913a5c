// SPDX-License-Identifier: GPL-2.0

//! From the device to the ring: releasing what came back, responding, and who does that.
//!
//! Context: as [`super`].

use kernel::sync::Arc;

use super::Engine;
use super::Pause;
use crate::datapath::pending_request::PendingRequest;
use crate::datapath::ring_control::RingControl;
use crate::logic::protocol::abi::Status;
use crate::logic::protocol::request::Operation;

/// Requests in flight up to which ends of I/O respond to their own. Of more, many may be completed in one
/// interrupt, and the thread takes the lock once for all of those.
const FEW: u32 = 8;

impl Engine {
    /// Reports when a ring that was stopped has nothing in flight any more.
    #[cold]
    pub(super) fn drain(&mut self, control: &Arc<RingControl>) {
        if !self.orders.stopping {
            return;
        }
        self.respond_by_thread(control);
        if self.ring.in_flight(control.completions.responses()) != 0 {
            return;
        }
        if !control.completions.is_all_released() {
            control.wake();
            return;
        }
        if self.mapper.forget() {
            control.report_drained();
        } else {
            self.again = true;
        }
    }

    /// Shows the frontend all responses so far, and sends it an event if it wants one.
    pub(super) fn push_responses(&mut self, control: &RingControl) {
        if core::mem::take(&mut self.unpushed) {
            control.completions.responses().push();
        }
    }

    /// From now on every finished request wakes the thread. Those that ends of I/O have responded to are
    /// counted as such, and are still to be released.
    pub(super) fn respond_by_thread(&mut self, control: &RingControl) {
        if core::mem::take(&mut self.direct) {
            control.completions.responses().set_direct(false);
        }
    }

    /// Ends of I/O write responses while the thread sleeps, unless it waits for what they bring, or many
    /// requests are in flight.
    pub(super) fn choose_who_responds(&mut self, control: &RingControl, pause: &Pause) {
        let waits = matches!(pause, Pause::NoMemory | Pause::Barrier | Pause::Broken(_))
            || self.mapper.has_postponed();
        if waits || self.barrier_is_active {
            self.respond_by_thread(control);
            if !control.completions.is_all_released() {
                control.wake();
            }
        } else if self.ring.in_flight(control.completions.responses()) > FEW {
            self.respond_by_thread(control);
        } else if !core::mem::replace(&mut self.direct, true) {
            control.completions.responses().set_direct(true);
        }
    }

    /// Releases the frames of requests that came back, then writes the responses.
    pub(super) fn collect(&mut self, control: &Arc<RingControl>) {
        self.sort_out(control);
        // After that, for no end of I/O responds by itself any more.
        let released = self.release_responded(control);
        if self.ready.is_empty() {
            if released {
                self.shrink_grown();
            }
            return;
        }
        // No request has its response before it is unmapped.
        if core::mem::take(&mut self.unreleased) {
            self.mapper.release(&mut self.ready);
        }
        let responses = control.completions.responses();
        responses.respond(&self.ready, PendingRequest::response, true);
        for request in self.ready.drain_all() {
            note_response(control, &request);
            self.pool.put(request.recycle());
        }
        self.shrink_grown();
    }

    /// Gives back pages that are more than are kept, if there are more than before.
    fn shrink_grown(&mut self) {
        if self.mapper.take_grown() {
            self.mapper.shrink(self.pages_kept());
        }
    }

    /// Releases the frames of requests that ends of I/O have responded to. Returns whether there was one.
    pub(super) fn release_responded(&mut self, control: &RingControl) -> bool {
        if control.completions.is_all_released() {
            return false;
        }
        for request in control
            .completions
            .take_responded()
            .map(PendingRequest::finished)
        {
            let request = self.mapper.release_without_call(request);
            self.pool.put(request.recycle());
        }
        true
    }

    /// Sorts the requests that came back: those that can be released, and those that linger because
    /// this kernel still uses a page.
    pub(super) fn sort_out(&mut self, control: &RingControl) {
        if !self.lingering.is_empty() {
            self.sort_lingering();
        }
        for request in control
            .completions
            .take_requests()
            .map(PendingRequest::finished)
        {
            self.sort(request);
        }
        self.again |= !self.lingering.is_empty();
    }

    #[cold]
    fn sort_lingering(&mut self) {
        for _ in 0..self.lingering.len() {
            if let Some(request) = self.lingering.pop_front() {
                self.sort(request);
            }
        }
    }

    fn sort(&mut self, mut request: PendingRequest) {
        if !request.needs_thread() {
            request = self.mapper.release_without_call(request);
        } else if request.is_page_used() {
            return self.lingering.push_back(request);
        } else {
            self.unreleased = true;
        }
        // The vector has capacity for as many requests as the ring has slots.
        let _ = self.ready.push_within_capacity(request);
    }
}

/// What else has to happen with the response to a request.
fn note_response(control: &Arc<RingControl>, request: &PendingRequest) {
    let response = request.response();
    // The device does not know an operation that was offered: the disk stops offering it.
    if response.status == Status::Unsupported {
        control.events().clone().unsupported(response.operation);
    }
    if request.operation() == Operation::Barrier {
        control.disk.write_barrier.end(control.number);
        control.disk.gate.wake_all();
    }
}
