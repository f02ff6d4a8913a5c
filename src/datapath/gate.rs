// SPDX-License-Identifier: GPL-2.0

//! The gate of one disk: its limit, the lock around it and the one timer.
//!
//! Lock: `state`, a spinlock that disables interrupts, because the timer's
//! callback takes it; a leaf but for the timer and the waking of a thread, whose
//! own locks are raw. Where the guest has a cap, the cap's lock is taken before it (see
//! [`super::guest`]). [`Gate::admit`] runs in a ring's worker, [`Gate::configure`]
//! in the xenwatch thread, the callback in hard interrupt context.
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

use super::guest::Seat;
use super::worker::Worker;
use crate::logic::admission::Admission;
use crate::logic::admission::Bill;
use crate::logic::admission::Change;
use crate::logic::admission::Kept;
use crate::logic::admission::Next;
use crate::logic::admission::Share;
use crate::logic::admission::Take;
use crate::logic::limits::Limit;
use crate::logic::limits::Terms;
use crate::logic::queue::RingId;
use crate::logic::view::View;
use crate::sys::timer;
use crate::sys::timer::Expire;
use crate::sys::timer::OneShot;
use crate::sys::trace::Name;

/// The right of one request to go to the disk. Only the gate makes them.
#[must_use]
pub(crate) struct Pass {
    /// What it costs depends on its size.
    priced: bool,
}

/// How passes were paid for.
#[derive(Clone, Copy)]
enum Payment {
    /// There is no limit.
    Free,
    /// With tokens.
    Tokens(Bill),
    /// With tokens that may not be there yet.
    Credit(Option<Bill>),
}

/// The rights of several requests.
#[must_use]
pub(crate) struct Passes {
    left: u32,
    payment: Payment,
    priced: bool,
}

impl Passes {
    fn free(left: u32) -> Self {
        Self {
            left,
            payment: Payment::Free,
            priced: false,
        }
    }

    /// Takes one, if there is one left.
    pub(crate) fn next(&mut self) -> Option<Pass> {
        self.left = self.left.checked_sub(1)?;
        Some(Pass {
            priced: self.priced,
        })
    }

    /// Takes one back that was not used.
    pub(crate) fn put_back(&mut self, _pass: Pass) {
        self.left = self.left.saturating_add(1);
    }

    /// How many are left that were given on credit.
    pub(crate) fn on_credit(&self) -> u32 {
        match self.payment {
            Payment::Credit(_) => self.left,
            Payment::Free | Payment::Tokens(_) => 0,
        }
    }
}

struct State {
    admission: Admission,
    /// The rings, by number. Emptied by [`Gate::detach`], which breaks the cycle
    /// ring -> disk -> gate -> ring.
    rings: KVec<Arc<Worker>>,
    armed: bool,
    /// The guest has a cap.
    capped: bool,
}

#[pin_data]
struct Core {
    /// There is a limit, or a ring still waits for the end of one.
    gated: AtomicFlag,
    /// The guest has a cap.
    capped: AtomicFlag,
    /// How tracepoints name the disk.
    name: Name,
    #[pin]
    state: SpinLockIrq<State>,
}

/// Admission control for one disk.
#[pin_data]
pub(crate) struct Gate {
    #[pin]
    timer: OneShot<Core>,
    /// The disk's place among those of its guest.
    seat: Seat,
}

impl Gate {
    /// A gate without a limit.
    pub(crate) fn new(seat: Seat, name: Name) -> impl PinInit<Self, Error> {
        let core = try_pin_init!(Core {
            gated: AtomicFlag::new(false),
            capped: AtomicFlag::new(false),
            name,
            state <- new_spinlock_irq!(
                State {
                    admission: Admission::unlimited(),
                    rings: KVec::new(),
                    armed: false,
                    capped: false,
                },
                "rblkback::gate"
            ),
        }? Error);
        try_pin_init!(Self {
            timer <- OneShot::new(core),
            seat,
        }? Error)
    }

    /// Is there a limit or a cap, or does a ring still wait for the end of one?
    pub(crate) fn is_gated(&self) -> bool {
        self.core().gated.load(Relaxed)
    }

    /// `ring` sees `wanted` requests (at least one): how many may go? `None`: the
    /// ring has to wait; it will be woken.
    pub(crate) fn admit(&self, ring: RingId, wanted: u32) -> Option<Passes> {
        let core = self.core();
        if !self.is_gated() {
            return Some(Passes::free(wanted));
        }
        self.with(|admission, share, now| {
            let bill = admission.bill(&share);
            match admission.take(share, ring, wanted, now) {
                Take::Free => Some(Passes::free(wanted)),
                Take::Tokens(left) => {
                    // With the lock, so that a trace has things in their order.
                    core.name.admit(ring, left);
                    Some(Passes {
                        left,
                        payment: Payment::Tokens(bill),
                        priced: admission.is_priced(),
                    })
                }
                Take::Wait => {
                    core.name.throttle(ring, wanted);
                    None
                }
            }
        })
    }

    /// Lets `requests` through and charges them, tokens or not: the toolstack wants
    /// the disk back.
    pub(crate) fn admit_on_credit(&self, ring: RingId, requests: u32) -> Passes {
        self.with(|admission, mut share, now| {
            let bill = admission.charge(&mut share, requests, now);
            leave(admission, share, ring, now);
            Passes {
                left: requests,
                payment: Payment::Credit(bill),
                priced: admission.is_priced(),
            }
        })
    }

