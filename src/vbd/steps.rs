// SPDX-License-Identifier: GPL-2.0

//! The steps that take a disk from one phase of its life to the next.
//!
//! `logic::lifecycle` says which comes next; here it is taken, by the disk's work item
//! alone.

#![forbid(unsafe_code)]

use kernel::{
    sync::{
        atomic::ordering::{
            Full,
            Relaxed, //
        },
        Arc, //
    },
    time::{
        delay::fsleep,
        Delta, //
    }, //
};

use super::Shown;
use super::State;
use super::Vbd;
use crate::connect::Link;
use crate::logic::lifecycle::decide;
use crate::logic::lifecycle::Frontend;
use crate::logic::lifecycle::Phase;
use crate::logic::lifecycle::Seen;
use crate::logic::lifecycle::Step;
use crate::sys::timer;
use crate::xenbus::device::State as Announce;
use crate::xenbus::removal;
use crate::xenbus::store;
use crate::xenbus::store::Value;

/// Time between a failed attempt to connect and the next one.
const PAUSE_NS: u64 = 250_000_000;

impl Vbd {
    /// Takes one step; `false` when there is nothing left to do.
    pub(super) fn step(self: &Arc<Self>, state: &mut State) -> bool {
        let seen = self.look(state);
        let step = decide(state.phase, &seen);
        // Only for a guest that is still there: what a dead one left on its ring may
        // run elsewhere by now.
        let going = !seen.online && state.phase == Phase::Connected && step != Step::Stop;
        if going && !state.hurried {
            state.hurried = true;
            if let Some(link) = &state.link {
                link.hurry();
            }
        }
        match step {
            Step::Rest => return false,
            Step::Offer => {
                self.announce(Announce::InitWait);
                state.phase = Phase::Waiting;
            }
            Step::Connect => state.phase = self.connect(state),
            Step::Stop => {
                if let Some(link) = &state.link {
                    link.stop();
                }
                state.phase = Phase::Draining;
            }
            Step::Release => self.release(state),
            Step::AnnounceClosing => {
                self.announce(Announce::Closing);
                return false;
            }
            Step::AnnounceClosed => {
                self.announce(Announce::Closed);
                state.phase = Phase::Closed;
            }
            Step::Unregister => {
                if removal::request(self.device(), self.module.clone()).is_err() {
                    // The toolstack will remove the directory, and the bus the
                    // device.
                    return false;
                }
                state.phase = Phase::Leaving;
            }
        }
        true
    }

    fn look(&self, state: &State) -> Seen {
        let unbound = self.unbound.load(Relaxed);
        let text = store::DIRECT.read(&self.frontend, c"state");
        let frontend = match &text {
            Ok(text) => Frontend::parse(text.as_ref().map(Value::bytes)),
            // Whatever keeps us from reading it says nothing about the frontend.
            Err(_) => Frontend::Other,
        };
        Seen {
            frontend,
            disk: state.disk.is_some(),
            online: unbound || self.dev.is_online(),
            drained: state.link.as_ref().is_none_or(Link::is_drained),
            unbound,
        }
    }

    fn connect(self: &Arc<Self>, state: &mut State) -> Phase {
        let Some(disk) = &state.disk else {
            return state.phase;
        };
        let disk = disk.clone();
        self.pause_after_failure();
        self.linked.xchg(true, Full);
        // Pairs with `unbind`: either we see `unbound`, or that sees `linked`.
        if self.unbound.load(Relaxed) {
            self.linked.store(false, Relaxed);
            return state.phase;
        }
        state.hurried = false;
        {
            // Whoever applies keys to a disk that no guest has used comes before or after.
            let _told = self.told.lock();
            self.used.store(true, Relaxed);
        }
        match Link::connect(self, &disk) {
            Ok((link, sectors)) => {
                state.link = Some(link);
                *self.shown.lock() = Some(Shown { disk, sectors });
                Phase::Connected
            }
            Err(_) => {
                self.failed_at.store(timer::now(), Relaxed);
                self.linked.store(false, Relaxed);
                Phase::Failed
            }
        }
    }

    /// Each failure is worth two lines in the log. A guest that fails on purpose gets
    /// as many attempts as keep that below ten lines a second.
    fn pause_after_failure(&self) {
        let since = timer::now().saturating_sub(self.failed_at.load(Relaxed));
        let left = PAUSE_NS.saturating_sub(since);
        if self.failed_at.load(Relaxed) != 0 && left > 0 {
            fsleep(Delta::from_nanos(i64::try_from(left).unwrap_or(0)));
        }
    }

    fn release(self: &Arc<Self>, state: &mut State) {
        let shown = self.shown.lock().take();
        drop(shown);
        if let Some(link) = state.link.take() {
            link.release(self);
        }
        self.linked.store(false, Relaxed);
        self.announce(Announce::Closed);
        state.phase = Phase::Closed;
    }
}
