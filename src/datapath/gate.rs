// SPDX-License-Identifier: GPL-2.0

//! The gate of one disk: its limit, the lock around it and the one timer.
//!
//! Lock: `state`, a spinlock that disables interrupts, because the timer's
//! callback takes it; a leaf but for the timer and the queue, whose own locks are
//! raw. [`Gate::admit`] runs in a ring's worker, [`Gate::configure`] in the
//! xenwatch thread, the callback in hard interrupt context.
//!
//! The timer is armed only while a ring waits. A disk without a limit costs one
//! load per look at the ring.

use kernel::{
    new_spinlock_irq,
    prelude::*,
    sync::{
        atomic::{
            ordering::Relaxed,
            AtomicFlag, //
        },
        Arc,
        SpinLockIrq, //
    }, //
};

use super::worker::Worker;
use crate::logic::admission::Admission;
use crate::logic::admission::Change;
use crate::logic::admission::Next;
use crate::logic::admission::Take;
use crate::logic::admission::View;
use crate::logic::limits::Setting;
use crate::logic::queue::RingId;
use crate::sys::timer;
use crate::sys::timer::Expire;
use crate::sys::timer::OneShot;

/// The right of one request to go to the disk. Only the gate makes them.
#[must_use]
pub(crate) struct Pass(());

/// How passes were paid for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Payment {
    /// There is no limit.
    Free,
    /// With tokens.
    Tokens,
    /// With tokens that may not be there yet.
    Credit,
}

/// The rights of several requests.
#[must_use]
pub(crate) struct Passes {
    left: u32,
    payment: Payment,
}

impl Passes {
    /// Takes one, if there is one left.
    pub(crate) fn next(&mut self) -> Option<Pass> {
        self.left = self.left.checked_sub(1)?;
        Some(Pass(()))
    }

    /// Takes one back that was not used.
    pub(crate) fn put_back(&mut self, _pass: Pass) {
        self.left = self.left.saturating_add(1);
    }

    /// How many are left that were given on credit.
    pub(crate) fn on_credit(&self) -> u32 {
        match self.payment {
            Payment::Credit => self.left,
            Payment::Free | Payment::Tokens => 0,
        }
    }
}

struct State {
    admission: Admission,
    /// The rings, by number. Emptied by [`Gate::detach`], which breaks the cycle
    /// ring -> disk -> gate -> ring.
    rings: KVec<Arc<Worker>>,
    armed: bool,
}

#[pin_data]
struct Core {
    /// There is a limit, or a ring still waits for the end of one.
    gated: AtomicFlag,
    #[pin]
    state: SpinLockIrq<State>,
}

/// Admission control for one disk.
#[pin_data]
pub(crate) struct Gate {
    #[pin]
    timer: OneShot<Core>,
}

impl Gate {
    /// A gate without a limit.
    pub(crate) fn new() -> impl PinInit<Self, Error> {
        let core = try_pin_init!(Core {
            gated: AtomicFlag::new(false),
            state <- new_spinlock_irq!(
                State {
                    admission: Admission::unlimited(),
                    rings: KVec::new(),
                    armed: false,
                },
                "rblkback::gate"
            ),
        }? Error);
        try_pin_init!(Self {
            timer <- OneShot::new(core),
        }? Error)
    }

    /// `ring` sees `wanted` requests (at least one): how many may go? `None`: the
    /// ring has to wait; it will be woken.
    pub(crate) fn admit(&self, ring: RingId, wanted: u32) -> Option<Passes> {
        if !self.core().gated.load(Relaxed) {
            return Some(Passes {
                left: wanted,
                payment: Payment::Free,
            });
        }
        match self.with(|admission, now| admission.take(ring, wanted, now)) {
            Take::Free => Some(Passes {
                left: wanted,
                payment: Payment::Free,
            }),
            Take::Tokens(left) => Some(Passes {
                left,
                payment: Payment::Tokens,
            }),
            Take::Wait => None,
        }
    }

    /// Lets `requests` through and charges them, tokens or not: the toolstack wants
    /// the disk back.
    pub(crate) fn admit_on_credit(&self, ring: RingId, requests: u32) -> Passes {
        self.with(|admission, now| {
            admission.charge(requests, now);
            admission.leave(ring, now);
        });
        Passes {
            left: requests,
            payment: Payment::Credit,
        }
    }

    /// Returns what was not used.
    pub(crate) fn give_back(&self, passes: Passes) {
        if passes.payment != Payment::Free && passes.left > 0 {
            self.with(|admission, _| admission.give_back(passes.left));
        }
    }

    /// `ring` has nothing to ask for any more.
    pub(crate) fn leave(&self, ring: RingId) {
        if self.core().gated.load(Relaxed) {
            self.with(|admission, now| admission.leave(ring, now));
        }
    }

    /// Applies what the keys said when the disk appeared. `kept`: tokens that a
    /// driver left when it let go of the disk.
    pub(crate) fn start(&self, setting: Setting, kept: Option<u32>) -> Change {
        self.with(|admission, now| admission.start(setting, kept, now))
    }

    /// Applies what the keys say now.
    pub(crate) fn configure(&self, setting: Setting) -> Change {
        self.with(|admission, now| admission.configure(setting, now))
    }

    /// How the limit stands.
    pub(crate) fn view(&self) -> View {
        self.with(|admission, now| admission.view(now))
    }

    /// Queues the worker of every ring.
    pub(crate) fn wake_all(&self) {
        for ring in &self.core().state.lock().rings {
            ring.wake();
        }
    }

    /// Queues the worker of `ring`.
    pub(crate) fn wake(&self, ring: RingId) {
        if let Some(worker) = self.core().state.lock().rings.get(usize::from(ring)) {
            worker.wake();
        }
    }

    /// The rings that ask from now on; ring `n` has number `n`.
    pub(crate) fn attach(&self, rings: KVec<Arc<Worker>>) {
        let old = core::mem::replace(&mut self.core().state.lock().rings, rings);
        drop(old);
    }

    /// No ring asks any more: everybody who waits leaves. Returns the rings, to be
    /// dropped where that is allowed.
    pub(crate) fn detach(&self) -> KVec<Arc<Worker>> {
        self.with(|admission, now| admission.leave_all(now));
        core::mem::take(&mut self.core().state.lock().rings)
    }

    fn core(&self) -> &Core {
        self.timer.value()
    }

    /// Runs `change` on the limit, then wakes or times whoever is next.
    fn with<R>(&self, change: impl FnOnce(&mut Admission, u64) -> R) -> R {
        let core = self.core();
        let mut state = core.state.lock();
        // Within the lock, so that time does not step back from caller to caller.
        let now = timer::now();
        let outcome = change(&mut state.admission, now);
        core.settle(&mut state, &self.timer, now);
        outcome
    }
}

impl Core {
    fn settle(&self, state: &mut State, timer: &OneShot<Self>, now: u64) {
        self.gated.store(state.admission.is_gated(), Relaxed);
        match state.admission.next(now) {
            Next::Nothing if state.armed => {
                state.armed = false;
                timer.disarm();
            }
            Next::Nothing => {}
            Next::Wake(ring) => {
                if let Some(worker) = state.rings.get(usize::from(ring)) {
                    worker.wake();
                }
            }
            Next::At(at) => {
                state.armed = true;
                timer.arm(at);
            }
        }
    }
}

impl Expire for Core {
    fn expired(timer: &OneShot<Self>) {
        let core = timer.value();
        let mut state = core.state.lock();
        state.armed = false;
        let now = timer::now();
        core.settle(&mut state, timer, now);
    }
}
