// SPDX-License-Identifier: GPL-2.0

//! The disk's work item: the steps that take a disk from one phase of its life to the next.
//!
//! `logic::lifecycle` says which step comes next; here it is taken. This file alone decides what
//! becomes of an error ([`refuse`]).
//!
//! Context: all of this runs in the work item, with the lock of `state`; it may sleep for as long
//! as the device takes.

use kernel::{
    prelude::*,
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
    },
    workqueue::WorkItem, //
};

use super::connection::Connection;
use super::connection::Parties;
use super::disk::AdvertisedSize;
use super::disk::Identity;
use super::disk::Vbd;
use super::disk::VbdState;
use super::error::VbdError;
use super::opening;
use super::upkeep;
use crate::datapath::backing_device::BackingDevice;
use crate::logic::lifecycle::decide;
use crate::logic::lifecycle::Frontend;
use crate::logic::lifecycle::Phase;
use crate::logic::lifecycle::Seen;
use crate::logic::lifecycle::Step;
use crate::logic::number::DeviceNumber;
use crate::sys::workqueue;
use crate::xenbus::device::XenbusState;
use crate::xenbus::removal;
use crate::xenbus::store::Value;
use crate::xenbus::store::DIRECT;

impl WorkItem for Vbd {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        workqueue::describe(this.nodename());
        let mut state = this.state.lock();
        open_device(&this, &mut state);
        while step(&this, &mut state) {}
        upkeep::run(&this, &state);
        if this.unbound.load(Relaxed) && state.connection.is_none() {
            this.released.complete_all();
        }
    }
}

/// The disk cannot be served: says why and announces Closing, unless the device is another driver's
/// already.
fn refuse(vbd: &Vbd, error: &VbdError) {
    if !vbd.unbound.load(Relaxed) {
        vbd.dev().fail(error.errno(), fmt!("{}", error));
    }
}

/// Opens the device that the hotplug script named, when that is new.
// Not inlined, so that its stack frame does not add to that of a connection.
#[inline(never)]
fn open_device(vbd: &Vbd, state: &mut VbdState) {
    if vbd.unbound.load(Relaxed) || !vbd.named.xchg(false, Full) {
        return;
    }
    let Ok(Some(text)) = DIRECT.read(vbd.nodename(), c"physical-device") else {
        return;
    };
    let old = state.looked_at.as_ref().map(|old| old.bytes());
    if old == Some(text.bytes()) {
        return;
    }
    let Ok(text) = Arc::new(text, GFP_KERNEL) else {
        return;
    };
    state.looked_at = Some(text.clone());
    if let Err(error) = use_device(vbd, state, text) {
        if matches!(error, VbdError::DeviceChanged { .. }) {
            // The disk goes on with the device that it has.
            vbd.dev().report(error.errno(), fmt!("{}", error));
        } else {
            refuse(vbd, &error);
        }
    }
    if state.device.is_none() {
        state.phase = Phase::Failed;
    }
}

/// Opens the device that `text` names, unless it is open.
fn use_device(vbd: &Vbd, state: &mut VbdState, text: Arc<Value>) -> Result<(), VbdError> {
    let number = DeviceNumber::parse(text.bytes());
    match (&state.device, number) {
        (Some(device), _) if number == Some(device.number()) => {}
        (Some(device), _) => {
            return Err(VbdError::DeviceChanged {
                open: device.number(),
                text,
            });
        }
        (None, Some(number)) => {
            let device = opening::open(vbd.nodename(), number)?;
            let mode = if device.is_read_only() { "r" } else { "w" };
            *vbd.identity.lock() = Identity { number, mode };
            state.device = Some(device);
        }
        (None, None) => return Err(VbdError::DeviceNumber(text)),
    }
    Ok(())
}