    /// A request that goes with `pass` is one of `bytes`.
    pub(crate) fn price(&self, pass: &Pass, bytes: u32) {
        if pass.priced {
            self.with(|admission, _, now| admission.price(bytes, now));
        }
    }

    /// Returns what was not used.
    pub(crate) fn give_back(&self, passes: Passes) {
        let bill = match passes.payment {
            Payment::Tokens(bill) | Payment::Credit(Some(bill)) if passes.left > 0 => bill,
            Payment::Free | Payment::Tokens(_) | Payment::Credit(_) => return,
        };
        self.with(|admission, share, _| admission.give_back(share, passes.left, bill));
    }

    /// `ring` has nothing to ask for any more.
    pub(crate) fn leave(&self, ring: RingId) {
        if self.is_gated() && !self.leave_unnoticed(ring) {
            self.with(|admission, share, now| leave(admission, share, ring, now));
        }
    }

    /// Spares the clock and a look at who is next, for each request of a guest that sends
    /// them one at a time. False, with nothing done, if that cannot be.
    fn leave_unnoticed(&self, ring: RingId) -> bool {
        let core = self.core();
        if core.capped.load(Relaxed) {
            return false;
        }
        let mut state = core.state.lock();
        !state.capped && state.admission.leave_unnoticed(ring)
    }

    /// Applies what the keys said when the disk appeared. `kept`: what a driver left
    /// when it let go of the disk, or what it is to begin with.
    pub(crate) fn start(&self, terms: Terms, kept: Kept) -> Change {
        self.with(|admission, _, now| admission.start(terms, kept, now))
    }

    /// Applies what the keys say now.
    pub(crate) fn configure(&self, terms: Terms) -> Change {
        let limit = terms.tokens.limit();
        let number = |get: fn(&Limit) -> u32| limit.as_ref().map_or(0, get);
        self.with(|admission, _, now| {
            let change = admission.configure(terms, now);
            if change == Change::Applied {
                let name = self.core().name;
                name.limit(number(Limit::refill), number(Limit::max));
            }
            change
        })
    }

    /// How the limit stands.
    pub(crate) fn view(&self) -> View {
        self.with(|admission, _, now| admission.view(now))
    }

    /// Tokens spent.
    pub(crate) fn spent(&self) -> u64 {
        self.with(|admission, _, _| admission.spent())
    }

    /// How tracepoints name the disk.
    pub(crate) fn name(&self) -> Name {
        self.core().name
    }

    /// The disk's place among those of its guest.
    pub(crate) fn seat(&self) -> &Seat {
        &self.seat
    }

    /// The guest has a cap from now on, or none; or there are tokens of it. False if
    /// the disk has no use for them. With the lock of the guest.
    pub(super) fn cap_moved(&self, capped: bool) -> bool {
        let core = self.core();
        let mut state = core.state.lock();
        state.capped = capped;
        core.capped.store(capped, Relaxed);
        let now = timer::now();
        let wanted = state.admission.release_from_cap(capped, now);
        core.settle(&mut state, &self.timer, now);
        wanted
    }

    /// Rings for the worker of every ring.
    pub(crate) fn wake_all(&self) {
        for ring in &self.core().state.lock().rings {
            ring.wake();
        }
    }

    /// Rings for the worker of `ring`.
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
        self.with(|admission, share, now| {
            admission.leave_all(now);
            if let Some((cap, disk)) = share {
                cap.leave(disk, now);
            }
        });
        core::mem::take(&mut self.core().state.lock().rings)
    }

    fn core(&self) -> &Core {
        self.timer.value()
    }

    /// Runs `change` on the limit, with the cap of the guest if there is one, then
    /// wakes or times whoever is next.
    fn with<R>(&self, change: impl FnOnce(&mut Admission, Share<'_>, u64) -> R) -> R {
        if self.core().capped.load(Relaxed) {
            self.seat.with(|share| self.apply(share, change))
        } else {
            self.apply(None, change)
        }
    }

    fn apply<R>(
        &self,
        share: Share<'_>,
        change: impl FnOnce(&mut Admission, Share<'_>, u64) -> R,
    ) -> R {
        let core = self.core();
        let mut state = core.state.lock();
        // Within the lock, so that time does not step back from caller to caller.
        let now = timer::now();
        let outcome = change(&mut state.admission, share, now);
        core.settle(&mut state, &self.timer, now);
        outcome
    }
}

/// `ring` has nothing to ask for; if no other has, neither has the disk.
fn leave(admission: &mut Admission, share: Share<'_>, ring: RingId, now: u64) {
    admission.leave(ring, now);
    if let (true, Some((cap, disk))) = (admission.is_idle(), share) {
        cap.leave(disk, now);
    }
}

impl Core {
    fn settle(&self, state: &mut State, timer: &OneShot<Self>, now: u64) {
        self.gated
            .store(state.capped || state.admission.is_gated(), Relaxed);
        match state.admission.next(now) {
            Next::Nothing if state.armed => {
                state.armed = false;
                timer.disarm();
            }
            Next::Nothing => {}
            Next::Wake(ring) => {
                if let Some(worker) = state.rings.get(usize::from(ring)) {
                    self.name.wake(ring);
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
