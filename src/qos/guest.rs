// SPDX-License-Identifier: GPL-2.0

//! A guest: what its disks share.
//!
//! | shared | what for |
//! |---|---|
//! | the cap | one token bucket of all disks, see [`crate::logic::tokens::cap`] |
//! | the frame budget | how many frames of the guest this domain maps or copies at a time |
//! | the back-off | failed connections write to the log, and each has the device opened, so they have to be bounded |
//! | whether it runs | see [`super::run_state`] |
//!
//! Lock: `state`, a spinlock that disables interrupts, because the timer takes it. The gate of a
//! disk is locked under it ([`CapMember::cap_changed`]), never the other way round.
//!
//! The timer is armed only while a disk waits for the cap.

use kernel::{
    prelude::*,
    sync::Arc, //
};

use super::run_state::RunState;
use crate::logic::ids::DiskId;
use crate::logic::ids::DISKS_MAX;
use crate::logic::tokens::admission::CapRef;
use crate::logic::tokens::cap::Cap;
use crate::logic::tokens::limits::Limit;
use crate::logic::tokens::timer_action::TimerAction;
use crate::sys::compat::new_spinlock_irq;
use crate::sys::compat::SpinLockIrq;
use crate::sys::timer;
use crate::sys::timer::Expire;
use crate::sys::timer::OneShot;
use crate::xenbus::domain::DomainState;

/// The longest pause of a guest, in nanoseconds: two failures of 250 ms for each of its disks.
const PAUSE_MAX: u64 = 2 * DISKS_MAX as u64 * 250_000_000;

/// Nanoseconds between two lines of a guest in the log, on the average.
const LOG_INTERVAL: u64 = 250_000_000;

/// How many lines may come at once, in such intervals: as many as most hosts have disks a guest.
const LOG_BURST: u64 = 32 * LOG_INTERVAL;

/// Why a guest's disks have to wait before they connect. The two are kept apart, so that disks that
/// are refused do not hold up the takeover of those that run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Backoff {
    /// A connection was refused, a ring broke, or a frontend closed, for which the device is closed.
    Refused,
    /// An attempt to serve a frontend that is connected failed.
    Retried,
}

/// A disk that is under the cap of its guest.
pub(crate) trait CapMember: Send + Sync + 'static {
    /// The guest has a cap from now on, or none (`capped`), or its cap has tokens again. Returns
    /// false if the disk has no use for them now. Context: up to hard interrupt, with the lock of
    /// the guest held.
    fn cap_changed(&self, capped: bool) -> bool;
}

/// What a slot of the guest's table holds.
enum Slot {
    Free,
    /// A disk is about to register.
    Taken,
    Registered(Arc<dyn CapMember>),
}

impl Slot {
    fn is_free(&self) -> bool {
        matches!(self, Self::Free)
    }

    fn member(&self) -> Option<&Arc<dyn CapMember>> {
        match self {
            Self::Registered(member) => Some(member),
            Self::Free | Self::Taken => None,
        }
    }
}

struct GuestState {
    cap: Cap,
    slots: [Slot; DISKS_MAX],
    /// Frames that each disk has reserved.
    frames: [u32; DISKS_MAX],
    armed: bool,
    /// No disk connects, nor is its device opened, before this time, in nanoseconds of CLOCK_MONOTONIC, for each [`Backoff`].
    backoff_until: [u64; 2],
    /// When the lines that were logged are paid for, in nanoseconds of CLOCK_MONOTONIC.
    logged_until: u64,
}

#[pin_data]
struct GuestTimer {
    #[pin]
    state: SpinLockIrq<GuestState>,
}

/// The disks of one domain.
#[pin_data]
pub(crate) struct Guest {
    domain: u16,
    run_state: RunState,
    #[pin]
    timer: OneShot<GuestTimer>,
}

/// How a guest's cap stands.
pub(crate) struct CapView {
    /// The cap in force, if any.
    pub(crate) limit: Option<Limit>,
    /// Tokens left; negative in debt.
    pub(crate) tokens: i64,
    /// Nanoseconds during which a disk waited for the cap.
    pub(crate) throttled: u64,
}

