// SPDX-License-Identifier: GPL-2.0

//! One timer that calls every registered object once a second.
//!
//! The timer is armed only while an object is registered: an object that has nothing to do costs
//! no timer of its own. The same list serves to find an object by its name, for callers that have
//! no reference to it.
//!
//! Lock: the list, a spinlock that disables interrupts, because the timer takes it. The locks of
//! the timer and of the workqueues are taken under it.

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

/// Nanoseconds between two calls.
const PERIOD: u64 = 1_000_000_000;

/// An object that is called once a second.
pub(crate) trait Periodic: Send + Sync + 'static {
    /// A second has passed. Context: hard interrupt, with the lock of the list held. The object
    /// may only look, and queue work.
    fn tick(self: Arc<Self>);

    /// The kernel is short of memory: the object should give back what it can spare. Context: as
    /// for [`Self::tick`].
    fn reclaim(self: Arc<Self>);

    /// The object's name. No two objects have the same one.
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

/// Creates the timer. The module calls this once, before any object can register. Sleeps.
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

/// Keeps the timer. Drop waits for a call that is under way.
pub(crate) struct Running(#[expect(dead_code, reason = "for its drop")] Installed<PeriodicTimer>);

impl PeriodicTimer {
    fn list(&self) -> &SpinLockIrq<List> {
        &self.timer.value().list
    }

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

/// An object is called from the creation of this to its drop.
pub(crate) struct Registration {
    timer: Arc<PeriodicTimer>,
    object: Arc<dyn Periodic>,
}

impl Registration {
    /// Registers `object`. Sleeps.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; `ENODEV` if the module is on its way out.
    pub(crate) fn new(object: Arc<dyn Periodic>) -> Result<Self> {
        let timer = TIMER.get().ok_or(ENODEV)?;
        loop {
            let count = timer.list().lock().len();
            let mut larger = KVec::with_capacity(count.saturating_add(1), GFP_KERNEL)?;
            let mut list = timer.list().lock();
            if list.len() >= larger.capacity() {
                // Other objects registered while no lock was held.
                continue;
            }
            let first = list.is_empty();
            for other in list.drain_all() {
                // The vector has capacity for all of them and one more.
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
        let at = objects.position(|other| core::ptr::addr_eq(&**other, &*self.object));
        let gone = at.and_then(|at| list.remove(at).ok());
        let spare = if list.is_empty() {
            self.timer.timer.disarm();
            core::mem::take(&mut *list)
        } else {
            KVec::new()
        };
        drop(list);
        drop((gone, spare));
    }
}

/// Has the object of that name give back memory. Context: any.
pub(crate) fn reclaim(name: &CStr) {
    let Some(timer) = TIMER.get() else {
        return;
    };
    let list = timer.list().lock();
    if let Some(object) = list.iter().find(|object| object.name() == name) {
        object.clone().reclaim();
    }
}
