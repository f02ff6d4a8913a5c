// SPDX-License-Identifier: GPL-2.0

//! All disks of the module: one slow round over them, word of memory pressure, and what
//! the disks of one guest have reserved together.
//!
//! One timer serves all, armed only while there is somebody to visit: a disk that does
//! nothing costs no timer of its own.
//!
//! Lock: a spinlock that disables interrupts, because the timer takes it; the timer's
//! and the workqueues' own locks are taken under it.

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

/// Nanoseconds between two rounds.
const PERIOD: u64 = 1_000_000_000;

/// Somebody to visit.
pub(crate) trait Member: Send + Sync + 'static {
    /// The round comes by. Hard interrupt context, with the lock of all: only to look,
    /// and to queue whoever has something to do.
    fn visit(self: Arc<Self>);

    /// Memory is short: give back what can be given back. Context as above.
    fn squeeze(self: Arc<Self>);

    /// The domain that it belongs to.
    fn domain(&self) -> u16;

    /// Its name, unlike all others.
    fn name(&self) -> &CStr;
}

struct Entry {
    member: Arc<dyn Member>,
    /// Of its domain's budget.
    reserved: u32,
}

#[pin_data]
struct Members {
    #[pin]
    list: SpinLockIrq<KVec<Entry>>,
}

type Timer = OneShot<Members>;

static TIMER: Global<Timer> = Global::new();

/// Rounds are made from this to the drop of what it gives, which waits for one that is
/// being made. Called once, before anybody can join.
///
/// # Errors
///
/// `ENOMEM`.
pub(crate) fn begin() -> Result<Rounds> {
    let members = try_pin_init!(Members {
        list <- new_spinlock_irq!(KVec::new(), "rblkback::rounds"),
    }? Error);
    Ok(Rounds(
        TIMER.install(KBox::pin_init(Timer::new(members), GFP_KERNEL)?),
    ))
}

/// There are rounds while this lives.
pub(crate) struct Rounds(#[expect(dead_code, reason = "for its drop")] Installed<Timer>);

impl Expire for Members {
    fn expired(timer: &Timer) {
        let list = timer.value().list.lock();
        for entry in list.iter() {
            entry.member.clone().visit();
        }
        if !list.is_empty() {
            timer.arm(timer::now().saturating_add(PERIOD));
        }
    }
}

fn timer() -> &'static Timer {
    TIMER.get()
}

/// A member is visited, and its reservations count, from the creation of this to its
/// drop.
pub(crate) struct Membership(Arc<dyn Member>);

impl Membership {
    /// Sleeps.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(member: Arc<dyn Member>) -> Result<Self> {
        let timer = timer();
        loop {
            let members = timer.value().list.lock().len();
            let mut larger = KVec::with_capacity(members.saturating_add(1), GFP_KERNEL)?;
            let mut list = timer.value().list.lock();
            if list.len() >= larger.capacity() {
                // Others have joined meanwhile.
                continue;
            }
            let first = list.is_empty();
            for entry in list.drain_all() {
                let _ = larger.push_within_capacity(entry);
            }
            let _ = larger.push_within_capacity(Entry {
                member: member.clone(),
                reserved: 0,
            });
            core::mem::swap(&mut *list, &mut larger);
            if first {
                timer.arm(timer::now().saturating_add(PERIOD));
            }
            drop(list);
            drop(larger);
            return Ok(Self(member));
        }
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        let timer = timer();
        let mut list = timer.value().list.lock();
        let at = list.iter().position(|entry| is_same(entry, &*self.0));
        let gone = at.and_then(|at| list.remove(at).ok());
        let spare = if list.is_empty() {
            timer.disarm();
            core::mem::take(&mut *list)
        } else {
            KVec::new()
        };
        drop(list);
        drop((gone, spare));
    }
}

fn is_same(entry: &Entry, member: &dyn Member) -> bool {
    core::ptr::addr_eq(&*entry.member, member)
}

/// Memory is short: lets the member of that name give back what it can. Any context.
pub(crate) fn squeeze(name: &CStr) {
    let list = timer().value().list.lock();
    let mut members = list.iter().map(|entry| &entry.member);
    if let Some(member) = members.find(|member| member.name() == name) {
        member.clone().squeeze();
    }
}

/// What the other members of a domain have reserved.
#[derive(Clone, Copy, Default)]
pub(crate) struct Others {
    /// Of the domain's budget.
    pub(crate) reserved: u32,
    /// How many have reserved anything.
    pub(crate) members: u32,
}

/// Reserves a part of the budget of `member`'s domain, instead of what it had reserved
/// before: as much as `choose` says, which is called with the lock of all.
pub(crate) fn reserve<T>(member: &dyn Member, choose: impl FnOnce(Others) -> (u32, T)) -> T {
    let mut list = timer().value().list.lock();
    let domain = member.domain();
    let mut others = Others::default();
    for entry in list.iter() {
        if entry.reserved > 0 && entry.member.domain() == domain && !is_same(entry, member) {
            others.reserved = others.reserved.saturating_add(entry.reserved);
            others.members = others.members.saturating_add(1);
        }
    }
    let (amount, result) = choose(others);
    let mut own = list.iter_mut();
    if let Some(entry) = own.find(|entry| is_same(entry, member)) {
        entry.reserved = amount;
    }
    result
}
