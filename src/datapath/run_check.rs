// SPDX-License-Identifier: GPL-2.0

//! Whether a request may still go to the device: not when its guest has been suspended.
//!
//! A suspended guest sends all requests that have no response again where it goes on. If one of them
//! went to the device from here as well, it could arrive there after something newer.
//!
//! Xen is asked at most once a tick for a guest, and not at all for what is known to be new: a request
//! on a ring that was empty a moment ago was put there by a guest that ran then.

use super::disk_context::DiskContext;
use crate::logic::freshness::Freshness;
use crate::sys::timer;
use crate::xenbus::domain::DomainState;

/// For how many ticks a guest that was seen to run is taken to run: 8 ms at Debian's 250 Hz. No guest
/// is suspended here and goes on elsewhere within that.
const TICKS: usize = 2;

/// What may be done with a request that the device does not have yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The guest runs.
    Submit,
    /// The guest is suspended, and may run again.
    Hold,
    /// The guest never runs again.
    GiveUp,
}

/// When the guest was last seen to run.
pub(super) struct RunCheck(Freshness);

/// A moment, to be taken before the look at a ring that may show that the guest has run since.
#[derive(Clone, Copy)]
pub(super) struct Moment(usize);

impl Moment {
    /// This moment.
    pub(super) fn now() -> Self {
        Self(timer::jiffies())
    }
}

impl RunCheck {
    /// Nothing is known of the guest.
    pub(super) fn new() -> Self {
        Self(Freshness::stale(timer::jiffies(), TICKS))
    }

    /// The ring was empty at that moment, or later: what is on it from then on is younger.
    pub(super) fn saw_empty(&mut self, moment: Moment) {
        self.0.see(moment.0);
    }

    /// What may be done with the requests that are consumed or on the ring now. Context: the thread of
    /// the ring.
    pub(super) fn verdict(&mut self, context: &DiskContext) -> Verdict {
        let now = Moment::now();
        if self.0.is_fresh(now.0) {
            return Verdict::Submit;
        }
        let verdict = ask(context);
        if verdict == Verdict::Submit {
            self.0.see(now.0);
        }
        verdict
    }
}

/// What may be done with requests of the disk's guest, of whatever age. Context: process.
#[cold]
pub(super) fn ask(context: &DiskContext) -> Verdict {
    match context.gate.slot().run_state() {
        DomainState::Running => Verdict::Submit,
        DomainState::ShutDown => Verdict::Hold,
        DomainState::Dying => Verdict::GiveUp,
    }
}
