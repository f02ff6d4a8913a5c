// SPDX-License-Identifier: GPL-2.0

//! A guest as its disks see it: who else there is, and the cap that they share.
//!
//! A disk takes its seat when it appears and leaves it when the driver lets go of
//! it; the last one takes the guest with it, so that a new domain with an old
//! number inherits nothing.
//!
//! Locks: the list of guests, a mutex; a guest's `state`, a spinlock that disables
//! interrupts, because its timer takes it. Under it a disk's gate is locked
//! ([`Gate::cap_moved`], [`Seat::with`]), never the other way round.
//!
//! The timer is armed only while a disk waits for the cap.
//!
//! [`Gate::cap_moved`]: super::gate::Gate::cap_moved

use kernel::{
    new_mutex,
    new_spinlock_irq,
    prelude::*,
    sync::{
        atomic::{
            ordering::Relaxed,
            AtomicFlag, //
        },
        Arc,
        Mutex,
        SpinLockIrq, //
    }, //
};

use crate::logic::admission::Share;
use crate::logic::cap::Cap;
use crate::logic::cap::DiskId;
use crate::logic::cap::Next;
use crate::logic::cap::DISKS_MAX;
use crate::logic::limits::Limit;
use crate::sys::global::Global;
use crate::sys::global::Installed;
use crate::sys::timer;
use crate::sys::timer::Expire;
use crate::sys::timer::OneShot;
use crate::vbd::Vbd;

/// Nanoseconds between a guest's failed attempt to connect and its next one: as many
/// attempts as keep what it writes to the log below ten lines a second.
const PAUSE: u64 = 250_000_000;

/// All guests.
#[pin_data]
struct List {
    #[pin]
    guests: Mutex<KVec<Arc<Guest>>>,
}

static LIST: Global<List> = Global::new();

/// Disks can be seated from this on. Called once, before the first one.
///
/// # Errors
///
/// `ENOMEM`.
pub(crate) fn begin() -> Result<Guests> {
    let list = pin_init!(List {
        guests <- new_mutex!(KVec::new(), "rblkback::guests"),
    });
    Ok(Guests(LIST.install(KBox::pin_init(list, GFP_KERNEL)?)))
}

