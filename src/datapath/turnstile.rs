// SPDX-License-Identifier: GPL-2.0

//! Where the rings of a disk wait while a write barrier passes.
//!
//! Lock: `state`, a spinlock, process context only; a leaf. A disk without a barrier
//! costs one load per request.

use kernel::{
    new_spinlock,
    prelude::*,
    sync::{
        atomic::{
            ordering::{
                Acquire,
                Release, //
            },
            AtomicFlag, //
        },
        SpinLock, //
    }, //
};

use crate::logic::barrier::Barrier;
use crate::logic::queue::RingId;

/// The barriers of one disk, see [`crate::logic::barrier`].
#[pin_data]
pub(crate) struct Turnstile {
    /// Of the rings, nobody may take anything.
    closed: AtomicFlag,
    #[pin]
    state: SpinLock<Barrier>,
}

impl Turnstile {
    /// Open, for no rings.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            closed: AtomicFlag::new(false),
            state <- new_spinlock!(Barrier::new(0), "rblkback::turnstile"),
        })
    }

    /// Opens for `rings` new rings.
    pub(crate) fn reset(&self, rings: u32) {
        self.with(|barrier| *barrier = Barrier::new(rings));
    }

    /// Must no ring take anything?
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Acquire)
    }

    /// As [`Barrier::claim`]. Whoever gets `true` has to wake all rings.
    pub(crate) fn claim(&self, ring: RingId) -> bool {
        self.with(|barrier| barrier.claim(ring))
    }

    /// As [`Barrier::quiet`].
    pub(crate) fn quiet(&self, ring: RingId) -> Option<RingId> {
        self.with(|barrier| barrier.quiet(ring))
    }

    /// As [`Barrier::may_go`].
    pub(crate) fn may_go(&self, ring: RingId) -> bool {
        self.with(|barrier| barrier.may_go(ring))
    }

    /// As [`Barrier::done`]. The caller has to wake all rings.
    pub(crate) fn done(&self, ring: RingId) {
        self.with(|barrier| barrier.done(ring));
    }

    fn with<R>(&self, change: impl FnOnce(&mut Barrier) -> R) -> R {
        let mut barrier = self.state.lock();
        let outcome = change(&mut barrier);
        self.closed.store(barrier.is_claimed(), Release);
        outcome
    }
}
