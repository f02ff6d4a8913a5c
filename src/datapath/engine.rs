// SPDX-License-Identifier: GPL-2.0

//! What a worker does when it runs: collect what came back, answer it, take what is
//! new, send it to the disk ([`intake`]).
//!
//! Used by one worker, under its `engine` lock.

use kernel::{
    prelude::*,
    sync::Arc, //
};

mod intake;

use super::job::Job;
use super::mapper::Bounds;
use super::mapper::Mapper;
use super::pool::Pool;
use super::ring::Answer;
use super::ring::Ring;
use super::worker::Wake;
use super::worker::Worker;
use crate::disk::Disk;
use crate::logic::abi::Status;
use crate::logic::index::Overrun;
use crate::logic::request;
use crate::logic::request::Operation;
use crate::sys::params;
use crate::sys::thread::Next;
use crate::sys::timer;
use crate::xenbus::evtchn::Channel;
use crate::xenbus::evtchn::Eoi;

/// Requests that one run takes at most, in rings: other rings want the processor, too.
const RINGS_PER_RUN: u32 = 4;
/// How long a worker waits for somebody to let go of a page, in milliseconds.
const LINGER_MS: u32 = 10;
/// How long pages are held before that is reported, in nanoseconds.
const HELD_REPORTED: u64 = 30_000_000_000;

/// What a ring is connected with.
pub(crate) struct Setup {
    /// The ring.
    pub(crate) ring: Ring,
    /// Its slots.
    pub(crate) entries: u32,
    /// The disk.
    pub(crate) disk: Arc<Disk>,
    /// The frontend's event channel.
    pub(crate) port: u32,
    /// The frontend offers persistent grants, and so do we.
    pub(crate) persistent: bool,
    /// Frames that its requests may use at a time.
    pub(crate) bounds: Bounds,
}

/// What the worker works with while the ring is connected.
pub(crate) struct Engine {
    // First: dropped first, so that no event comes while the rest goes.
    channel: Pin<KBox<Channel<Wake>>>,
    ring: Ring,
    entries: u32,
    disk: Arc<Disk>,
    /// What requests are checked against. Renewed before requests are taken off the ring,
    /// and whenever a batch of them has been sent to the device, which may have taken long.
    view: request::Disk,
    /// [`BlockDevice::merges_late`](crate::sys::bdev::BlockDevice::merges_late), likewise.
    merges_late: bool,
    mapper: Mapper,
    pool: Pool,
    /// Answers of discards; empty between runs.
    answers: KVec<Answer>,
    /// Jobs that can be released and answered; empty between runs.
    ready: KVec<Job>,
    /// Jobs that the disk has answered and somebody still looks at a page of.
    lingering: KVec<Job>,
    /// A write barrier that waits for all rings.
    barrier: Option<Job>,
    /// Look again soon, for there is something that nobody will ring for.
    again: bool,
    /// Since when there has been.
    held_since: Option<u64>,
    /// That was reported.
    held_told: bool,
    /// The EOI that is owed for the last event.
    owed: Option<Eoi>,
    /// Something was taken off the ring since the last EOI.
    worked: bool,
    /// The gate was asked since it was told that there is nothing to ask for.
    asked: bool,
    /// Requests on the ring that need no token: the toolstack wants the disk back.
    credit: u32,
    /// Free pages are given back until this time; 0: no.
    squeezed_until: u64,
    /// When the run began.
    now: u64,
    /// What the mapper keeps, as the disk knows it.
    kept: i32,
    /// The frontend published impossible indices.
    broken: bool,
}

/// Why the worker stopped taking requests off the ring.
enum Pause {
    /// There is nothing on it.
    Idle,
    /// It took as many as one run should.
    Budget,
    /// The gate said so; it will wake us.
    Throttled,
    /// No memory, or too many frames in use; the next finished job brings some.
    NoRoom,
    /// A write barrier waits for its turn.
    Barrier,
    /// The frontend's indices are impossible.
    Broken(Overrun),
}