/// There is a list of guests while this lives.
pub(crate) struct Guests(#[expect(dead_code, reason = "for its drop")] Installed<List>);

struct State {
    cap: Cap,
    disks: [Place; DISKS_MAX],
    armed: bool,
    /// No disk connects before this time; 0: any time.
    patience: u64,
}

/// What is known of a disk.
enum Place {
    Free,
    /// The disk is on its way.
    Taken,
    Disk(Arc<Vbd>),
}

#[pin_data]
struct Core {
    #[pin]
    state: SpinLockIrq<State>,
}

/// The disks of one domain.
#[pin_data]
struct Guest {
    domain: u16,
    #[pin]
    timer: OneShot<Core>,
}

/// How a guest's cap stands.
pub(crate) struct View {
    /// The cap in force, if any.
    pub(crate) limit: Option<Limit>,
    /// Tokens left; negative in debt.
    pub(crate) tokens: i64,
    /// Nanoseconds during which a disk waited for it.
    pub(crate) throttled: u64,
}

/// A disk's place among those of its guest.
pub(crate) struct Seat {
    guest: Arc<Guest>,
    disk: DiskId,
    /// The place may be another disk's. Changed with the guest's lock.
    vacated: AtomicFlag,
}

impl Seat {
    /// A seat for a new disk of `domain`. Sleeps.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; `ENOSPC` if the domain has [`DISKS_MAX`] disks.
    pub(crate) fn new(domain: u16) -> Result<Self> {
        let mut guests = LIST.get().guests.lock();
        let known = guests.iter().find(|guest| guest.domain == domain);
        let guest = match known {
            Some(guest) => guest.clone(),
            None => {
                let guest = Arc::pin_init(Guest::new(domain), GFP_KERNEL)?;
                let room = guests.len().saturating_add(1);
                let mut more = KVec::with_capacity(room, GFP_KERNEL)?;
                for other in guests.drain_all() {
                    let _ = more.push_within_capacity(other);
                }
                let _ = more.push_within_capacity(guest.clone());
                *guests = more;
                guest
            }
        };
        let disk = guest.timer.value().take_place().ok_or(ENOSPC)?;
        Ok(Self {
            guest,
            disk,
            vacated: AtomicFlag::new(false),
        })
    }

    /// `vbd`, whose seat this is, is here.
    pub(crate) fn occupy(&self, vbd: Arc<Vbd>) {
        self.guest.change(|state| {
            if let Some(place) = state.disks.get_mut(usize::from(self.disk)) {
                *place = Place::Disk(vbd);
            }
            // Whatever there is, it has yet to hear of it.
            true
        });
    }

    /// The disk, which no guest has used yet, begins with this wish for a cap. The
    /// first disk of a guest that has none brings a full bucket, or what was `kept` of one.
    pub(crate) fn begin(&self, wish: Option<Limit>, kept: Option<u32>) {
        self.guest.change(|state| {
            let mut disks = state
                .disks
                .iter()
                .filter(|place| matches!(place, Place::Disk(_)));
            let others = disks.next().is_some() && disks.next().is_some();
            if others || state.cap.limit().is_some() {
                return state.cap.wish(self.disk, wish, timer::now());
            }
            state.cap.start(self.disk, wish, kept, timer::now());
            true
        });
    }

    /// Wishes for this cap, or for none.
    pub(crate) fn wish(&self, wish: Option<Limit>) {
        self.guest
            .change(|state| state.cap.wish(self.disk, wish, timer::now()));
    }

    /// The driver lets go of the disk: its wish counts no more, and neither does it.
    pub(crate) fn vacate(&self) {
        if self.vacated.load(Relaxed) {
            return;
        }
        let mut guests = LIST.get().guests.lock();
        let mut disk = None;
        let mut alone = true;
        self.guest.change(|state| {
            let now = timer::now();
            self.vacated.store(true, Relaxed);
            if let Some(place) = state.disks.get_mut(usize::from(self.disk)) {
                if let Place::Disk(vbd) = core::mem::replace(place, Place::Free) {
                    let _ = vbd.gate().cap_moved(false);
                    disk = Some(vbd);
                }
            }
            alone = state.disks.iter().all(|place| matches!(place, Place::Free));
            state.cap.leave(self.disk, now);
            state.cap.wish(self.disk, None, now)
        });
        let mut all = guests.iter();
        let own = all.position(|guest| Arc::ptr_eq(guest, &self.guest));
        let gone = own.filter(|_| alone).and_then(|at| guests.remove(at).ok());
        drop(guests);
        drop(gone);
        // Maybe the last reference, so not under a spinlock.
        drop(disk);
    }

    /// The guest made a connection fail, or broke one. Each time is worth two lines in the
    /// log, so the next attempt of any of its disks has to wait. Any context.
    pub(crate) fn failed(&self) {
        let now = timer::now();
        let mut state = self.guest.timer.value().state.lock();
        state.patience = state.patience.max(now).saturating_add(PAUSE);
    }

    /// Nanoseconds to wait before a disk of the guest asks this again, at most 250 ms; 0: it
    /// may connect. Two failures for each of its disks make half a minute at worst.
    pub(crate) fn pause(&self) -> u64 {
        let until = self.guest.timer.value().state.lock().patience;
        until.saturating_sub(timer::now()).min(PAUSE)
    }

    /// How the cap stands.
    pub(crate) fn view(&self) -> View {
        let now = timer::now();
        let mut state = self.guest.timer.value().state.lock();
        View {
            limit: state.cap.limit(),
            tokens: state.cap.tokens(now),
            throttled: state.cap.meter().throttled(now),
        }
    }

    /// Runs `change` with the cap, if it is still this disk's, then tells or times
    /// whoever is next.
    pub(super) fn with<R>(&self, change: impl FnOnce(Share<'_>) -> R) -> R {
        let core = self.guest.timer.value();
        let mut state = core.state.lock();
        let outcome = if self.vacated.load(Relaxed) {
            change(None)
        } else {
            change(Some((&mut state.cap, self.disk)))
        };
        core.settle(&mut state, &self.guest.timer);
        outcome
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        // A disk that never got as far as to occupy it.
        self.vacate();
    }
}

impl Guest {
    fn new(domain: u16) -> impl PinInit<Self, Error> {
        let core = try_pin_init!(Core {
            state <- new_spinlock_irq!(
                State {
                    cap: Cap::new(),
                    disks: [const { Place::Free }; DISKS_MAX],
                    armed: false,
                    patience: 0,
                },
                "rblkback::guest"
            ),
        }? Error);
        try_pin_init!(Self {
            domain,
            timer <- OneShot::new(core),
        }? Error)
    }

    /// Runs `change`, which says whether the cap is another one now; then all disks
    /// ask again.
    fn change(&self, change: impl FnOnce(&mut State) -> bool) {
        let core = self.timer.value();
        let mut state = core.state.lock();
        if change(&mut state) {
            let capped = state.cap.limit().is_some();
            for place in &state.disks {
                if let Place::Disk(vbd) = place {
                    let _ = vbd.gate().cap_moved(capped);
                }
            }
        }
        core.settle(&mut state, &self.timer);
    }
}

impl Core {
    fn take_place(&self) -> Option<DiskId> {
        let mut state = self.state.lock();
        let free = state
            .disks
            .iter()
            .position(|place| matches!(place, Place::Free))?;
        *state.disks.get_mut(free)? = Place::Taken;
        DiskId::try_from(free).ok()
    }

    fn settle(&self, state: &mut State, timer: &OneShot<Self>) {
        loop {
            let now = timer::now();
            match state.cap.next(now) {
                Next::Wake(disk) => {
                    let place = state.disks.get(usize::from(disk));
                    let capped = state.cap.limit().is_some();
                    let woken = match place {
                        Some(Place::Disk(vbd)) => vbd.gate().cap_moved(capped),
                        Some(Place::Free | Place::Taken) | None => false,
                    };
                    if woken {
                        return;
                    }
                    // One less to ask: this comes to an end.
                    state.cap.leave(disk, now);
                }
                Next::At(at) => {
                    state.armed = true;
                    timer.arm(at);
                    return;
                }
                Next::Nothing => {
                    if core::mem::take(&mut state.armed) {
                        timer.disarm();
                    }
                    return;
                }
            }
        }
    }
}

impl Expire for Core {
    fn expired(timer: &OneShot<Self>) {
        let core = timer.value();
        let mut state = core.state.lock();
        state.armed = false;
        core.settle(&mut state, timer);
    }
}