/// What the other disks of a guest have reserved of its frame budget.
#[derive(Clone, Copy, Default)]
pub(crate) struct Reserved {
    /// Frames.
    pub(crate) frames: u32,
    /// Disks that have reserved any.
    pub(crate) disks: u32,
}

impl Guest {
    /// A guest without disks.
    pub(super) fn new(domain: u16) -> impl PinInit<Self, Error> {
        // The tables are large: each is written in its place, not by way of the stack.
        let state = init!(GuestState {
            cap: const { Cap::new() },
            slots: [const { Slot::Free }; DISKS_MAX],
            frames: [0; DISKS_MAX],
            armed: false,
            backoff_until: [0; 2],
            logged_until: 0,
        });
        let timer = try_pin_init!(GuestTimer {
            state <- new_spinlock_irq!(state, "rblkback::guest"),
        }? Error);
        try_pin_init!(Self {
            domain,
            run_state: RunState::new(),
            timer <- OneShot::new(timer),
        }? Error)
    }

    /// The domain's number.
    pub(super) fn domain(&self) -> u16 {
        self.domain
    }

    /// Does it run? Context: process.
    pub(super) fn run_state(&self) -> DomainState {
        self.run_state.get(self.domain)
    }

    /// Takes a free slot, if there is one.
    pub(super) fn take_slot(&self) -> Option<DiskId> {
        let mut state = self.state().lock();
        let free = state.slots.iter().position(Slot::is_free)?;
        *state.slots.get_mut(free)? = Slot::Taken;
        DiskId::try_from(free).ok()
    }

    /// `member` is the disk of slot `disk`.
    pub(super) fn register(&self, disk: DiskId, member: Arc<dyn CapMember>) {
        self.change(|state| {
            if let Some(slot) = state.slots.get_mut(usize::from(disk)) {
                *slot = Slot::Registered(member);
            }
            // The new disk has yet to hear of a cap that there is.
            true
        });
    }

    /// Frees the slot of `disk`: what it asked for and has reserved counts no more. `gone` runs
    /// with the lock held. Returns the member, to be dropped without a lock, and whether the
    /// guest has no disk any more.
    pub(super) fn unregister(
        &self,
        disk: DiskId,
        gone: impl FnOnce(),
    ) -> (Option<Arc<dyn CapMember>>, bool) {
        let mut member = None;
        let mut empty = true;
        self.change(|state| {
            let now = timer::now();
            gone();
            if let Some(slot) = state.slots.get_mut(usize::from(disk)) {
                if let Slot::Registered(old) = core::mem::replace(slot, Slot::Free) {
                    let _ = old.cap_changed(false);
                    member = Some(old);
                }
            }
            if let Some(frames) = state.frames.get_mut(usize::from(disk)) {
                *frames = 0;
            }
            empty = state.slots.iter().all(Slot::is_free);
            state.cap.leave(disk, now);
            state.cap.request(disk, None, now)
        });
        (member, empty)
    }

    /// `disk`, which no guest has used yet, begins with a request for the cap `limit`. The first
    /// disk of a guest that has no cap brings a full bucket, or one with `saved` tokens.
    pub(super) fn start_cap(&self, disk: DiskId, limit: Option<Limit>, saved: Option<i64>) {
        self.change(|state| {
            let mut disks = state.slots.iter().filter_map(Slot::member);
            let others = disks.next().is_some() && disks.next().is_some();
            if others || state.cap.limit().is_some() {
                return state.cap.request(disk, limit, timer::now());
            }
            state.cap.start(disk, limit, saved, timer::now());
            true
        });
    }

    /// `disk` requests the cap `limit` from now on, or none.
    pub(super) fn request_cap(&self, disk: DiskId, limit: Option<Limit>) {
        self.change(|state| state.cap.request(disk, limit, timer::now()));
    }

    /// How the cap stands.
    pub(super) fn cap_view(&self) -> CapView {
        let now = timer::now();
        let mut state = self.state().lock();
        CapView {
            limit: state.cap.limit(),
            tokens: state.cap.tokens(now),
            throttled: state.cap.meter().throttled(now),
        }
    }