/// Takes one step; `false` when there is nothing left to do.
fn step(vbd: &Arc<Vbd>, state: &mut VbdState) -> bool {
    let seen = look(vbd, state);
    let step = decide(state.phase, &seen);
    admit_backlog(state, &seen, step);
    match step {
        Step::Rest => return false,
        Step::Offer => {
            vbd.announce(XenbusState::InitWait);
            state.phase = Phase::Waiting;
        }
        Step::Connect => state.phase = connect(vbd, state),
        Step::Stop => {
            if let Some(connection) = &state.connection {
                connection.stop();
            }
            state.phase = Phase::Draining;
        }
        Step::Release => release(vbd, state),
        Step::AnnounceClosing => {
            vbd.announce(XenbusState::Closing);
            return false;
        }
        Step::AnnounceClosed => {
            vbd.announce(XenbusState::Closed);
            state.phase = Phase::Closed;
        }
        Step::Unregister => {
            if removal::request(vbd.dev().clone(), vbd.module.clone()).is_err() {
                // The toolstack will remove the directory, and the bus the device.
                return false;
            }
            state.phase = Phase::Leaving;
        }
    }
    true
}

/// The toolstack wants the disk back: what is on the rings must not outlast its patience. Only for a
/// guest that is still there: what a dead one left on its ring may run elsewhere by now.
fn admit_backlog(state: &mut VbdState, seen: &Seen, step: Step) {
    let leaving = !seen.online && state.phase == Phase::Connected && step != Step::Stop;
    if leaving && !core::mem::replace(&mut state.backlog_admitted, true) {
        if let Some(connection) = &state.connection {
            connection.admit_backlog();
        }
    }
}

fn look(vbd: &Vbd, state: &VbdState) -> Seen {
    let unbound = vbd.unbound.load(Relaxed);
    // Read before the frontend's state: a toolstack that takes a dead guest's directory away writes
    // that the disk is offline as well, so then the frontend's state is seen to be gone.
    let online = unbound || vbd.dev().is_online();
    let frontend = match &DIRECT.read(&vbd.frontend, c"state") {
        Ok(text) => Frontend::parse(text.as_ref().map(Value::bytes)),
        // A key that cannot be read says nothing about the frontend.
        Err(_) => Frontend::Other,
    };
    let drained = |connection: &Connection| connection.is_drained();
    Seen {
        frontend,
        disk: state.device.is_some(),
        online,
        drained: state.connection.as_ref().is_none_or(drained),
        unbound,
    }
}

// Not inlined, as `open_device`.
#[inline(never)]
fn connect(vbd: &Arc<Vbd>, state: &mut VbdState) -> Phase {
    let Some(device) = state.device.clone() else {
        return state.phase;
    };
    let left = vbd.gate().slot().backoff_left();
    if left > 0 {
        // Then looks again: meanwhile there may be no frontend left to connect to.
        fsleep(Delta::from_nanos(i64::try_from(left).unwrap_or(0)));
        return state.phase;
    }
    state.backlog_admitted = false;
    vbd.broken.store(false, Relaxed);
    vbd.limits.mark_used();
    match new_connection(vbd, &device) {
        Ok((connection, sectors)) => {
            state.connection = Some(connection);
            vbd.announce(XenbusState::Connected);
            *vbd.advertised.lock() = Some(AdvertisedSize { device, sectors });
            Phase::Connected
        }
        Err(error) => {
            refuse(vbd, &error);
            vbd.gate().slot().back_off();
            Phase::Failed
        }
    }
}

fn new_connection(
    vbd: &Arc<Vbd>,
    device: &Arc<BackingDevice>,
) -> Result<(Connection, u64), VbdError> {
    Connection::new(&Parties {
        context: &vbd.context,
        events: vbd.clone(),
        frontend: &vbd.frontend,
        device,
        optional: &vbd.optional,
    })
}

fn release(vbd: &Vbd, state: &mut VbdState) {
    let advertised = vbd.advertised.lock().take();
    drop(advertised);
    if let Some(connection) = state.connection.take() {
        connection.release(&vbd.context);
    }
    vbd.announce(XenbusState::Closed);
    state.phase = Phase::Closed;
}
