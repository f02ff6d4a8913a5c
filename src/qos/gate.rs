// SPDX-License-Identifier: GPL-2.0

//! The gate of one disk: its limit, the lock around it and the one timer.
//!
//! Lock: `state`, a spinlock that disables interrupts, because the callback of the timer takes it.
//! Only the timer's and the run queue's own locks are taken under it. Where the guest has a cap,
//! the guest's lock is taken before it (see [`super::guest`]).
//!
//! | function | context |
//! |---|---|
//! | [`Gate::admit`], [`Gate::leave`], [`Gate::give_back`] | the thread of a ring |
//! | [`Gate::configure`], [`Gate::start`] | the xenwatch thread, or `probe` |
//! | [`Gate::attach`], [`Gate::detach`] | the disk's work item |
//! | the callback of the timer | hard interrupt |
//!
//! The timer is armed only while a ring waits. A disk without a limit costs one load for each look
//! at the ring. With a limit that is not reached, a look that finds requests takes the lock and reads
//! the clock once; that the ring has no more costs an atomic addition.

use kernel::{
    prelude::*,
    sync::{
        atomic::{
            ordering::Relaxed,
            Atomic,
            AtomicFlag, //
        },
        Arc, //
    }, //
};

use super::guest::CapMember;
use super::permit::Payment;
use super::permit::Permit;
use super::permit::PermitBatch;
use super::registry::GuestSlot;
use crate::logic::ids::RingId;
use crate::logic::tokens::admission::Admission;
use crate::logic::tokens::admission::CapRef;
use crate::logic::tokens::admission::Change;
use crate::logic::tokens::admission::SavedLevels;
use crate::logic::tokens::admission::Take;
use crate::logic::tokens::limits::Limit;
use crate::logic::tokens::limits::Terms;
use crate::logic::tokens::timer_action::TimerAction;
use crate::logic::tokens::token_queue::bit_of;
use crate::logic::tokens::token_queue::Members;
use crate::logic::tokens::view::LimitView;
use crate::sys::compat::new_spinlock_irq;
use crate::sys::compat::SpinLockIrq;
use crate::sys::timer;
use crate::sys::timer::Expire;
use crate::sys::timer::OneShot;
use crate::sys::trace::TraceId;

/// Wakes a ring.
pub(crate) trait RingWaker: Send + Sync + 'static {
    /// Has the ring look at everything again. Context: up to hard interrupt, with the lock of the
    /// gate held.
    fn wake(&self);
}

struct GateState {
    admission: Admission,
    /// The rings, by number. [`Gate::detach`] empties this, which breaks the cycle ring -> disk ->
    /// gate -> ring.
    rings: KVec<Arc<dyn RingWaker>>,
    armed: bool,
    /// The guest has a cap.
    capped: bool,
}

#[pin_data]
struct GateTimer {
    /// There is a limit, or a ring still waits for the end of one.
    gated: AtomicFlag,
    /// The guest has a cap.
    capped: AtomicFlag,
    /// The rings that got tokens in passing. Only the thread of a ring changes the ring's bit: sets it
    /// with the lock, clears it with or without.
    passing: Atomic<Members>,
    trace_id: TraceId,
    #[pin]
    state: SpinLockIrq<GateState>,
}

/// Admission control for one disk.
#[pin_data]
pub(crate) struct Gate {
    #[pin]
    timer: OneShot<GateTimer>,
    slot: GuestSlot,
}

impl Gate {
    /// A gate without a limit, for the disk with that slot.
    pub(crate) fn new(slot: GuestSlot, trace_id: TraceId) -> impl PinInit<Self, Error> {
        // The table of rings is large: it is written in its place, not by way of the stack.
        let state = init!(GateState {
            admission: const { Admission::unlimited() },
            rings: KVec::new(),
            armed: false,
            capped: false,
        });
        let timer = try_pin_init!(GateTimer {
            gated: AtomicFlag::new(false),
            capped: AtomicFlag::new(false),
            passing: Atomic::new(0),
            trace_id,
            state <- new_spinlock_irq!(state, "rblkback::gate"),
        }? Error);
        try_pin_init!(Self {
            timer <- OneShot::new(timer),
            slot,
        }? Error)
    }

    /// Is there a limit or a cap, or does a ring still wait for the end of one?
    pub(crate) fn is_gated(&self) -> bool {
        self.inner().gated.load(Relaxed)
    }

    /// `ring` sees `wanted` requests (at least one): how many may go? `None`: the
    /// ring has to wait; the gate will wake it.
    pub(crate) fn admit(&self, ring: RingId, wanted: u32) -> Option<PermitBatch> {
        if self.is_gated() {
            self.admit_gated(ring, wanted)
        } else {
            Some(PermitBatch::free(wanted))
        }
    }

    #[inline(never)]
    fn admit_gated(&self, ring: RingId, wanted: u32) -> Option<PermitBatch> {
        match self.inner().pass(ring, wanted) {
            None => self.admit_queued(ring, wanted),
            batch => batch,
        }
    }

