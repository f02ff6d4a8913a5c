// SPDX-License-Identifier: GPL-2.0

//! The disk's work item: the steps that take a disk from one phase of its life to the next.
//!
//! `logic::lifecycle` says which step comes next; here it is taken. This file alone decides what
//! becomes of an error ([`settle`]).
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
use super::disk::Identity;
use super::disk::Vbd;
use super::disk::VbdState;
use super::error::VbdError;
use super::features;
use super::opening;
use super::upkeep;
use crate::datapath::backing_device::BackingDevice;
use crate::logic::lifecycle::decide;
use crate::logic::lifecycle::Frontend;
use crate::logic::lifecycle::Phase;
use crate::logic::lifecycle::Seen;
use crate::logic::lifecycle::Step;
use crate::logic::number::decimal;
use crate::logic::number::DeviceNumber;
use crate::qos::guest::Backoff;
use crate::sys::periodic;
use crate::sys::timer;
use crate::sys::workqueue;
use crate::xenbus::device::XenbusState;
use crate::xenbus::removal;
use crate::xenbus::store::Value;
use crate::xenbus::store::DIRECT;

/// Nanoseconds that a refused connection adds to its guest's pause: as many attempts as keep what
/// the guest writes to the log below ten lines a second.
const REFUSAL_BACKOFF: u64 = 250_000_000;
/// Nanoseconds that a failed attempt to serve a running guest adds to the guest's pause.
const RETRY_BACKOFF: u64 = 2_000_000;
/// Nanoseconds from the first failed attempt to the next. Each failure doubles it.
const RETRY_FIRST: u64 = 8_000_000;
/// How often it doubles: to about a second.
const RETRY_DOUBLINGS: u32 = 7;
/// Failures before the first report.
const REPORTED_FAILURES: u32 = 4;
/// Nanoseconds until xenstored is asked again after an error.
const LOOK_AGAIN: u64 = 100_000_000;

impl WorkItem for Vbd {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        workqueue::describe(this.nodename());
        let mut state = this.state.lock();
        catch_up(&this, &mut state);
        open_device(&this, &mut state);
        while step(&this, &mut state) {}
        upkeep::run(&this, &state);
        if this.unbound.load(Relaxed) && state.connection.is_none() {
            // Here, and not with the last reference, which may be dropped in the xenwatch thread.
            drop(state.device.take());
            this.released.complete_all();
        }
    }
}

/// Does what could not be done before because xenstored was busy.
fn catch_up(vbd: &Vbd, state: &mut VbdState) {
    if vbd.unbound.load(Relaxed) {
        return;
    }
    if vbd.limits.is_stale() && vbd.limits.update().is_err() {
        look_again(vbd);
    }
    if let Some(unannounced) = state.unannounced.take() {
        announce(vbd, state, unannounced);
    }
}

/// Announces a state, or has it announced a little later if xenstored is busy.
fn announce(vbd: &Vbd, state: &mut VbdState, announced: XenbusState) {
    state.unannounced = None;
    if vbd.announce(announced).is_err() {
        state.unannounced = Some(announced);
        look_again(vbd);
    }
}

/// What becomes of an error: the one place that decides it.
///
/// | the frontend is | outcome |
/// |---|---|
/// | connected: a guest runs on the disk | a report, and another attempt a little later |
/// | not connected, the error may pass | likewise |
/// | not connected | a report and Closing: the disk is refused |
///
/// Nothing is announced for a device that is another driver's already.
fn settle(vbd: &Vbd, state: &mut VbdState, error: &VbdError) -> Phase {
    if vbd.unbound.load(Relaxed) {
        return Phase::Failed;
    }
    // A frontend that cannot be asked may be connected.
    if error.may_pass() || vbd.is_frontend_connected().unwrap_or(true) {
        retry_later(vbd, state, error);
        return Phase::Waiting;
    }
    vbd.dev().fail(error.errno(), fmt!("{}", error));
    state.reported = true;
    let slot = vbd.gate().slot();
    slot.back_off(Backoff::Refused, REFUSAL_BACKOFF);
    Phase::Failed
}

