// SPDX-License-Identifier: GPL-2.0

//! A timer that calls all registered objects once a second.
//!
//! All objects share one timer, which is armed while at least one object is registered. The list of
//! objects also serves callers that know an object only by its name.
//!
//! Lock: the list, a spinlock that disables interrupts, because the timer callback takes it. The
//! locks of the timer and of the workqueues are taken under it.

use kernel::{
    new_spinlock_irq,
    prelude::*,
    sync::{
        Arc,
        SpinLockIrq, //
    }, //
};

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

    /// The kernel is short of memory: the object should free what it can spare. The object may read
    /// its state and queue work.
    ///
    /// Context: any, with the lock of the list held and interrupts disabled.
    fn reclaim(self: Arc<Self>);

    /// Returns the object's name, which is unique among the registered objects.
    fn name(&self) -> &CStr;
}

type List = KVec<Arc<dyn Periodic>>;

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
        list <- new_spinlock_irq!(KVec::new(), "rblkback::periodic"),
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

    /// Arms the timer for one period from now.
    fn arm(&self) {
        self.timer.arm(timer::now().saturating_add(PERIOD));
    }
}

impl Expire for Objects {
    fn expired(timer: &OneShot<Self>) {
        let list = timer.value().list.lock();
        for object in list.iter() {
            object.clone().tick();
        }
        if !list.is_empty() {
            timer.arm(timer::now().saturating_add(PERIOD));
        }
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
            let count = timer.list().lock().len();
            let mut larger = KVec::with_capacity(count.saturating_add(1), GFP_KERNEL)?;
            let mut list = timer.list().lock();
            if list.len() >= larger.capacity() {
                // Other objects were registered while the lock was not held.
                continue;
            }
            let first = list.is_empty();
            for other in list.drain_all() {
                // The vector has capacity for the other objects and this one.
                let _ = larger.push_within_capacity(other);
            }
            let _ = larger.push_within_capacity(object.clone());
            core::mem::swap(&mut *list, &mut larger);
            if first {
                timer.arm();
            }
            drop(list);
            drop(larger);
            return Ok(Self { timer, object });
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut list = self.timer.list().lock();
        let mut objects = list.iter();
        let index = objects.position(|other| core::ptr::addr_eq(&**other, &*self.object));
        let removed = index.and_then(|index| list.remove(index).ok());
        let unused = if list.is_empty() {
            self.timer.timer.disarm();
            core::mem::take(&mut *list)
        } else {
            KVec::new()
        };
        // The memory is freed without the lock held.
        drop(list);
        drop((removed, unused));
    }
}

/// Calls [`Periodic::reclaim`] of the object with that name, if it is registered.
///
/// Context: any but hard interrupt: the caller may drop the last reference to the timer.
pub(crate) fn reclaim(name: &CStr) {
    let Some(timer) = TIMER.get() else {
        return;
    };
    let list = timer.list().lock();
    if let Some(object) = list.iter().find(|object| object.name() == name) {
        object.clone().reclaim();
    }
}