    #[inline(never)]
    fn admit_queued(&self, ring: RingId, wanted: u32) -> Option<PermitBatch> {
        let inner = self.inner();
        self.with(|admission, cap, now| {
            let charge = admission.payers(&cap);
            let take = admission.take(cap, ring, wanted, now);
            inner.note_passing(ring, admission.passing());
            match take {
                Take::Free => Some(PermitBatch::free(wanted)),
                Take::Tokens(left) => {
                    // With the lock, so that a trace has the events in their order.
                    inner.trace_id.admit(ring, left);
                    Some(PermitBatch {
                        left,
                        payment: Payment::Tokens(charge),
                        size_priced: admission.is_priced(),
                    })
                }
                Take::Wait => {
                    inner.trace_id.throttle(ring, wanted);
                    None
                }
            }
        })
    }

    /// Admits `requests` requests and charges them, tokens or not: the toolstack wants the disk back.
    #[inline(never)]
    pub(crate) fn admit_on_credit(&self, ring: RingId, requests: u32) -> PermitBatch {
        self.with(|admission, mut cap, now| {
            let charge = admission.charge(&mut cap, requests, now);
            leave(admission, cap, ring, now);
            self.inner().note_passing(ring, admission.passing());
            PermitBatch {
                left: requests,
                payment: Payment::Credit(charge),
                size_priced: admission.is_priced(),
            }
        })
    }

    /// The request that goes with `permit` is one of `bytes`: charges what that costs more than one
    /// token.
    pub(crate) fn charge_size(&self, permit: &Permit, bytes: u32) {
        if permit.size_priced {
            self.charge_bytes(bytes);
        }
    }

    #[inline(never)]
    fn charge_bytes(&self, bytes: u32) {
        self.with(|admission, _, now| admission.price(bytes, now));
    }

    /// Takes back the permits that were not used.
    pub(crate) fn give_back(&self, batch: PermitBatch) {
        let charge = match batch.payment {
            Payment::Tokens(charge) | Payment::Credit(Some(charge)) if batch.left > 0 => charge,
            Payment::Free | Payment::Tokens(_) | Payment::Credit(_) => return,
        };
        self.with(|admission, cap, _| admission.give_back(cap, batch.left, charge));
    }

    /// `ring` has nothing to ask for any more. A guest that sends requests one at a time comes here for each:
    /// one that got tokens in passing takes no lock.
    pub(crate) fn leave(&self, ring: RingId) {
        if self.inner().note_passing(ring, 0) {
            return;
        }
        if self.is_gated() && !self.leave_unnoticed(ring) {
            self.with(|admission, cap, now| leave(admission, cap, ring, now));
        }
    }

    /// As [`Self::leave`] where no ring waits, without a look at the clock and at the queue. Returns
    /// false, with nothing done, if a ring waits.
    fn leave_unnoticed(&self, ring: RingId) -> bool {
        let inner = self.inner();
        if inner.capped.load(Relaxed) {
            return false;
        }
        let mut state = inner.state.lock();
        !state.capped && state.admission.leave_idle(ring)
    }

    /// Applies what the keys said when the disk appeared. `saved`: the levels that a
    /// driver left when it lost the disk, or that the disk is to begin with.
    pub(crate) fn start(&self, terms: Terms, saved: SavedLevels) -> Change {
        self.with(|admission, _, now| admission.start(terms, saved, now))
    }

    /// Applies what the keys say now.
    pub(crate) fn configure(&self, terms: Terms) -> Change {
        let limit = terms.tokens.limit();
        let number = |get: fn(&Limit) -> u32| limit.as_ref().map_or(0, get);
        self.with(|admission, _, now| {
            let change = admission.configure(terms, now);
            if change == Change::Applied {
                let trace_id = self.inner().trace_id;
                trace_id.limit(number(Limit::refill), number(Limit::max));
            }
            change
        })
    }

    /// How the limit stands.
    pub(crate) fn view(&self) -> LimitView {
        self.with(|admission, _, now| admission.view(now))
    }

    /// Tokens spent.
    pub(crate) fn spent(&self) -> u64 {
        self.with(|admission, _, _| admission.spent())
    }

    /// How tracepoints name the disk.
    pub(crate) fn trace_id(&self) -> TraceId {
        self.inner().trace_id
    }

    /// The disk's slot in the table of its guest.
    pub(crate) fn slot(&self) -> &GuestSlot {
        &self.slot
    }

    /// Wakes every ring. Context: any.
    pub(crate) fn wake_all(&self) {
        for ring in &self.inner().state.lock().rings {
            ring.wake();
        }
    }

    /// Wakes `ring`. Context: any.
    pub(crate) fn wake(&self, ring: RingId) {
        if let Some(waker) = self.inner().state.lock().rings.get(usize::from(ring)) {
            waker.wake();
        }
    }

    /// The rings that ask from now on; ring `n` has number `n`.
    pub(crate) fn attach(&self, rings: KVec<Arc<dyn RingWaker>>) {
        let old = core::mem::replace(&mut self.inner().state.lock().rings, rings);
        drop(old);
    }

