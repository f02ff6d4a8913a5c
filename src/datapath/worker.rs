// SPDX-License-Identifier: GPL-2.0

//! Serves one ring.
//!
//! A worker is a work item on the module's queue: it never runs twice at once, and
//! whatever happens (an event of the guest, a token, the end of an I/O) only
//! queues it. It then looks at everything.
//!
//! Locks: `engine` is a mutex, held while the worker runs and while the disk
//! connects or disconnects; `inbox` is a spinlock that disables interrupts, taken
//! at the end of an I/O; a leaf.
//!
//! Lifetime: while a ring is connected, the event channel, the jobs in flight and
//! the gate each hold an `Arc` of its worker. [`Worker::release`] drops what is left
//! of those; it may only be called once [`Worker::is_drained`].

use kernel::{
    impl_has_work,
    new_mutex,
    new_spinlock_irq,
    new_work,
    prelude::*,
    sync::{
        atomic::{
            ordering::{
                Acquire,
                Full,
                Relaxed,
                Release, //
            },
            AtomicFlag, //
        },
        rcu::synchronize_rcu,
        Arc,
        Mutex,
        SpinLockIrq, //
    },
    workqueue::{
        Work,
        WorkItem, //
    }, //
};

use super::gate::Pass;
use super::gate::Passes;
use super::job::Job;
use super::pool::Pool;
use super::pool::Room;
use super::ring::Answer;
use super::ring::Ring;
use crate::disk::Disk;
use crate::logic::abi::Status;
use crate::logic::index::Overrun;
use crate::logic::queue::RingId;
use crate::logic::request::check;
use crate::sys::bio::Plug;
use crate::sys::queue;
use crate::vbd::Vbd;
use crate::xenbus::evtchn;
use crate::xenbus::evtchn::Channel;
use crate::xenbus::evtchn::Eoi;
use crate::xenbus::grant;
use crate::xenbus::grant::PageCache;

/// Frames kept for the next requests while a ring is connected: as many as a full
/// ring of one page with direct requests needs.
const FRAMES_KEPT: u32 = 352;

/// Jobs on their way back to the worker.
struct Inbox {
    finished: KVec<KBox<Job>>,
    unmapped: KVec<KBox<Job>>,
    /// The worker is about to look at `unmapped`; no need to queue it.
    looking: bool,
}

/// What the worker works with while the ring is connected.
struct Engine {
    // First: dropped first, so that no event comes while the rest goes.
    channel: Pin<KBox<Channel<Wake>>>,
    ring: Ring,
    entries: u32,
    disk: Arc<Disk>,
    cache: Pin<KBox<PageCache>>,
    pool: Pool,
    /// Exchanged with the inbox, so that neither allocates.
    finished: KVec<KBox<Job>>,
    unmapped: KVec<KBox<Job>>,
    /// The EOI that is owed for the last event.
    owed: Option<Eoi>,
    /// Something was taken off the ring since the last EOI.
    worked: bool,
    /// Requests on the ring that need no token: the toolstack wants the disk back.
    credit: u32,
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
    /// No memory; the next finished job brings some.
    NoRoom,
    /// The frontend's indices are impossible.
    Broken(Overrun),
}

/// The worker of one ring.
#[pin_data]
pub(crate) struct Worker {
    vbd: Arc<Vbd>,
    number: RingId,
    domain: u16,
    /// Take no more requests.
    stopping: AtomicFlag,
    /// Stopped, and every request taken was answered.
    drained: AtomicFlag,
    /// The toolstack wants the disk back: let what is on the ring now through.
    hurried: AtomicFlag,
    #[pin]
    work: Work<Worker>,
    #[pin]
    inbox: SpinLockIrq<Inbox>,
    #[pin]
    engine: Mutex<Option<Engine>>,
}

impl_has_work! {
    impl HasWork<Self> for Worker { self.work }
}

impl WorkItem for Worker {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        let mut engine = this.engine.lock();
        if let Some(engine) = &mut *engine {
            engine.run(&this);
        }
    }
}

/// Queues the worker when the guest sends an event.
pub(crate) struct Wake(Arc<Worker>);

