// SPDX-License-Identifier: GPL-2.0

//! What becomes of errors: the one place that decides between reporting, refusing and trying again.
//!
//! Context: the disk's work item, with the lock of `state`; all of this talks to xenstored.

use kernel::{
    prelude::*,
    sync::atomic::ordering::{
        Full,
        Relaxed, //
    }, //
};

use super::disk::Vbd;
use super::disk::VbdState;
use super::error::VbdError;
use crate::logic::lifecycle::Phase;
use crate::qos::guest::Backoff;
use crate::sys::periodic;
use crate::sys::timer;
use crate::xenbus::device::XenbusState;

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
/// Nanoseconds after which it is reported that the rings of a disk do not drain: before xl gives up.
const DRAIN_REPORTED: u64 = 5_000_000_000;
/// Nanoseconds until xenstored is asked again after an error.
const LOOK_AGAIN: u64 = 100_000_000;

/// Does what could not be done before because xenstored was busy.
pub(super) fn catch_up(vbd: &Vbd, state: &mut VbdState) {
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
pub(super) fn announce(vbd: &Vbd, state: &mut VbdState, announced: XenbusState) {
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
pub(super) fn settle(vbd: &Vbd, state: &mut VbdState, error: &VbdError) -> Phase {
    if vbd.unbound.load(Relaxed) {
        return Phase::Failed;
    }
    // A frontend that cannot be asked may be connected.
    if error.may_pass() || vbd.is_frontend_connected().unwrap_or(true) {
        retry_later(vbd, state, error);
        if state.phase == Phase::Failed {
            // The last that was announced is Closing.
            announce(vbd, state, XenbusState::InitWait);
        }
        return Phase::Waiting;
    }
    vbd.dev().report(error.errno(), fmt!("{}", error));
    vbd.reported.store(true, Relaxed);
    announce(vbd, state, XenbusState::Closing);
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
        vbd.reported.store(true, Relaxed);
    }
    // The guest may cause attempts that fail with all its disks.
    slot.back_off(Backoff::Retried, RETRY_BACKOFF);
    let pause = RETRY_FIRST << doublings;
    let own = timer::now().saturating_add(pause);
    plan_attempt(vbd, state, own);
}

/// Says what a disk waits for that is to close: a device that does not answer, or a guest that is
/// suspended. xl gives up after 10 s and leaves no more than its directories to tell of it.
pub(super) fn note_draining(vbd: &Vbd, state: &mut VbdState) {
    if state.phase != Phase::Draining || state.draining_reported || vbd.unbound.load(Relaxed) {
        return;
    }
    let now = timer::now();
    let due = *state
        .draining_due
        .get_or_insert(now.saturating_add(DRAIN_REPORTED));
    if now < due {
        periodic::set_alarm(vbd, due);
    } else if !vbd.gate().slot().may_log() {
        let later = now.saturating_add(DRAIN_REPORTED);
        state.draining_due = Some(later);
        periodic::set_alarm(vbd, later);
    } else {
        let device = vbd.identity.lock().number;
        vbd.dev().report(
            EBUSY,
            fmt!("closing: waits for device {device} to answer, or for a suspended guest"),
        );
        state.draining_reported = true;
        vbd.reported.store(true, Relaxed);
    }
}

/// The rings are drained, and what was reported of that is not so any more.
pub(super) fn note_drained(vbd: &Vbd, state: &mut VbdState) {
    state.draining_due = None;
    state.draining_reported = false;
    // Otherwise it is done when the disk is released.
    if !vbd.unbound.load(Relaxed) && vbd.reported.xchg(false, Full) {
        vbd.dev().clear_error();
    }
}

/// An attempt succeeded: what was reported of earlier ones is not so any more.
pub(super) fn note_success(vbd: &Vbd, state: &mut VbdState) {
    state.failures = 0;
    if vbd.reported.xchg(false, Full) {
        vbd.dev().clear_error();
    }
}

/// Is it too early for another attempt to open the device or to connect? Then the work item runs when it
/// is not. `running`: the frontend is connected.
pub(super) fn is_too_early(vbd: &Vbd, state: &mut VbdState, running: bool) -> bool {
    let kind = if running {
        Backoff::Retried
    } else {
        Backoff::Refused
    };
    let pause = vbd.gate().slot().backoff_left(kind);
    let now = timer::now();
    let at = state.retry_at.max(now.saturating_add(pause));
    if at > now {
        plan_attempt(vbd, state, at);
    }
    at > now
}

/// No attempt before `at`, in nanoseconds of CLOCK_MONOTONIC; then the work item runs.
fn plan_attempt(vbd: &Vbd, state: &mut VbdState, at: u64) {
    state.retry_at = at;
    periodic::set_alarm(vbd, at);
}

/// xenstored could not be asked: nothing is known, so the work item looks again a little later.
pub(super) fn look_again(vbd: &Vbd) {
    periodic::set_alarm(vbd, timer::now().saturating_add(LOOK_AGAIN));
}