impl Engine {
    /// Binds the event channel, whose events go to `wake`. Sleeps.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, or why the event channel cannot be bound.
    pub(super) fn new(worker: &Arc<Worker>, setup: Setup, wake: Wake) -> Result<Self> {
        let entries = setup.entries as usize;
        Ok(Self {
            mapper: Mapper::new(
                worker.vbd.frontend_id(),
                entries,
                setup.bounds,
                setup.persistent,
            )?,
            ring: setup.ring,
            entries: setup.entries,
            view: setup.disk.view(),
            merges_late: setup.disk.device().merges_late(),
            pool: Pool::new(worker.clone(), setup.disk.clone(), entries)?,
            disk: setup.disk,
            answers: KVec::with_capacity(entries, GFP_KERNEL)?,
            ready: KVec::with_capacity(entries, GFP_KERNEL)?,
            lingering: KVec::with_capacity(entries, GFP_KERNEL)?,
            barrier: None,
            again: false,
            held_since: None,
            held_told: false,
            owed: None,
            worked: false,
            asked: false,
            credit: 0,
            squeezed_until: 0,
            now: 0,
            kept: 0,
            broken: false,
            // Last: from here on there are events.
            channel: KBox::pin_init(
                Channel::bind(worker.vbd.device(), setup.port, wake),
                GFP_KERNEL,
            )?,
        })
    }

    /// One run.
    pub(super) fn run(&mut self, worker: &Arc<Worker>) -> Next {
        let mut budget = self.entries.saturating_mul(RINGS_PER_RUN);
        self.again = false;
        loop {
            self.now = timer::now();
            if let Some(event) = self.channel.take_event() {
                self.owed = Some(event);
            }
            self.collect(worker);
            self.tidy(worker);
            // Before anything that may sleep for the device.
            self.publish();
            self.look_at_disk();
            self.serve(worker, &mut budget);
            self.pass_barrier(worker);
            // Devices without a queue answer at once: no need to be woken for that.
            if worker.inbox.sleep() {
                break;
            }
        }
        self.count_kept(worker);
        self.note_held(worker);
        if self.again {
            Next::WaitAtMost(LINGER_MS)
        } else {
            Next::Wait
        }
    }

    /// Says once per connection that somebody holds pages, and has for long: the guest waits
    /// for the answers, or the toolstack for the disk.
    fn note_held(&mut self, worker: &Worker) {
        if !self.again {
            self.held_since = None;
            return;
        }
        let since = *self.held_since.get_or_insert(self.now);
        if !self.held_told && self.now.saturating_sub(since) > HELD_REPORTED {
            self.held_told = true;
            worker.vbd.pages_held(worker.number, self.lingering.len());
        }
    }

    fn look_at_disk(&mut self) {
        self.view = self.disk.view();
        self.merges_late = self.disk.device().merges_late();
    }

    /// Keeps the disk's number of frames and pages that are kept.
    fn count_kept(&mut self, worker: &Worker) {
        let kept = i32::try_from(self.mapper.kept()).unwrap_or(i32::MAX);
        if kept != self.kept {
            worker.vbd.count_kept(kept.wrapping_sub(self.kept));
            self.kept = kept;
        }
    }

    /// Takes what is on the ring, or comes to an end.
    fn serve(&mut self, worker: &Arc<Worker>, budget: &mut u32) {
        if worker.is_stopping() || self.broken {
            self.leave(worker);
            self.finish(worker);
            return;
        }
        let pause = self.intake(worker, budget);
        // Requests that were refused at once are answered already.
        self.publish();
        match pause {
            Pause::Idle => {
                if let Some(event) = self.owed.take() {
                    self.channel.eoi(event, !self.worked);
                    self.worked = false;
                }
            }
            Pause::Budget => worker.wake(),
            // The EOI is withheld: the guest's events cost us nothing meanwhile.
            Pause::Throttled | Pause::NoRoom | Pause::Barrier => {}
            Pause::Broken(overrun) => {
                self.broken = true;
                self.leave(worker);
                worker.vbd.ring_broke(worker.number, overrun);
            }
        }
    }