impl evtchn::Handler for Wake {
    fn event(&self) {
        self.0.wake();
    }
}

impl Worker {
    /// A worker for ring `number` of `vbd`, connected to nothing yet. Sleeps.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(vbd: Arc<Vbd>, number: RingId, entries: u32) -> Result<Arc<Self>> {
        let inbox = Inbox {
            finished: jobs(entries)?,
            unmapped: jobs(entries)?,
            looking: false,
        };
        Arc::pin_init(
            pin_init!(Self {
                domain: vbd.frontend_id(),
                vbd,
                number,
                stopping: AtomicFlag::new(false),
                drained: AtomicFlag::new(false),
                hurried: AtomicFlag::new(false),
                work <- new_work!("rblkback::ring"),
                inbox <- new_spinlock_irq!(inbox, "rblkback::inbox"),
                engine <- new_mutex!(None, "rblkback::engine"),
            }),
            GFP_KERNEL,
        )
    }

    /// Connects the worker to a ring and the event channel `port`, and starts it.
    /// Sleeps.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, or why the event channel cannot be bound.
    pub(crate) fn connect(
        self: &Arc<Self>,
        ring: Ring,
        entries: u32,
        disk: Arc<Disk>,
        port: u32,
    ) -> Result {
        let mut engine = self.engine.lock();
        *engine = Some(Engine {
            ring,
            entries,
            disk,
            cache: KBox::pin_init(PageCache::new(), GFP_KERNEL)?,
            pool: Pool::new(entries as usize)?,
            finished: jobs(entries)?,
            unmapped: jobs(entries)?,
            owed: None,
            worked: false,
            credit: 0,
            broken: false,
            // Last: from here on there are events.
            channel: KBox::pin_init(
                Channel::bind(self.vbd.device(), port, Wake(self.clone())),
                GFP_KERNEL,
            )?,
        });
        drop(engine);
        // Requests may wait already: nobody would send an event for those.
        self.wake();
        Ok(())
    }

    /// Queues the worker. Any context.
    pub(crate) fn wake(self: &Arc<Self>) {
        // Queued already: then it has yet to look.
        let _ = queue::rings().enqueue(self.clone());
    }

    /// No request is taken off the ring from now on. Does not wait.
    pub(crate) fn stop(self: &Arc<Self>) {
        self.stopping.store(true, Relaxed);
        self.wake();
    }

    /// What is on the ring now goes to the disk, tokens or not.
    pub(crate) fn hurry(self: &Arc<Self>) {
        self.hurried.store(true, Relaxed);
        self.wake();
    }

    /// Stopped, with nothing in flight and nothing mapped but the ring itself?
    pub(crate) fn is_drained(&self) -> bool {
        self.drained.load(Acquire)
    }

    /// Unmaps the ring and closes the event channel. Sleeps.
    pub(crate) fn release(&self) {
        let engine = self.engine.lock().take();
        drop(engine);
        // An end of I/O that handed in the last job may not have returned yet, in
        // interrupt context, with a reference that must not be the last one.
        synchronize_rcu();
    }

    /// The disk has answered. Any context.
    pub(crate) fn finished(self: &Arc<Self>, job: KBox<Job>) {
        // Never full: it has room for every slot of the ring.
        let _ = self.inbox.lock().finished.push_within_capacity(job);
        self.wake();
    }

    /// The pages of a job are unmapped. Any context.
    pub(crate) fn unmapped(self: &Arc<Self>, job: KBox<Job>) {
        let mut inbox = self.inbox.lock();
        // Never full, as above.
        let _ = inbox.unmapped.push_within_capacity(job);
        let looking = inbox.looking;
        drop(inbox);
        if !looking {
            self.wake();
        }
    }
}

fn jobs(entries: u32) -> Result<KVec<KBox<Job>>> {
    Ok(KVec::with_capacity(entries as usize, GFP_KERNEL)?)
}

