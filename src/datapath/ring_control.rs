// SPDX-License-Identifier: GPL-2.0

//! What other threads and interrupts tell the thread of a ring.
//!
//! Every function that asks for something sets a flag and tells the thread so, which looks at all
//! flags then ([`Orders`]). Nothing in here waits for the thread.
//!
//! Lifetime: the worker, the work item of the discards and the disk's connection each have a
//! reference. The flags are those of one connection, see [`RingControl::reset`].

use kernel::{
    impl_has_work,
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
        Arc, //
    },
    workqueue::{
        Work,
        WorkItem, //
    }, //
};

use super::completions::Completions;
use super::discard_queue::DiscardQueue;
use super::disk_context::DiskContext;
use super::disk_context::DiskEvents;
use super::pending_request::Discard;
use super::pending_request::PendingRequest;
use super::run_check;
use super::run_check::Verdict;
use crate::logic::ids::RingId;
use crate::qos::gate::RingWaker;
use crate::sys::workqueue;

/// A request to the thread of a ring, which the thread takes once.
struct Flag(AtomicFlag);

impl Flag {
    const fn new() -> Self {
        Self(AtomicFlag::new(false))
    }

    /// What was written before is seen by whoever takes the flag.
    fn set(&self) {
        self.0.store(true, Release);
    }

    fn is_set(&self) -> bool {
        self.0.load(Relaxed)
    }

    /// Was the flag set since this was asked last?
    fn take(&self) -> bool {
        self.is_set() && self.0.xchg(false, Full)
    }
}

/// What the thread of a ring is asked for, as of its last look.
#[derive(Default)]
pub(super) struct Orders {
    /// Requests are consumed, or were.
    started: bool,
    /// Consume no more requests.
    pub(super) stopping: bool,
    /// Discards wait for the guest to run again.
    pub(super) holds_discards: bool,
    /// Admit what is on the ring now. Stays set until that was done, as do the next two.
    pub(super) admit_backlog: bool,
    /// Grants that stay mapped may have expired.
    pub(super) expire: bool,
    /// Memory is short.
    pub(super) reclaim: bool,
}

impl Orders {
    /// Looks at what `control` was told since. Returns whether requests are consumed, or were. A thread that
    /// nobody has told anything pays for one load.
    #[inline(always)]
    pub(super) fn update(&mut self, control: &RingControl) -> bool {
        if control.told.is_set() {
            self.look(control);
        }
        self.started
    }

    #[cold]
    fn look(&mut self, control: &RingControl) {
        if control.told.take() {
            self.started = control.started.load(Relaxed);
            self.stopping = control.is_stopping();
            self.holds_discards = control.holds_discards.load(Relaxed);
            self.admit_backlog |= control.admit_backlog.take();
            self.expire |= control.expire.take();
            self.reclaim |= control.reclaim.take();
        }
    }
}

/// The shared half of a ring's worker.
#[pin_data]
pub(crate) struct RingControl {
    pub(super) number: RingId,
    pub(super) disk: Arc<DiskContext>,
    events: Arc<dyn DiskEvents>,
    pub(super) completions: Arc<Completions>,
    /// A flag below was set.
    told: Flag,
    /// Every ring of the disk is mapped: consume requests.
    started: AtomicFlag,
    /// Consume no more requests.
    stopping: AtomicFlag,
    /// Nobody waits for what is held for a suspended guest.
    abandoned: AtomicFlag,
    /// The ring is stopped, and nothing of the frontend is mapped but the ring itself.
    drained: AtomicFlag,
    /// The toolstack wants the disk back: admit what is on the ring now.
    admit_backlog: Flag,
    /// Grants that stay mapped may have expired.
    expire: Flag,
    /// Memory is short.
    reclaim: Flag,
    /// The guest is suspended, and discards wait for it to run again.
    holds_discards: AtomicFlag,
    #[pin]
    discards: DiscardQueue,
    #[pin]
    discard_work: Work<RingControl>,
}

impl_has_work! {
    impl HasWork<Self> for RingControl { self.discard_work }
}

/// Runs the discards of the ring.
impl WorkItem for RingControl {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        workqueue::describe(this.disk.dev.nodename());
        // One at a time: the queue freezes with the system between two runs.
        let Some(mut discard) = this.discards.take() else {
            return;
        };
        // The ring's thread may have been given a cgroup and a priority; its discards have them, too.
        let wakeup = this.completions.wakeup();
        let status = wakeup.in_io_context(|| discard.run(|| this.discard_verdict()));
        if let Some(status) = status {
            discard.finish(status);
            workqueue::DISCARDS.enqueue(this);
        } else {
            this.discards.put_back(discard);
            this.holds_discards.store(true, Relaxed);
            // The thread looks whether the guest runs again.
            this.tell();
        }
    }
}

