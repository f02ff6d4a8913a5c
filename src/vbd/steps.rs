// SPDX-License-Identifier: GPL-2.0

//! The disk's work item: the steps that take a disk from one phase of its life to the next.
//!
//! `logic::lifecycle` says which step comes next; here it is taken. What becomes of an error is
//! decided in [`settle`](super::settle).
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
    workqueue::WorkItem, //
};

use super::connection::Connection;
use super::connection::Parties;
use super::disk::AdvertisedSize;
use super::disk::Vbd;
use super::disk::VbdState;
use super::error::VbdError;
use super::features;
use super::look::look;
use super::opening::open_device;
use super::settle::announce;
use super::settle::catch_up;
use super::settle::is_too_early;
use super::settle::look_again;
use super::settle::note_drained;
use super::settle::note_draining;
use super::settle::note_success;
use super::settle::settle;
use super::upkeep;
use crate::datapath::backing_device::BackingDevice;
use crate::logic::lifecycle::decide;
use crate::logic::lifecycle::Frontend;
use crate::logic::lifecycle::Phase;
use crate::logic::lifecycle::Seen;
use crate::logic::lifecycle::Step;
use crate::qos::guest::Backoff;
use crate::sys::workqueue;
use crate::xenbus::device::XenbusState;
use crate::xenbus::removal;

/// Nanoseconds that a device which is closed for a frontend that closed adds to the guest's pause.
const REOPENING_BACKOFF: u64 = 10_000_000;

impl WorkItem for Vbd {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        workqueue::describe(this.nodename());
        let mut state = this.state.lock();
        // What is due every second needs no look at xenstore.
        if this.changed.xchg(false, Full) {
            catch_up(&this, &mut state);
            loop {
                // Before each step: a disk that is closed gives its device back, and needs it again after
                // the next.
                open_device(&this, &mut state);
                if !step(&this, &mut state) {
                    break;
                }
            }
        }
        upkeep::run(&this, &state);
        if this.unbound.load(Relaxed) && state.connection.is_none() {
            // Here, and not with the last reference, which may be dropped in the xenwatch thread.
            drop(state.device.take());
            state.ring_workers.truncate(0);
            // What was reported since the driver lost the device. It is nobody else's yet.
            if this.reported.xchg(false, Full) {
                this.dev().clear_error();
            }
            this.released.complete_all();
        }
    }
}