    /// Runs `change` with the cap, if `disk` is still `present`, then wakes or times the disk that
    /// is next.
    pub(super) fn with_cap<R>(
        &self,
        disk: DiskId,
        present: impl FnOnce() -> bool,
        change: impl FnOnce(CapRef<'_>) -> R,
    ) -> R {
        let mut state = self.state().lock();
        let cap = present().then_some((&mut state.cap, disk));
        let outcome = change(cap);
        self.timer.value().settle(&mut state, &self.timer);
        outcome
    }

    /// Reserves frames for `disk`, if it is still `present`, instead of what it had reserved
    /// before: as many as `choose` says. The lock is held meanwhile.
    pub(super) fn reserve_frames<T>(
        &self,
        disk: DiskId,
        present: impl FnOnce() -> bool,
        choose: impl FnOnce(Reserved) -> (u32, T),
    ) -> T {
        let mut state = self.state().lock();
        let mut others = Reserved::default();
        for (slot, frames) in state.frames.iter().enumerate() {
            if *frames > 0 && slot != usize::from(disk) {
                others.frames = others.frames.saturating_add(*frames);
                others.disks = others.disks.saturating_add(1);
            }
        }
        let (amount, outcome) = choose(others);
        if let (true, Some(frames)) = (present(), state.frames.get_mut(usize::from(disk))) {
            *frames = amount;
        }
        outcome
    }

    /// A connection failed, broke or was closed: the next attempt of any disk has to wait, `more` nanoseconds
    /// longer. Context: any.
    pub(super) fn back_off(&self, kind: Backoff, more: u64) {
        let now = timer::now();
        let mut state = self.state().lock();
        if let Some(until) = state.backoff_until.get_mut(kind as usize) {
            let later = (*until).max(now).saturating_add(more);
            *until = later.min(now.saturating_add(PAUSE_MAX));
        }
    }

    /// Nanoseconds to wait before a disk connects; 0: it may. Context: any.
    pub(super) fn backoff_left(&self, kind: Backoff) -> u64 {
        let state = self.state().lock();
        let until = state.backoff_until.get(kind as usize).copied();
        until.unwrap_or(0).saturating_sub(timer::now())
    }

    /// May a line about a disk go to the log? Context: any.
    pub(super) fn may_log(&self) -> bool {
        let now = timer::now();
        let mut state = self.state().lock();
        let paid = state.logged_until.max(now).saturating_add(LOG_INTERVAL);
        let may = paid.saturating_sub(now) <= LOG_BURST;
        if may {
            state.logged_until = paid;
        }
        may
    }

    fn state(&self) -> &SpinLockIrq<GuestState> {
        &self.timer.value().state
    }

    /// Runs `change`, which says whether the cap is another one now; then all disks ask again.
    fn change(&self, change: impl FnOnce(&mut GuestState) -> bool) {
        let mut state = self.state().lock();
        if change(&mut state) {
            let capped = state.cap.limit().is_some();
            for member in state.slots.iter().filter_map(Slot::member) {
                let _ = member.cap_changed(capped);
            }
        }
        self.timer.value().settle(&mut state, &self.timer);
    }
}

impl GuestTimer {
    fn settle(&self, state: &mut GuestState, timer: &OneShot<Self>) {
        loop {
            let now = timer::now();
            match state.cap.next(now) {
                TimerAction::Wake(disk) => {
                    let slot = state.slots.get(usize::from(disk));
                    let capped = state.cap.limit().is_some();
                    let member = slot.and_then(Slot::member);
                    if member.is_some_and(|member| member.cap_changed(capped)) {
                        return;
                    }
                    // One disk less asks: this loop comes to an end.
                    state.cap.leave(disk, now);
                }
                TimerAction::ArmAt(at) => {
                    state.armed = true;
                    timer.arm(at);
                    return;
                }
                TimerAction::Stop => {
                    if core::mem::take(&mut state.armed) {
                        timer.disarm();
                    }
                    return;
                }
            }
        }
    }
}

impl Expire for GuestTimer {
    fn expired(timer: &OneShot<Self>) {
        let inner = timer.value();
        let mut state = inner.state.lock();
        state.armed = false;
        inner.settle(&mut state, timer);
    }
}
