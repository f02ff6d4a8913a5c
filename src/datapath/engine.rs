// SPDX-License-Identifier: GPL-2.0

//! What the thread of a ring does when it runs: it collects what came back and responds
//! ([`completion`]), consumes new requests and sends them to the device ([`intake`]).
//!
//! Context: the thread of the ring, under the worker's `engine` lock; all of this may sleep.

use kernel::{
    prelude::*,
    sync::Arc, //
};

mod completion;
mod intake;

use super::backing_device::BackingDevice;
use super::completions::EventWaker;
use super::mapper::FrameLimits;
use super::mapper::Mapper;
use super::pending_request::Admitted;
use super::pending_request::PendingRequest;
use super::pending_request::RequestQueue;
use super::request_pool::RequestPool;
use super::ring::Ring;
use super::ring_control::Orders;
use super::ring_control::RingControl;
use super::run_check::RunCheck;
use super::stats::Tally;
use crate::logic::protocol::disk_view::DiskView;
use crate::logic::protocol::index::Overrun;
use crate::sys::kthread::Sleep;
use crate::sys::params;
use crate::sys::timer;
use crate::xenbus::evtchn::Channel;
use crate::xenbus::evtchn::Eoi;

/// Requests that one run consumes at most, in rings: other rings want the processor, too.
const RINGS_PER_RUN: u32 = 4;
/// Milliseconds for which the thread sleeps while this kernel uses a page that is to be unmapped.
const LINGER_MS: u32 = 10;
/// How long such pages are used before that is reported, in nanoseconds.
const LINGERING_REPORTED: u64 = 30_000_000_000;

/// What a ring is connected with.
pub(crate) struct RingSetup {
    /// The ring.
    pub(crate) ring: Ring,
    /// Its slots.
    pub(crate) entries: u32,
    /// The device.
    pub(crate) device: Arc<BackingDevice>,
    /// The frontend's event channel.
    pub(crate) port: u32,
    /// The frontend offers persistent grants, and so do we.
    pub(crate) persistent: bool,
    /// Frames that its requests may use at a time.
    pub(crate) limits: FrameLimits,
}

/// What the thread works with while the ring is connected.
pub(crate) struct Engine {
    // Dropped first, so that no event comes while the rest goes.
    channel: Arc<Channel<EventWaker>>,
    ring: Ring,
    entries: u32,
    device: Arc<BackingDevice>,
    /// What requests are checked against, renewed by [`Self::update_view`].
    view: DiskView,
    /// When that was, in jiffies.
    viewed: usize,
    /// [`BlockDevice::merges_late`](crate::sys::bdev::BlockDevice::merges_late), likewise.
    merges_late: bool,
    mapper: Mapper,
    pool: RequestPool,
    /// Responses were written that the frontend was not shown.
    unpushed: bool,
    /// Requests that can be responded to, once they are released; empty between runs.
    ready: KVec<PendingRequest>,
    /// Some of those are not released yet.
    unreleased: bool,
    /// Requests that the device has answered and of which this kernel still uses a page.
    lingering: RequestQueue<Admitted>,
    /// Requests that are mapped and wait for their guest to run again.
    held: RequestQueue<Admitted>,
    run_check: RunCheck,
    /// A write barrier that waits for all rings.
    barrier: Option<PendingRequest>,
    /// No ring of the disk may consume a request, as of the last look. When that changes, all are woken.
    barrier_is_active: bool,
    /// The thread has to look again soon, for nothing will wake it.
    again: bool,
    /// Since when requests linger.
    lingering_since: Option<u64>,
    /// That was reported.
    lingering_reported: bool,
    /// The EOI that is owed for the last event.
    owed: Option<Eoi>,
    /// A request was consumed since the last EOI.
    worked: bool,
    /// The gate was asked, of a disk with a limit, since it was told that there is nothing to ask for.
    asked: bool,
    /// Requests that were consumed since the disk's statistics had them.
    tally: Tally,
    /// Requests on the ring that need no token: the toolstack wants the disk back.
    credit: u32,
    /// Free pages are given back until this time; 0: no.
    squeezed_until: u64,
    /// When the run began, by the last tick: what it is for lasts for many.
    now: u64,
    /// That tick.
    jiffies: usize,
    /// What this thread was asked for.
    orders: Orders,
    /// As [`Mapper::kept`], when the disk was told.
    kept: i32,
    /// The frontend published impossible indices.
    broken: bool,
    /// Ends of I/O may write responses while the thread sleeps.
    direct: bool,
}