/// Takes one step; `false` when there is nothing left to do.
fn step(vbd: &Arc<Vbd>, state: &mut VbdState) -> bool {
    let Ok(seen) = look(vbd, state) else {
        look_again(vbd);
        return false;
    };
    if seen.frontend == Frontend::Initialising {
        vbd.note_beginning();
    }
    let step = decide(state.phase, &seen);
    admit_backlog(state, &seen, step);
    match step {
        Step::Rest => {
            note_draining(vbd, state);
            return false;
        }
        Step::Offer => return offer(vbd, state),
        Step::Connect => return connect(vbd, state),
        Step::Stop => {
            if let Some(connection) = &state.connection {
                // Unbound, another driver goes on with the ring, and the guest may run again.
                // Not so when the disk was destroyed: then nobody does.
                connection.stop(!seen.unbound || vbd.dev().is_vanished());
            }
            state.phase = Phase::Draining;
        }
        Step::Release => release(vbd, state),
        Step::AnnounceClosing => {
            announce(vbd, state, XenbusState::Closing);
            return false;
        }
        Step::AnnounceClosed => close(vbd, state),
        Step::Unregister => {
            return leave(vbd, state);
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

/// A frontend begins anew: the offers are those of the module parameters now.
fn offer(vbd: &Vbd, state: &mut VbdState) -> bool {
    if features::offer(vbd.nodename(), false).is_err() {
        look_again(vbd);
        return false;
    }
    announce(vbd, state, XenbusState::InitWait);
    state.phase = Phase::Waiting;
    true
}

/// Has the bus take the device away.
fn leave(vbd: &Vbd, state: &mut VbdState) -> bool {
    // The bus announces Closed in the course of it.
    drop(state.device.take());
    vbd.reported.store(false, Relaxed);
    vbd.dev().clear_error();
    if removal::request(vbd.dev().clone(), vbd.module.clone()).is_err() {
        look_again(vbd);
        return false;
    }
    // No ring is mapped, nor ever will be: the xenwatch thread need not wait for this work item,
    // whose queue may be frozen by then.
    vbd.released.complete_all();
    state.phase = Phase::Leaving;
    true
}

/// Connects to the frontend. Returns `false` if it is not time for that.
// Not inlined, as `open_device`.
#[inline(never)]
fn connect(vbd: &Arc<Vbd>, state: &mut VbdState) -> bool {
    let Some(device) = state.device.clone() else {
        return false;
    };
    let Ok(running) = vbd.is_frontend_connected() else {
        look_again(vbd);
        return false;
    };
    if is_too_early(vbd, state, running) {
        // Later there may be no frontend left to connect to.
        return false;
    }
    state.backlog_admitted = false;
    vbd.broken.store(false, Relaxed);
    vbd.limits.mark_used();
    state.phase = match new_connection(vbd, state, &device, running) {
        Ok(connection) => {
            // Before the first request: what is wrong with the rings from then on has to stay reported.
            note_success(vbd, state);
            connection.start();
            let sectors = connection.sectors();
            log_connection(vbd, &connection);
            state.connection = Some(connection);
            announce(vbd, state, XenbusState::Connected);
            *vbd.advertised.lock() = Some(AdvertisedSize { device, sectors });
            Phase::Connected
        }
        Err(error) => settle(vbd, state, &error),
    };
    true
}

/// One line for the administrator: which driver serves the disk, and how. A guest may reconnect as
/// often as it likes, so the lines of a guest are bounded.
fn log_connection(vbd: &Vbd, connection: &Connection) {
    if !vbd.gate().slot().may_log() {
        return;
    }
    let limit = vbd.gate().view().limit;
    let (refill, max) = limit.map_or((0, 0), |limit| (limit.refill(), limit.max()));
    let name = vbd.nodename();
    if refill > 0 {
        pr_info!("{name}: connected: {connection}, limit {refill}/s (max {max})\n");
    } else {
        pr_info!("{name}: connected: {connection}, no limit\n");
    }
}

fn new_connection(
    vbd: &Arc<Vbd>,
    state: &mut VbdState,
    device: &Arc<BackingDevice>,
    running: bool,
) -> Result<Connection, VbdError> {
    let parties = Parties {
        context: &vbd.context,
        events: vbd.clone(),
        frontend: &vbd.frontend,
        device,
        optional: &vbd.optional,
        running,
    };
    Connection::new(&parties, &mut state.ring_workers)
}

fn release(vbd: &Vbd, state: &mut VbdState) {
    let advertised = vbd.advertised.lock().take();
    drop(advertised);
    if let Some(connection) = state.connection.take() {
        connection.release(&vbd.context);
    }
    note_drained(vbd, state);
    close(vbd, state);
}

/// Gives the device back and announces Closed, in this order: the toolstack may take the device away as
/// soon as it sees Closed, also when the guest was the one that closed, as it does when it powers off.
/// A frontend that begins anew has the device opened again.
fn close(vbd: &Vbd, state: &mut VbdState) {
    if let Some(device) = state.device.take() {
        drop(device);
        // A guest may have that happen as often as it likes, and udev looks at a device that was closed.
        let slot = vbd.gate().slot();
        slot.back_off(Backoff::Refused, REOPENING_BACKOFF);
    }
    vbd.named.store(true, Relaxed);
    vbd.note_beginning();
    announce(vbd, state, XenbusState::Closed);
    state.phase = Phase::Closed;
}
