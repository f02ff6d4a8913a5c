// SPDX-License-Identifier: GPL-2.0

//! Serves one ring: who wakes it, who stops it, how long it lives.
//!
//! A worker is the duty of a thread: whatever happens (an event of the guest, a token,
//! the end of an I/O) only rings for it. Its [`Engine`] then looks at everything.
//!
//! Locks: `engine` is a mutex, held while the worker runs and while the disk
//! connects or disconnects; `inbox` and `errands` are leaves.
//!
//! Lifetime: while a ring is connected, the event channel, the room of each job, the
//! gate and the thread each hold an `Arc` of its worker. [`Worker::release`] drops what is
//! left of the first two; it may only be called once [`Worker::is_drained`].

use kernel::{
    impl_has_work,
    new_mutex,
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
        Mutex, //
    },
    workqueue::{
        Work,
        WorkItem, //
    }, //
};

use super::engine::Engine;
use super::engine::Setup;
use super::eraser::Errand;
use super::eraser::Errands;
use super::inbox::Inbox;
use super::job::Core;
use super::ring::Answer;
use crate::logic::queue::RingId;
use crate::sys::post::Letter;
use crate::sys::queue;
use crate::sys::thread::Bell;
use crate::sys::thread::Duty;
use crate::sys::thread::Next;
use crate::vbd::Vbd;
use crate::xenbus::evtchn;

/// The worker of one ring.
#[pin_data]
pub(crate) struct Worker {
    pub(super) vbd: Arc<Vbd>,
    pub(crate) number: RingId,
    /// Every ring of the disk is mapped: take requests.
    started: AtomicFlag,
    /// Take no more requests.
    stopping: AtomicFlag,
    /// Stopped, and nothing of the frontend is mapped but the ring itself.
    drained: AtomicFlag,
    /// The toolstack wants the disk back: let what is on the ring now through.
    hurried: AtomicFlag,
    /// Grants that stayed mapped may have expired.
    tidying: AtomicFlag,
    /// Memory is short.
    squeezed: AtomicFlag,
    bell: Bell,
    #[pin]
    erase: Work<Worker>,
    #[pin]
    pub(super) inbox: Inbox,
    #[pin]
    errands: Errands,
    #[pin]
    engine: Mutex<Option<Engine>>,
}

impl_has_work! {
    impl HasWork<Self> for Worker { self.erase }
}

impl Duty for Worker {
    fn bell(&self) -> &Bell {
        &self.bell
    }

    fn run(this: &Arc<Self>) -> Next {
        if !this.started.load(Relaxed) {
            return Next::Wait;
        }
        let mut engine = this.engine.lock();
        match &mut *engine {
            Some(engine) => engine.run(this),
            None => Next::Wait,
        }
    }
}

/// Runs discards.
impl WorkItem for Worker {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        queue::describe(this.vbd.nodename());
        while let Some(errand) = this.errands.take() {
            let answer = errand.run(|| this.is_stopping());
            this.answered(answer);
        }
    }
}

/// Rings for the worker when the guest sends an event.
pub(crate) struct Wake(Arc<Worker>);

impl evtchn::Handler for Wake {
    fn event(&self) {
        self.0.wake();
    }
}

impl Worker {
    /// A worker for ring `number` of `vbd`, of `entries` slots, connected to nothing
    /// yet. Sleeps.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(vbd: Arc<Vbd>, number: RingId, entries: usize) -> Result<Arc<Self>> {
        let answers = KVec::with_capacity(entries, GFP_KERNEL)?;
        let errands = Errands::new(entries)?;
        Arc::pin_init(
            pin_init!(Self {
                vbd,
                number,
                started: AtomicFlag::new(false),
                stopping: AtomicFlag::new(false),
                drained: AtomicFlag::new(false),
                hurried: AtomicFlag::new(false),
                tidying: AtomicFlag::new(false),
                squeezed: AtomicFlag::new(false),
                bell: Bell::new(),
                erase <- new_work!("rblkback::erase"),
                inbox <- Inbox::new(answers),
                errands <- errands,
                engine <- new_mutex!(None, "rblkback::engine"),
            }),
            GFP_KERNEL,
        )
    }

    /// Connects the worker to a ring and its event channel. Sleeps.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, or why the event channel cannot be bound.
    pub(crate) fn connect(self: &Arc<Self>, setup: Setup) -> Result {
        let mut engine = self.engine.lock();
        *engine = Some(Engine::new(self, setup, Wake(self.clone()))?);
        Ok(())
    }

    /// Requests are taken from now on.
    pub(crate) fn start(&self) {
        self.started.store(true, Relaxed);
        // Requests may wait already: nobody would send an event for those.
        self.wake();
    }

    /// Has the worker look at everything. Any context.
    pub(crate) fn wake(&self) {
        self.bell.ring();
    }

    /// No request is taken off the ring from now on. Does not wait.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Relaxed);
        self.wake();
    }

    /// Is nothing taken off the ring any more?
    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Relaxed)
    }

    /// What is on the ring now goes to the disk, tokens or not.
    pub(crate) fn hurry(&self) {
        self.hurried.store(true, Relaxed);
        self.wake();
    }

    /// Was the worker told to hurry since this was asked last?
    pub(super) fn take_hurry(&self) -> bool {
        self.hurried.load(Relaxed) && self.hurried.xchg(false, Full)
    }

    /// Grants that stayed mapped may have been unused for too long. Any context.
    pub(crate) fn tidy(&self) {
        self.tidying.store(true, Relaxed);
        self.wake();
    }

    /// Was the worker told to tidy since this was asked last?
    pub(super) fn take_tidy(&self) -> bool {
        self.tidying.load(Relaxed) && self.tidying.xchg(false, Full)
    }

    /// Memory is short: what is spare is to be given back. Any context.
    pub(crate) fn squeeze(&self) {
        self.squeezed.store(true, Relaxed);
        self.wake();
    }

    /// Was the worker squeezed since this was asked last?
    pub(super) fn take_squeeze(&self) -> bool {
        self.squeezed.load(Relaxed) && self.squeezed.xchg(false, Full)
    }

    /// Stopped, with nothing in flight and nothing mapped but the ring itself?
    pub(crate) fn is_drained(&self) -> bool {
        self.drained.load(Acquire)
    }

    /// Notes that the worker is drained, and tells the disk when that is new.
    pub(super) fn report_drained(&self) {
        if !self.drained.load(Relaxed) {
            self.drained.store(true, Release);
            self.vbd.kick();
        }
    }

    /// Unmaps the ring and closes the event channel. Sleeps.
    pub(crate) fn release(&self) {
        let engine = self.engine.lock().take();
        drop(engine);
        // An end of I/O that handed in the last job may not have returned yet, with a
        // reference that must not be the last one: dropping that one sleeps.
        synchronize_rcu();
    }

    /// The disk has answered. Any context.
    pub(super) fn finished(&self, job: KBox<Letter<Core>>) {
        if self.inbox.put_job(job) {
            self.wake();
        }
    }

    /// A discard is done.
    fn answered(&self, answer: Answer) {
        self.inbox.put_answer(answer);
        self.wake();
    }

    /// Sends a discard on its way.
    pub(super) fn erase(self: &Arc<Self>, errand: Errand) {
        match self.errands.put(errand) {
            Ok(()) => {
                // Queued already: then it has yet to look.
                let _ = queue::discards().enqueue(self.clone());
            }
            // Never: there is room for one per slot.
            Err(answer) => self.answered(answer),
        }
    }
}