/// Why the engine stopped consuming requests.
enum Pause {
    /// The ring is empty.
    Idle,
    /// One run consumes no more.
    Budget,
    /// The gate said so; it will wake the thread.
    Throttled,
    /// There is no memory, or too many frames are in use; the next finished request brings some.
    NoMemory,
    /// A write barrier waits for its turn.
    Barrier,
    /// The guest has been suspended, or is being destroyed.
    Suspended,
    /// The frontend's indices are impossible.
    Broken(Overrun),
}

impl Engine {
    /// Binds the event channel. Sleeps.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, or why the event channel cannot be bound.
    // Not inlined, so that its stack frame does not add to that of the disk's connection.
    #[inline(never)]
    pub(super) fn new(control: &Arc<RingControl>, setup: RingSetup) -> Result<KBox<Self>> {
        let slots = setup.entries as usize;
        let dev = &control.disk.dev;
        let completions = &control.completions;
        // An engine is large: it is built in its place, not by way of the stack.
        let engine = try_init!(Self {
            mapper <- Mapper::new(dev.frontend_id(), slots, setup.limits, setup.persistent),
            ring: setup.ring,
            entries: setup.entries,
            view: setup.device.view(),
            viewed: timer::jiffies(),
            merges_late: setup.device.block_device().merges_late(),
            pool: RequestPool::new(completions.clone(), setup.device.clone(), slots)?,
            device: setup.device,
            unpushed: false,
            ready: KVec::with_capacity(slots, GFP_KERNEL)?,
            unreleased: false,
            lingering: RequestQueue::new(),
            held: RequestQueue::new(),
            run_check: RunCheck::new(),
            barrier: None,
            barrier_is_active: false,
            again: false,
            lingering_since: None,
            lingering_reported: false,
            owed: None,
            worked: false,
            asked: false,
            tally: Tally::default(),
            credit: 0,
            squeezed_until: 0,
            now: timer::coarse_now(),
            jiffies: timer::jiffies(),
            orders: Orders::default(),
            kept: 0,
            broken: false,
            direct: false,
            // Last: from here on there are events.
            channel: Arc::pin_init(
                Channel::bind(dev.clone(), setup.port, EventWaker(completions.clone())),
                GFP_KERNEL,
            )?,
        }? Error);
        KBox::init(engine, GFP_KERNEL)
    }

    /// Starts at the indices that the ring shows.
    ///
    /// # Errors
    ///
    /// [`Overrun`] if they are impossible.
    pub(super) fn attach(&mut self, control: &RingControl) -> Result<(), Overrun> {
        self.ring.attach()?;
        let responses = self.ring.responses(&self.channel);
        control.completions.responses().connect(responses);
        Ok(())
    }

    /// Looks at everything once, and again while requests come back meanwhile. Returns how long the
    /// thread may sleep.
    pub(super) fn run(&mut self, control: &Arc<RingControl>) -> Sleep {
        // A run that is late may meet the next connection, of which no ring may be looked at yet.
        if !self.orders.update(control) {
            return Sleep::UntilWoken;
        }
        let mut budget = self.entries.saturating_mul(RINGS_PER_RUN);
        self.again = false;
        let mut idle = false;
        loop {
            self.tick();
            if let Some(event) = self.channel.take_event() {
                self.owed = Some(event);
                idle = false;
            }
            self.collect(control);
            if self.orders.reclaim || self.orders.expire {
                self.give_back();
            }
            // A ring that was empty is not looked at again without an event.
            if !idle {
                idle = self.serve(control, &mut budget);
            }
            self.pass_barrier(control);
            // A device without a queue answers at once: then the thread goes round again instead of
            // being woken.
            if control.completions.try_sleep() {
                break;
            }
            self.orders.update(control);
        }
        // Nothing wakes the thread when there is space again, or the guest runs again.
        self.again |= self.mapper.has_postponed() || !self.held.is_empty();
        self.count_kept(control);
        if self.lingering.is_empty() {
            self.lingering_since = None;
        } else {
            self.report_lingering(control);
        }
        if self.again {
            Sleep::AtMost(LINGER_MS)
        } else {
            Sleep::UntilWoken
        }
    }

    /// Looks at the clock.
    fn tick(&mut self) {
        let jiffies = timer::jiffies();
        if jiffies != self.jiffies {
            self.jiffies = jiffies;
            self.now = timer::coarse_now();
        }
    }