impl Engine {
    /// One run: collect answers, take requests, tell the frontend.
    fn run(&mut self, worker: &Arc<Worker>) {
        if let Some(event) = self.channel.take_event() {
            self.owed = Some(event);
        }
        self.collect(worker);
        // Before anything that may sleep for the device.
        self.publish();
        if worker.stopping.load(Relaxed) || self.broken {
            worker.vbd.gate().leave(worker.number);
            self.report_drained(worker);
            return;
        }
        let pause = self.intake(worker);
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
            Pause::Throttled | Pause::NoRoom => {}
            Pause::Broken(overrun) => {
                self.broken = true;
                worker.vbd.gate().leave(worker.number);
                worker.vbd.ring_broke(worker.number, overrun);
            }
        }
    }

    fn report_drained(&self, worker: &Arc<Worker>) {
        let drained = worker.stopping.load(Relaxed) && self.ring.in_flight() == 0;
        if drained && !worker.drained.load(Relaxed) {
            worker.drained.store(true, Release);
            worker.vbd.kick();
        }
    }

    fn publish(&mut self) {
        if self.ring.publish() {
            self.channel.notify();
        }
    }

    /// Unmaps and answers what the disk has finished.
    fn collect(&mut self, worker: &Worker) {
        let mut inbox = worker.inbox.lock();
        core::mem::swap(&mut inbox.finished, &mut self.finished);
        inbox.looking = true;
        drop(inbox);
        for job in self.finished.drain_all() {
            grant::unmap(job);
        }
        let mut inbox = worker.inbox.lock();
        core::mem::swap(&mut inbox.unmapped, &mut self.unmapped);
        inbox.looking = false;
        drop(inbox);
        for job in self.unmapped.drain_all() {
            self.ring.answer(job.answer());
            self.pool.put(job.recycle(&self.cache));
        }
        self.cache.shrink(FRAMES_KEPT);
    }

    /// Takes requests off the ring until something stops it.
    fn intake(&mut self, worker: &Arc<Worker>) -> Pause {
        let mut budget = self.entries;
        pin_init::stack_pin_init!(let _plug = Plug::new());
        loop {
            let unread = match self.look() {
                Ok(0) => {
                    self.credit = 0;
                    worker.vbd.gate().leave(worker.number);
                    return Pause::Idle;
                }
                Ok(unread) => unread,
                Err(overrun) => return Pause::Broken(overrun),
            };
            let wanted = unread.min(budget);
            if wanted == 0 {
                return Pause::Budget;
            }
            if worker.hurried.xchg(false, Full) {
                self.credit = unread;
            }
            let Some(mut passes) = self.ask(worker, wanted) else {
                return Pause::Throttled;
            };
            budget = budget.saturating_sub(wanted);
            while passes.any_left() {
                let Some(room) = self.pool.take() else {
                    self.credit = self.credit.saturating_add(passes.on_credit());
                    worker.vbd.gate().give_back(passes);
                    worker.vbd.gate().leave(worker.number);
                    worker.vbd.stats().out_of_room.add(1, Relaxed);
                    return Pause::NoRoom;
                };
                if let Some(pass) = passes.next() {
                    self.dispatch(worker, room, pass);
                }
            }
        }
    }

    /// Passes for some of `wanted` requests, or `None` to wait for them.
    fn ask(&mut self, worker: &Worker, wanted: u32) -> Option<Passes> {
        let gate = worker.vbd.gate();
        let on_credit = wanted.min(self.credit);
        if on_credit == 0 || worker.stopping.load(Relaxed) {
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
    fn dispatch(&mut self, worker: &Arc<Worker>, room: Room, pass: Pass) {
        let slot = self.ring.take();
        self.worked = true;
        let mut answer = Answer {
            id: slot.id(self.ring.abi()),
            operation: slot.operation(),
            status: Status::Error,
        };
        match check(&slot, self.ring.abi(), &self.disk.view()) {
            Ok(request) => {
                worker.vbd.stats().count(&request);
                let disk = self.disk.clone();
                let job = Job::new(room, pass, worker.clone(), disk, answer, request);
                if let Err(job) = job.start(worker.domain, &self.cache) {
                    // Goes the same way back as any other, so that whatever was
                    // mapped is unmapped first.
                    worker.finished(job);
                }
            }
            Err(refusal) => {
                self.pool.put(room);
                answer.status = refusal.status();
                self.ring.answer(answer);
            }
        }
    }
}