impl RingControl {
    /// The control of ring `number`, which is not connected. Sleeps.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(super) fn new(
        disk: Arc<DiskContext>,
        events: Arc<dyn DiskEvents>,
        number: RingId,
    ) -> Result<Arc<Self>> {
        let completions = Completions::new()?;
        let control = pin_init!(Self {
            number,
            disk,
            events,
            completions,
            told: Flag::new(),
            started: AtomicFlag::new(false),
            stopping: AtomicFlag::new(false),
            abandoned: AtomicFlag::new(false),
            drained: AtomicFlag::new(false),
            admit_backlog: Flag::new(),
            expire: Flag::new(),
            reclaim: Flag::new(),
            holds_discards: AtomicFlag::new(false),
            discards <- DiscardQueue::new(),
            discard_work <- new_work!("rblkback::discard"),
        });
        Arc::pin_init(control, GFP_KERNEL)
    }

    /// Nothing was asked for and nothing has happened: the ring is about to be connected.
    pub(super) fn reset(&self) {
        for flag in [
            &self.started,
            &self.stopping,
            &self.abandoned,
            &self.drained,
            &self.holds_discards,
        ] {
            flag.store(false, Relaxed);
        }
        for flag in [&self.told, &self.admit_backlog, &self.expire, &self.reclaim] {
            flag.take();
        }
    }

    /// Requests are consumed from now on. Context: any.
    pub(crate) fn start(&self) {
        self.started.store(true, Relaxed);
        // Requests may be on the ring already: no event would come for those.
        self.tell();
    }

    /// Has the thread look at the ring. Context: any.
    pub(super) fn wake(&self) {
        self.completions.wake();
    }

    /// Has the thread look at the flags, and at the ring. Context: any.
    fn tell(&self) {
        self.told.set();
        self.wake();
    }

    /// No request is consumed from now on. `abandoned`: the frontend has let go of the ring, so what is
    /// held while its guest is suspended is given up. Does not wait. Context: any.
    pub(crate) fn stop(&self, abandoned: bool) {
        self.abandoned.store(abandoned, Relaxed);
        self.stopping.store(true, Relaxed);
        self.tell();
    }

    /// What may be done with a request of the guest, if `verdict` is what may be done with one that
    /// somebody waits for.
    pub(super) fn verdict(&self, verdict: Verdict) -> Verdict {
        match verdict {
            Verdict::Hold if self.abandoned.load(Relaxed) => Verdict::GiveUp,
            other => other,
        }
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Relaxed)
    }

    /// What is on the ring now goes to the device, tokens or not. Context: any.
    pub(crate) fn admit_backlog(&self) {
        self.admit_backlog.set();
        self.tell();
    }

    /// Grants that stayed mapped may have been unused for too long. Context: any.
    pub(crate) fn expire_grants(&self) {
        self.expire.set();
        self.tell();
    }

    /// Memory is short: the ring gives back what is spare. Context: any.
    pub(crate) fn reclaim(&self) {
        self.reclaim.set();
        self.tell();
    }

    /// Is the ring stopped, with nothing in flight and nothing mapped but itself? Context: any.
    pub(crate) fn is_drained(&self) -> bool {
        self.drained.load(Acquire)
    }

    /// Notes that the ring is drained, and tells the disk when that is new.
    pub(super) fn report_drained(&self) {
        if !self.drained.load(Relaxed) {
            self.drained.store(true, Release);
            self.events.clone().ring_drained(self.number);
        }
    }

    /// What the disk has to hear of.
    pub(super) fn events(&self) -> &Arc<dyn DiskEvents> {
        &self.events
    }

    fn discard_verdict(&self) -> Verdict {
        if self.is_stopping() {
            Verdict::GiveUp
        } else {
            run_check::ask(&self.disk)
        }
    }

    /// Has the discards go on that waited for the guest.
    pub(super) fn resume_discards(self: &Arc<Self>) {
        self.holds_discards.store(false, Relaxed);
        workqueue::DISCARDS.enqueue(self.clone());
    }

    /// Queues a discard.
    pub(super) fn queue_discard(self: &Arc<Self>, discard: PendingRequest<Discard>) {
        self.discards.put(discard);
        workqueue::DISCARDS.enqueue(self.clone());
    }
}