    /// Reports once per connection that pages have been used for long: the guest waits for the
    /// responses, or the toolstack for the disk.
    #[cold]
    fn report_lingering(&mut self, control: &RingControl) {
        let since = *self.lingering_since.get_or_insert(self.now);
        if !self.lingering_reported && self.now.saturating_sub(since) > LINGERING_REPORTED {
            self.lingering_reported = true;
            let events = control.events();
            events.pages_held(control.number, self.lingering.len());
        }
    }

    /// Looks at the device before a request is checked, once a tick. What changes within a tick is found
    /// before a request is refused.
    fn update_view(&mut self) {
        if self.viewed != timer::jiffies() {
            self.look_at_device();
        }
    }

    #[inline(never)]
    fn look_at_device(&mut self) {
        self.viewed = timer::jiffies();
        self.view = self.device.view();
        self.merges_late = self.device.block_device().merges_late();
    }

    /// Whether the device has changed since the look that a request was checked by.
    #[cold]
    fn view_was_old(&mut self) -> bool {
        let before = self.view;
        self.look_at_device();
        self.view != before
    }

    /// Keeps the disk's count of mapped grants and spare pages.
    fn count_kept(&mut self, control: &RingControl) {
        let kept = i32::try_from(self.mapper.kept()).unwrap_or(i32::MAX);
        if kept != self.kept {
            control.disk.count_kept(kept.wrapping_sub(self.kept));
            self.kept = kept;
        }
    }

    /// Consumes what is on the ring, or drains the ring if it is to stop. Returns whether the ring is empty, and
    /// the guest sends an event with the next request.
    fn serve(&mut self, control: &Arc<RingControl>, budget: &mut u32) -> bool {
        self.resume(control);
        if self.orders.holds_discards {
            self.resume_discards(control);
        }
        if self.orders.stopping || self.broken {
            self.barrier_is_active = control.disk.write_barrier.is_active();
            self.leave(control);
            self.drain(control);
            return false;
        }
        let pause = self.intake(control, budget);
        // Requests that were refused have their responses already.
        self.push_responses(control);
        self.choose_who_responds(control, &pause);
        match pause {
            Pause::Idle => {
                if let Some(event) = self.owed.take() {
                    self.channel.eoi(event, !self.worked);
                    self.worked = false;
                }
                return true;
            }
            Pause::Budget => control.wake(),
            // The EOI is withheld: the guest's events cost us nothing meanwhile.
            Pause::Throttled | Pause::NoMemory | Pause::Barrier | Pause::Suspended => {}
            Pause::Broken(overrun) => {
                self.broken = true;
                self.leave(control);
                control.events().ring_broken(control.number, overrun);
            }
        }
        false
    }

    /// How many free pages the ring may keep.
    fn pages_kept(&self) -> u32 {
        if self.squeezed_until > self.now {
            0
        } else {
            params::max_buffer_pages()
        }
    }

    /// Gives back grants that were not used for long, and memory when it is short.
    #[cold]
    fn give_back(&mut self) {
        if core::mem::take(&mut self.orders.reclaim) {
            let pause = u64::from(params::buffer_squeeze_duration_ms()).saturating_mul(1_000_000);
            self.squeezed_until = self.now.saturating_add(pause);
            // Not the grants that stay mapped: their pages hold no memory of this domain.
            self.mapper.shrink(0);
            self.pool.shrink();
        }
        if core::mem::take(&mut self.orders.expire) {
            self.mapper.expire(self.now);
        }
    }

    /// Submits a write barrier when no ring has anything in flight; reports when this ring has
    /// nothing in flight that another ring's barrier waits for.
    fn pass_barrier(&mut self, control: &Arc<RingControl>) {
        let barrier = &control.disk.write_barrier;
        if self.barrier.is_some() && !barrier.is_active() {
            if barrier.begin(control.number) {
                control.disk.gate.wake_all();
            }
            self.barrier_is_active = true;
        }
        if self.barrier_is_active {
            self.help_barrier(control);
        }
    }

    #[cold]
    fn help_barrier(&mut self, control: &Arc<RingControl>) {
        let barrier = &control.disk.write_barrier;
        self.respond_by_thread(control);
        let in_flight = self.ring.in_flight(control.completions.responses());
        if in_flight == u32::from(self.barrier.is_some()) {
            if let Some(owner) = barrier.drained(control.number) {
                control.disk.gate.wake(owner);
            }
        }
        if barrier.may_submit(control.number) && self.may_go_on(control) {
            if let Some(request) = self.barrier.take() {
                self.stage(control, request);
                self.submit_staged(control);
            }
        }
    }
}
