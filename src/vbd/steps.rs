// SPDX-License-Identifier: GPL-2.0

//! The steps that take a disk from one phase of its life to the next.
//!
//! `logic::lifecycle` says which comes next; here it is taken, by the disk's work item
//! alone.

#![forbid(unsafe_code)]

use kernel::{
    sync::{
        atomic::ordering::Relaxed,
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
use crate::xenbus::device::State as Announce;
use crate::xenbus::removal;
use crate::xenbus::store;
use crate::xenbus::store::Value;

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
        // Before the frontend's state: who takes a dead guest's directory away says that the
        // disk is offline as well, so then its state is seen to be gone.
        let online = unbound || self.dev.is_online();
        let text = store::DIRECT.read(&self.frontend, c"state");
        let frontend = match &text {
            Ok(text) => Frontend::parse(text.as_ref().map(Value::bytes)),
            // Whatever keeps us from reading it says nothing about the frontend.
            Err(_) => Frontend::Other,
        };
        Seen {
            frontend,
            disk: state.disk.is_some(),
            online,
            drained: state.link.as_ref().is_none_or(Link::is_drained),
            unbound,
        }
    }

    fn connect(self: &Arc<Self>, state: &mut State) -> Phase {
        let Some(disk) = &state.disk else {
            return state.phase;
        };
        let disk = disk.clone();
        let pause = self.gate.seat().pause();
        if pause > 0 {
            // Then looks again: meanwhile there may be nobody left to connect to.
            fsleep(Delta::from_nanos(i64::try_from(pause).unwrap_or(0)));
            return state.phase;
        }
        state.hurried = false;
        self.broken.store(false, Relaxed);
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
                self.gate.seat().failed();
                Phase::Failed
            }
        }
    }

    fn release(self: &Arc<Self>, state: &mut State) {
        let shown = self.shown.lock().take();
        drop(shown);
        if let Some(link) = state.link.take() {
            link.release(self);
        }
        self.announce(Announce::Closed);
        state.phase = Phase::Closed;
    }
}
