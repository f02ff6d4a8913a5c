// SPDX-License-Identifier: GPL-2.0

//! Holds the rings of a disk while a write barrier is on its way.
//!
//! Lock: `state`, a spinlock for process context, under which no other is taken. A disk without a
//! barrier costs one load per request.

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
use crate::logic::ids::RingId;

/// The write barriers of one disk, see [`crate::logic::barrier`].
#[pin_data]
pub(crate) struct WriteBarrier {
    /// No ring may consume a request.
    active: AtomicFlag,
    #[pin]
    state: SpinLock<Barrier>,
}

impl WriteBarrier {
    /// No barrier, for no rings.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            active: AtomicFlag::new(false),
            state <- new_spinlock!(Barrier::new(0), "rblkback::write_barrier"),
        })
    }

    /// No barrier, for `rings` new rings.
    pub(crate) fn reset(&self, rings: u32) {
        self.with(|barrier| *barrier = Barrier::new(rings));
    }

    /// Must no ring consume a request? Context: any.
    pub(crate) fn is_active(&self) -> bool {
        self.active.load(Acquire)
    }

    /// As [`Barrier::begin`]. A caller that gets `true` has to wake all rings.
    pub(crate) fn begin(&self, ring: RingId) -> bool {
        self.with(|barrier| barrier.begin(ring))
    }

    /// As [`Barrier::drained`].
    pub(crate) fn drained(&self, ring: RingId) -> Option<RingId> {
        self.with(|barrier| barrier.drained(ring))
    }

    /// As [`Barrier::may_submit`].
    pub(crate) fn may_submit(&self, ring: RingId) -> bool {
        self.with(|barrier| barrier.may_submit(ring))
    }

    /// As [`Barrier::end`]. The caller has to wake all rings.
    pub(crate) fn end(&self, ring: RingId) {
        self.with(|barrier| barrier.end(ring));
    }

    fn with<R>(&self, change: impl FnOnce(&mut Barrier) -> R) -> R {
        let mut barrier = self.state.lock();
        let outcome = change(&mut barrier);
        self.active.store(barrier.is_active(), Release);
        outcome
    }
}