/// Plans another attempt. Reports the fourth failure, the eighth and so on: what passes within a few
/// milliseconds is not worth a line, and the attempts go on for as long as the guest does.
fn retry_later(vbd: &Vbd, state: &mut VbdState, error: &VbdError) {
    let doublings = state.failures.min(RETRY_DOUBLINGS);
    state.failures = state.failures.saturating_add(1);
    let slot = vbd.gate().slot();
    let is_due = state.failures >= REPORTED_FAILURES && state.failures.is_power_of_two();
    if is_due && slot.may_log() {
        let errno = error.errno();
        vbd.dev().report(errno, fmt!("{}; trying again", error));
        state.reported = true;
    }
    // The guest may cause attempts that fail with all its disks.
    slot.back_off(Backoff::Retried, RETRY_BACKOFF);
    let pause = RETRY_FIRST << doublings;
    let own = timer::now().saturating_add(pause);
    plan_attempt(vbd, state, own);
}

/// An attempt succeeded: what was reported of earlier ones is not so any more.
fn note_success(vbd: &Vbd, state: &mut VbdState) {
    state.failures = 0;
    if core::mem::take(&mut state.reported) {
        vbd.dev().clear_error();
    }
}

/// No attempt before `at`, in nanoseconds of CLOCK_MONOTONIC; then the work item runs.
fn plan_attempt(vbd: &Vbd, state: &mut VbdState, at: u64) {
    state.retry_at = at;
    periodic::set_alarm(vbd, at);
}

/// Opens the device that the hotplug script named, if that is new or could not be opened yet.
// Not inlined, so that its stack frame does not add to that of a connection.
#[inline(never)]
fn open_device(vbd: &Vbd, state: &mut VbdState) {
    if vbd.unbound.load(Relaxed) || state.phase == Phase::Leaving || !vbd.named.load(Relaxed) {
        return;
    }
    if state.device.is_none() && timer::now() < state.retry_at {
        // The alarm is set.
        return;
    }
    let Ok(seen) = look(vbd, state) else {
        return look_again(vbd);
    };
    if !seen.online || !vbd.named.xchg(false, Full) {
        return;
    }
    let text = match read_physical_device(vbd) {
        Ok(Some(text)) => text,
        // The hotplug script has yet to write it.
        Ok(None) => return,
        Err(_) => {
            vbd.named.store(true, Relaxed);
            return look_again(vbd);
        }
    };
    let old = state.looked_at.as_ref().map(|old| old.bytes());
    if let Some(device) = state.device.as_ref().filter(|_| old == Some(text.bytes())) {
        return check_mode(vbd, device);
    }
    state.looked_at = Some(text.clone());
    match use_device(vbd, state, text) {
        Ok(()) => note_success(vbd, state),
        // The disk goes on with the device that it has.
        Err(error) if state.device.is_some() => {
            vbd.dev().report(error.errno(), fmt!("{}", error));
        }
        Err(error) => {
            state.phase = settle(vbd, state, &error);
            if state.phase == Phase::Waiting {
                vbd.named.store(true, Relaxed);
            }
        }
    }
}

fn read_physical_device(vbd: &Vbd) -> Result<Option<Arc<Value>>> {
    let text = DIRECT.read(vbd.nodename(), c"physical-device")?;
    let text = text.map(|text| Arc::new(text, GFP_KERNEL)).transpose()?;
    Ok(text)
}

/// xenstored could not be asked: nothing is known, so the work item looks again a little later.
fn look_again(vbd: &Vbd) {
    periodic::set_alarm(vbd, timer::now().saturating_add(LOOK_AGAIN));
}

