// SPDX-License-Identifier: GPL-2.0

//! Whether a guest runs: asked of Xen, at most once a tick for all disks of the guest.

use kernel::{
    prelude::*,
    sync::atomic::{
        ordering::{
            Full,
            Relaxed, //
        },
        Atomic,
        AtomicFlag, //
    }, //
};

use crate::sys::timer;
use crate::xenbus::domain;
use crate::xenbus::domain::DomainState;

/// Xen did not answer, and the log says so.
static REPORTED: AtomicFlag = AtomicFlag::new(false);

/// The last answer and its tick.
///
/// | bits | meaning |
/// |---|---|
/// | 0 to 1 | [`DomainState`], 0: never asked |
/// | above | the low bits of the tick |
pub(super) struct RunState(Atomic<usize>);

impl RunState {
    /// Not asked yet.
    pub(super) const fn new() -> Self {
        Self(Atomic::new(0))
    }

    /// The state of `domain`. One that cannot be asked for is taken to run. Context: process.
    pub(super) fn get(&self, domain: u16) -> DomainState {
        let tick = timer::jiffies() << 2;
        let answer = self.0.load(Relaxed);
        if answer & !3 == tick {
            if let Some(state) = decode(answer) {
                return state;
            }
        }
        let state = domain::state(domain).unwrap_or_else(|error| {
            report(error);
            DomainState::Running
        });
        self.0.store(tick | encode(state), Relaxed);
        state
    }
}

fn encode(state: DomainState) -> usize {
    match state {
        DomainState::Running => 1,
        DomainState::ShutDown => 2,
        DomainState::Dying => 3,
    }
}

fn decode(answer: usize) -> Option<DomainState> {
    match answer & 3 {
        1 => Some(DomainState::Running),
        2 => Some(DomainState::ShutDown),
        3 => Some(DomainState::Dying),
        _ => None,
    }
}

fn report(error: Error) {
    if !REPORTED.load(Relaxed) && !REPORTED.xchg(true, Full) {
        pr_warn!(
            "Xen does not tell this domain which guests are suspended ({error:?}): lift the limit of a guest before it is saved or migrated\n"
        );
    }
}