    /// Says so when a ring that is to be let go has nothing in flight any more.
    fn finish(&mut self, worker: &Arc<Worker>) {
        if !worker.is_stopping() || self.ring.in_flight() != 0 {
            return;
        }
        if self.mapper.forget() {
            worker.report_drained();
        } else {
            self.again = true;
        }
    }

    fn publish(&mut self) {
        if self.ring.publish() {
            self.channel.notify();
        }
    }

    /// Releases and answers what came back.
    fn collect(&mut self, worker: &Arc<Worker>) {
        worker.inbox.collect_answers(&mut self.answers);
        for answer in self.answers.drain_all() {
            self.ring.answer(answer);
            note_unsupported(worker, answer);
        }
        self.sort_out(worker);
        if self.ready.is_empty() {
            return;
        }
        // Nothing is answered before it is unmapped.
        self.mapper.release(&mut self.ready);
        for job in self.ready.drain_all() {
            self.ring.answer(job.answer());
            note_answered(worker, &job);
            self.pool.put(job.recycle());
        }
        self.mapper.shrink(self.pages_kept());
    }

    /// Which of the jobs that came back can be released, and which have to wait.
    fn sort_out(&mut self, worker: &Worker) {
        let mut at = 0;
        while let Some(job) = self.lingering.get(at) {
            if job.is_used() {
                at = at.saturating_add(1);
            } else if let Ok(job) = self.lingering.remove(at) {
                let _ = self.ready.push_within_capacity(job);
            }
        }
        for job in worker.inbox.collect() {
            let next = if job.is_used() {
                &mut self.lingering
            } else {
                &mut self.ready
            };
            let _ = next.push_within_capacity(job);
        }
        self.again |= !self.lingering.is_empty();
    }

    fn pages_kept(&self) -> u32 {
        if self.squeezed_until > self.now {
            0
        } else {
            params::max_buffer_pages()
        }
    }

    /// Gives back what was not used for long, or is needed elsewhere.
    fn tidy(&mut self, worker: &Worker) {
        if worker.take_squeeze() {
            let pause = u64::from(params::buffer_squeeze_duration_ms()).saturating_mul(1_000_000);
            self.squeezed_until = self.now.saturating_add(pause);
            self.mapper.forget();
            self.mapper.shrink(0);
            self.pool.shrink();
        }
        if worker.take_tidy() {
            self.mapper.expire(self.now);
        }
    }

    /// Brings a write barrier on its way when it is its turn; says so when this ring
    /// holds nobody else's up.
    fn pass_barrier(&mut self, worker: &Arc<Worker>) {
        let turnstile = worker.vbd.turnstile();
        if self.barrier.is_some() && !turnstile.is_closed() && turnstile.claim(worker.number) {
            worker.vbd.gate().wake_all();
        }
        if !turnstile.is_closed() {
            return;
        }
        if self.ring.in_flight() == u32::from(self.barrier.is_some()) {
            if let Some(claimant) = turnstile.quiet(worker.number) {
                worker.vbd.gate().wake(claimant);
            }
        }
        if turnstile.may_go(worker.number) {
            if let Some(job) = self.barrier.take() {
                self.stage(job);
                self.submit_staged();
            }
        }
    }
}

/// What else hangs on the answer to a job.
fn note_answered(worker: &Arc<Worker>, job: &Job) {
    note_unsupported(worker, job.answer());
    if job.operation() == Operation::Barrier {
        worker.vbd.turnstile().done(worker.number);
        worker.vbd.gate().wake_all();
    }
}

/// The device cannot do what was offered: no longer offer it.
fn note_unsupported(worker: &Worker, answer: Answer) {
    if answer.status == Status::Unsupported {
        worker.vbd.withdraw(answer.operation);
    }
}