    /// No ring asks any more: all that wait leave. Returns the rings, to be dropped without a lock.
    pub(crate) fn detach(&self) -> KVec<Arc<dyn RingWaker>> {
        self.with(|admission, cap, now| {
            admission.leave_all(now);
            if let Some((cap, disk)) = cap {
                cap.leave(disk, now);
            }
        });
        core::mem::take(&mut self.inner().state.lock().rings)
    }

    fn inner(&self) -> &GateTimer {
        self.timer.value()
    }

    /// Runs `change` on the limit, with the cap of the guest if there is one, then wakes the ring that
    /// is next or arms the timer for it.
    fn with<R>(&self, change: impl FnOnce(&mut Admission, CapRef<'_>, u64) -> R) -> R {
        if self.inner().capped.load(Relaxed) {
            self.slot.with_cap(|cap| self.apply(cap, change))
        } else {
            self.apply(None, change)
        }
    }

    fn apply<R>(
        &self,
        cap: CapRef<'_>,
        change: impl FnOnce(&mut Admission, CapRef<'_>, u64) -> R,
    ) -> R {
        let inner = self.inner();
        let mut state = inner.state.lock();
        state.admission.set_passing(inner.passing.load(Relaxed));
        // With the lock, so that time does not step back from caller to caller.
        let now = timer::now();
        let outcome = change(&mut state.admission, cap, now);
        inner.settle(&mut state, &self.timer, now);
        outcome
    }
}

/// `ring` has nothing to ask for. If no other ring has, the disk leaves the queue of the cap.
fn leave(admission: &mut Admission, cap: CapRef<'_>, ring: RingId, now: u64) {
    admission.leave(ring, now);
    if let (true, Some((cap, disk))) = (admission.is_idle(), cap) {
        cap.leave(disk, now);
    }
}

impl GateTimer {
    /// Notes whether `ring`, which calls this, is among those that got tokens in passing. Returns whether
    /// it was before.
    #[inline]
    fn note_passing(&self, ring: RingId, passing: Members) -> bool {
        let bit = bit_of(ring);
        let (was, is) = (self.passing.load(Relaxed) & bit, passing & bit);
        if was != is {
            // There is no atomic `or` in the kernel crate. Nobody else changes the bit, so nothing is carried.
            self.passing.add(is.wrapping_sub(was), Relaxed);
        }
        was != 0
    }

    /// Admits `wanted` requests of `ring` if no ring waits and there are tokens for all of them, as it is
    /// with a limit that the guest does not reach: neither the timer nor the queue has to be looked at.
    #[inline]
    fn pass(&self, ring: RingId, wanted: u32) -> Option<PermitBatch> {
        if self.capped.load(Relaxed) {
            return None;
        }
        let mut state = self.state.lock();
        if state.capped {
            return None;
        }
        state.admission.set_passing(self.passing.load(Relaxed));
        // With the lock, as in `Gate::apply`.
        let charge = state.admission.pass(ring, wanted, timer::now())?;
        self.note_passing(ring, bit_of(ring));
        self.trace_id.admit(ring, wanted);
        Some(PermitBatch {
            left: wanted,
            payment: Payment::Tokens(charge),
            size_priced: false,
        })
    }

    fn settle(&self, state: &mut GateState, timer: &OneShot<Self>, now: u64) {
        self.gated
            .store(state.capped || state.admission.is_gated(), Relaxed);
        match state.admission.next(now) {
            TimerAction::Stop if state.armed => {
                state.armed = false;
                timer.disarm();
            }
            TimerAction::Stop => {}
            TimerAction::Wake(ring) => {
                if let Some(waker) = state.rings.get(usize::from(ring)) {
                    self.trace_id.wake(ring);
                    waker.wake();
                }
            }
            TimerAction::ArmAt(at) => {
                state.armed = true;
                timer.arm(at);
            }
        }
    }
}

impl CapMember for Gate {
    fn cap_changed(&self, capped: bool) -> bool {
        let inner = self.inner();
        let mut state = inner.state.lock();
        state.capped = capped;
        inner.capped.store(capped, Relaxed);
        let now = timer::now();
        let wanted = state.admission.release_from_cap(capped, now);
        inner.settle(&mut state, &self.timer, now);
        wanted
    }
}

/// The gate of a disk counts among those of its guest from the creation of this to its drop, which
/// sleeps.
pub(crate) struct CapMembership(Arc<Gate>);

impl CapMembership {
    /// Puts the disk of `gate` under the cap of its guest.
    pub(crate) fn new(gate: Arc<Gate>) -> Self {
        gate.slot.register(gate.clone());
        Self(gate)
    }
}

impl Drop for CapMembership {
    fn drop(&mut self) {
        self.0.slot.unregister();
    }
}

impl Expire for GateTimer {
    fn expired(timer: &OneShot<Self>) {
        let inner = timer.value();
        let mut state = inner.state.lock();
        state.armed = false;
        let now = timer::now();
        inner.settle(&mut state, timer, now);
    }
}
