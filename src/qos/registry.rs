// SPDX-License-Identifier: GPL-2.0

//! All guests, and a disk's slot in the table of its guest.
//!
//! A disk takes its slot when it appears and gives it up when the driver loses the disk. The last
//! disk takes the guest with it, so that a new domain with an old number inherits nothing.
//!
//! Lock: the list of guests, a mutex; the state of a guest is locked under it.

use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        atomic::{
            ordering::Relaxed,
            AtomicFlag, //
        },
        Arc,
        Mutex, //
    }, //
};

use super::guest::Backoff;
use super::guest::CapMember;
use super::guest::CapView;
use super::guest::Guest;
use super::guest::Reserved;
use crate::logic::ids::DiskId;
use crate::logic::tokens::admission::CapRef;
use crate::logic::tokens::limits::Limit;
use crate::sys::global::Global;
use crate::sys::global::Installed;
use crate::xenbus::domain::DomainState;

/// All guests that have disks.
#[pin_data]
struct GuestList {
    #[pin]
    guests: Mutex<KVec<Arc<Guest>>>,
}

static GUESTS: Global<GuestList> = Global::new();

/// Creates the list of guests. The module calls this once, before it registers its driver. Sleeps.
///
/// # Errors
///
/// `ENOMEM`; `EBUSY` if there is a list already.
pub(crate) fn start() -> Result<GuestRegistry> {
    let list = pin_init!(GuestList {
        guests <- new_mutex!(KVec::new(), "rblkback::guests"),
    });
    let list = Arc::pin_init(list, GFP_KERNEL)?;
    Ok(GuestRegistry(GUESTS.install(list)?))
}

/// Keeps the list of guests.
pub(crate) struct GuestRegistry(#[expect(dead_code, reason = "for its drop")] Installed<GuestList>);

impl GuestList {
    /// The guest of `domain`, with a slot of its table for a new disk. Sleeps.
    fn take_slot(&self, domain: u16) -> Result<(Arc<Guest>, DiskId)> {
        let mut guests = self.guests.lock();
        let known = guests.iter().find(|guest| guest.domain() == domain);
        let guest = match known {
            Some(guest) => guest.clone(),
            None => {
                let guest = Arc::pin_init(Guest::new(domain), GFP_KERNEL)?;
                // Not by `push`, whose arithmetic would be a way to panic.
                let capacity = guests.len().saturating_add(1);
                let mut larger = KVec::with_capacity(capacity, GFP_KERNEL)?;
                for other in guests.drain_all() {
                    let _ = larger.push_within_capacity(other);
                }
                let _ = larger.push_within_capacity(guest.clone());
                *guests = larger;
                guest
            }
        };
        // Under the lock of the list, so that the guest does not leave it meanwhile.
        let disk = guest.take_slot().ok_or(ENOSPC)?;
        Ok((guest, disk))
    }

    /// Frees the slot of `disk`; `gone` runs with the lock of the guest. Sleeps.
    fn free_slot(&self, guest: &Arc<Guest>, disk: DiskId, gone: impl FnOnce()) {
        let mut guests = self.guests.lock();
        let (member, empty) = guest.unregister(disk, gone);
        let mut all = guests.iter();
        let own = all.position(|other| Arc::ptr_eq(other, guest));
        let left = own.filter(|_| empty).and_then(|at| guests.remove(at).ok());
        drop(guests);
        // Each may be the last reference.
        drop(left);
        drop(member);
    }
}

/// A disk's slot in the table of its guest.
pub(crate) struct GuestSlot {
    list: Arc<GuestList>,
    guest: Arc<Guest>,
    disk: DiskId,
    /// The slot may be another disk's. Changed with the lock of the guest.
    unregistered: AtomicFlag,
}

impl GuestSlot {
    /// A slot for a new disk of `domain`. Sleeps.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; `ENOSPC` if the domain has [`DISKS_MAX`](crate::logic::ids::DISKS_MAX) disks;
    /// `ENODEV` if the module is on its way out.
    pub(crate) fn new(domain: u16) -> Result<Self> {
        let list = GUESTS.get().ok_or(ENODEV)?;
        let (guest, disk) = list.take_slot(domain)?;
        Ok(Self {
            list,
            guest,
            disk,
            unregistered: AtomicFlag::new(false),
        })
    }

    /// `member` is the disk whose slot this is. It is under the guest's cap from now on.
    pub(crate) fn register(&self, member: Arc<dyn CapMember>) {
        self.guest.register(self.disk, member);
    }

    /// The driver loses the disk: it does not count among those of its guest any more. Sleeps.
    pub(crate) fn unregister(&self) {
        if self.is_registered() {
            let gone = || self.unregistered.store(true, Relaxed);
            self.list.free_slot(&self.guest, self.disk, gone);
        }
    }

    fn is_registered(&self) -> bool {
        !self.unregistered.load(Relaxed)
    }

    /// The disk, which no guest has used yet, begins with a request for this cap. The first disk of
    /// a guest that has no cap brings a full bucket, or one with `saved` tokens.
    pub(crate) fn start_cap(&self, limit: Option<Limit>, saved: Option<i64>) {
        self.guest.start_cap(self.disk, limit, saved);
    }

    /// The disk requests this cap from now on, or none.
    pub(crate) fn request_cap(&self, limit: Option<Limit>) {
        self.guest.request_cap(self.disk, limit);
    }

    /// How the cap stands. Context: any.
    pub(crate) fn cap_view(&self) -> CapView {
        self.guest.cap_view()
    }

    /// Runs `change` with the cap, if the slot is still this disk's, then wakes or times the disk
    /// that is next. Context: any.
    pub(super) fn with_cap<R>(&self, change: impl FnOnce(CapRef<'_>) -> R) -> R {
        let present = || self.is_registered();
        self.guest.with_cap(self.disk, present, change)
    }

    /// Reserves frames of the guest's budget, instead of what this disk had reserved before: as
    /// many as `choose` says of what the other disks have reserved. Context: any; `choose` runs
    /// with a spinlock held.
    pub(crate) fn reserve_frames<T>(&self, choose: impl FnOnce(Reserved) -> (u32, T)) -> T {
        let present = || self.is_registered();
        self.guest.reserve_frames(self.disk, present, choose)
    }

    /// A connection of the guest failed, or broke: the next one of any of its disks has to wait,
    /// `more` nanoseconds longer. Context: any.
    pub(crate) fn back_off(&self, kind: Backoff, more: u64) {
        self.guest.back_off(kind, more);
    }

    /// May a line about a disk of the guest go to the log? A guest has four such lines a second on the
    /// average, and 32 at once. Context: any.
    pub(crate) fn may_log(&self) -> bool {
        self.guest.may_log()
    }

    /// Does the guest run? Asks Xen, unless it was asked in this tick. A guest of which Xen does not say
    /// is taken to run. Context: process.
    pub(crate) fn run_state(&self) -> DomainState {
        self.guest.run_state()
    }

    /// Nanoseconds to wait before the disk connects; 0: it may. Context: any.
    pub(crate) fn backoff_left(&self, kind: Backoff) -> u64 {
        self.guest.backoff_left(kind)
    }
}

impl Drop for GuestSlot {
    fn drop(&mut self) {
        // For a disk that never got as far as to register.
        self.unregister();
    }
}