/// Says so if the mode is another one than the device was opened with.
fn check_mode(vbd: &Vbd, device: &BackingDevice) {
    let word = |read_only| if read_only { "r" } else { "w" };
    let given = device.is_given_read_only();
    if opening::read_mode(vbd.nodename()).is_ok_and(|read_only| read_only != given) {
        let (old, new) = (word(given), word(!given));
        vbd.dev().report(
            EBUSY,
            fmt!("mode cannot change from {old} to {new} while the disk is attached"),
        );
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
    let Ok(seen) = look(vbd, state) else {
        look_again(vbd);
        return false;
    };
    let step = decide(state.phase, &seen);
    admit_backlog(state, &seen, step);
    match step {
        Step::Rest => return false,
        Step::Offer => return offer(vbd, state),
        Step::Connect => return connect(vbd, state),
        Step::Stop => {
            if let Some(connection) = &state.connection {
                connection.stop();
            }
            state.phase = Phase::Draining;
        }
        Step::Release => release(vbd, state, seen.online),
        Step::AnnounceClosing => {
            announce(vbd, state, XenbusState::Closing);
            return false;
        }
        Step::AnnounceClosed => close(vbd, state, seen.online),
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

/// How things stand.
///
/// # Errors
///
/// What xenstored answers. Then nothing is known, and nothing may be concluded.
fn look(vbd: &Vbd, state: &VbdState) -> Result<Seen> {
    let unbound = vbd.unbound.load(Relaxed);
    let drained = |connection: &Connection| connection.is_drained();
    let drained = state.connection.as_ref().is_none_or(drained);
    let disk = state.device.is_some();
    if unbound {
        // The keys are another driver's, and nothing depends on them any more.
        return Ok(Seen {
            frontend: Frontend::Gone,
            disk,
            online: true,
            drained,
            unbound,
        });
    }
    // Read before the frontend's state: a toolstack that takes a dead guest's directory away writes
    // that the disk is offline as well, so then the frontend's state is seen to be gone.
    let online = read_online(vbd)?;
    let text = DIRECT.read(&vbd.frontend, c"state")?;
    let frontend = Frontend::parse(text.as_ref().map(Value::bytes));
    Ok(Seen {
        frontend,
        disk,
        // As xen-blkback has it: without the key, a disk goes when its frontend has closed.
        online: online.unwrap_or(frontend != Frontend::Closed),
        drained,
        unbound,
    })
}

/// Does the toolstack want the disk to stay? `None` if it has not written that. Sleeps.
fn read_online(vbd: &Vbd) -> Result<Option<bool>> {
    let text = DIRECT.read(vbd.nodename(), c"online")?;
    Ok(text.map(|text| decimal(text.bytes(), u32::MAX).is_some_and(|online| online != 0)))
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
    vbd.dev().clear_error();
    // No ring is mapped, nor ever will be: the xenwatch thread need not wait for this work item,
    // whose queue may be frozen by then.
    vbd.released.complete_all();
    if removal::request(vbd.dev().clone(), vbd.module.clone()).is_err() {
        look_again(vbd);
        return false;
    }
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
    let now = timer::now();
    let Ok(running) = vbd.is_frontend_connected() else {
        look_again(vbd);
        return false;
    };
    let kind = if running {
        Backoff::Retried
    } else {
        Backoff::Refused
    };
    let pause = vbd.gate().slot().backoff_left(kind);
    let at = state.retry_at.max(now.saturating_add(pause));
    if at > now {
        // Meanwhile there may be no frontend left to connect to.
        plan_attempt(vbd, state, at);
        return false;
    }
    state.backlog_admitted = false;
    vbd.broken.store(false, Relaxed);
    vbd.limits.mark_used();
    state.phase = match new_connection(vbd, &device, running) {
        Ok(connection) => {
            note_success(vbd, state);
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
    device: &Arc<BackingDevice>,
    running: bool,
) -> Result<Connection, VbdError> {
    Connection::new(&Parties {
        context: &vbd.context,
        events: vbd.clone(),
        frontend: &vbd.frontend,
        device,
        optional: &vbd.optional,
        running,
    })
}

fn release(vbd: &Vbd, state: &mut VbdState, online: bool) {
    let advertised = vbd.advertised.lock().take();
    drop(advertised);
    if let Some(connection) = state.connection.take() {
        connection.release(&vbd.context);
    }
    close(vbd, state, online);
}

/// Announces Closed. A disk that is to go gives its device back first: the toolstack may take the
/// device away as soon as it sees Closed.
fn close(vbd: &Vbd, state: &mut VbdState, online: bool) {
    if !online {
        drop(state.device.take());
        // A toolstack that changes its mind finds the device opened again.
        vbd.named.store(true, Relaxed);
    }
    announce(vbd, state, XenbusState::Closed);
    state.phase = Phase::Closed;
}
