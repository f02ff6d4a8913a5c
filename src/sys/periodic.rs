// SPDX-License-Identifier: GPL-2.0

//! One timer that calls every registered object once a second, and at a time of its own if the
//! object has set an alarm.
//!
//! All objects share one timer, which is armed while at least one object is registered. The list of
//! objects also serves callers that know an object only by its name.
//!
//! Lock: the list, a spinlock that disables interrupts, because the timer callback takes it. The
//! locks of the timer and of the workqueues are taken under it.

use kernel::{
    prelude::*,
    sync::Arc, //
};

use super::compat::new_spinlock_irq;
use super::compat::SpinLockIrq;
use super::global::Global;
use super::global::Installed;
use super::timer;
use super::timer::Expire;
use super::timer::OneShot;

/// The time between two calls in nanoseconds.
const PERIOD: u64 = 1_000_000_000;

/// An object that is called once a second.
pub(crate) trait Periodic: Send + Sync + 'static {
    /// A second has passed. The object may read its state and queue work.
    ///
    /// Context: hard interrupt, with the lock of the list held.
    fn tick(self: Arc<Self>);

    /// The time of the alarm has come. Context: as for [`Self::tick`].
    fn alarm(self: Arc<Self>);

    /// The kernel is short of memory: the object should give back what it can spare. Context: as
    /// for [`Self::tick`].
    fn reclaim(self: Arc<Self>);

    /// Returns the object's name, which is unique among the registered objects.
    fn name(&self) -> &CStr;
}

struct Entry {
    object: Arc<dyn Periodic>,
    /// When the object is to be called besides, in nanoseconds of CLOCK_MONOTONIC.
    alarm: Option<u64>,
}

struct List {
    entries: KVec<Entry>,
    /// When the next second is over.
    next_tick: u64,
}

impl List {
    fn position(&self, object: &dyn Periodic) -> Option<usize> {
        let mut entries = self.entries.iter();
        entries.position(|entry| core::ptr::addr_eq(&*entry.object, object))
    }

    /// When the timer has to expire next; `None` without an object.
    fn next_expiry(&self) -> Option<u64> {
        let alarms = self.entries.iter().filter_map(|entry| entry.alarm);
        let first = alarms.min().unwrap_or(u64::MAX);
        (!self.entries.is_empty()).then(|| first.min(self.next_tick))
    }

    /// Calls the objects whose time has come.
    fn call(&mut self, now: u64) {
        let tick = now >= self.next_tick;
        if tick {
            self.next_tick = now.saturating_add(PERIOD);
        }
        for entry in &mut self.entries {
            if entry.alarm.is_some_and(|at| at <= now) {
                entry.alarm = None;
                entry.object.clone().alarm();
            }
            if tick {
                entry.object.clone().tick();
            }
        }
    }
}

#[pin_data]
struct Objects {
    #[pin]
    list: SpinLockIrq<List>,
}

#[pin_data]
struct PeriodicTimer {
    #[pin]
    timer: OneShot<Objects>,
}

static TIMER: Global<PeriodicTimer> = Global::new();

/// Creates the timer. The module calls this before it registers its driver.
///
/// Context: process; sleeps.
///
/// # Errors
///
/// `ENOMEM`; `EBUSY` if there is a timer already.
pub(crate) fn start() -> Result<Running> {
    let objects = try_pin_init!(Objects {
        list <- new_spinlock_irq!(
            List {
                entries: KVec::new(),
                next_tick: 0,
            },
            "rblkback::periodic"
        ),
    }? Error);
    let timer = try_pin_init!(PeriodicTimer {
        timer <- OneShot::new(objects),
    }? Error);
    Ok(Running(TIMER.install(Arc::pin_init(timer, GFP_KERNEL)?)?))
}

/// Keeps the timer for [`Registration::new`] and [`reclaim`].
///
/// Drop sleeps. If no [`Registration`] is left, it waits for a running callback of the timer.
pub(crate) struct Running(#[expect(dead_code, reason = "for its drop")] Installed<PeriodicTimer>);

impl PeriodicTimer {
    /// Returns the list of registered objects.
    fn list(&self) -> &SpinLockIrq<List> {
        &self.timer.value().list
    }
}

/// Arms the timer for what comes next.
fn rearm(timer: &OneShot<Objects>, list: &List) {
    match list.next_expiry() {
        Some(at) => timer.arm(at),
        None => timer.disarm(),
    }
}

impl Expire for Objects {
    fn expired(timer: &OneShot<Self>) {
        let mut list = timer.value().list.lock();
        list.call(timer::now());
        rearm(timer, &list);
    }
}

/// The registration of an object, which is called from the creation of this to its drop.
///
/// Drop may not run in the object's own [`Periodic::tick`] or [`Periodic::reclaim`].
pub(crate) struct Registration {
    timer: Arc<PeriodicTimer>,
    object: Arc<dyn Periodic>,
}

impl Registration {
    /// Registers `object`.
    ///
    /// Context: process; sleeps.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; `ENODEV` if there is no timer, because the module is being unloaded.
    pub(crate) fn new(object: Arc<dyn Periodic>) -> Result<Self> {
        let timer = TIMER.get().ok_or(ENODEV)?;
        loop {
            let count = timer.list().lock().entries.len();
            let mut larger = KVec::with_capacity(count.saturating_add(1), GFP_KERNEL)?;
            let mut list = timer.list().lock();
            if list.entries.len() >= larger.capacity() {
                // Other objects registered while no lock was held.
                continue;
            }
            if list.entries.is_empty() {
                list.next_tick = timer::now().saturating_add(PERIOD);
            }
            for entry in list.entries.drain_all() {
                // The vector has capacity for all of them and one more.
                let _ = larger.push_within_capacity(entry);
            }
            let _ = larger.push_within_capacity(Entry {
                object: object.clone(),
                alarm: None,
            });
            core::mem::swap(&mut list.entries, &mut larger);
            rearm(&timer.timer, &list);
            drop(list);
            drop(larger);
            return Ok(Self { timer, object });
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut list = self.timer.list().lock();
        let at = list.position(&*self.object);
        let gone = at.and_then(|at| list.entries.remove(at).ok());
        let spare = if list.entries.is_empty() {
            core::mem::take(&mut list.entries)
        } else {
            KVec::new()
        };
        rearm(&self.timer.timer, &list);
        drop(list);
        drop((gone, spare));
    }
}

/// Has `object` called at the time `at`, in nanoseconds of CLOCK_MONOTONIC, or earlier if it has set
/// an earlier alarm. Without effect if it is not registered. Context: any.
pub(crate) fn set_alarm(object: &dyn Periodic, at: u64) {
    let Some(timer) = TIMER.get() else {
        return;
    };
    let mut list = timer.list().lock();
    let position = list.position(object);
    if let Some(entry) = position.and_then(|position| list.entries.get_mut(position)) {
        entry.alarm = Some(entry.alarm.map_or(at, |earlier| earlier.min(at)));
        rearm(&timer.timer, &list);
    }
}

/// Has the object of that name give back memory. Context: any.
pub(crate) fn reclaim(name: &CStr) {
    let Some(timer) = TIMER.get() else {
        return;
    };
    let list = timer.list().lock();
    let mut objects = list.entries.iter().map(|entry| &entry.object);
    if let Some(object) = objects.find(|object| object.name() == name) {
        object.clone().reclaim();
    }
}
