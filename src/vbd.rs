// SPDX-License-Identifier: GPL-2.0

//! One virtual disk, from the moment its directory appears until nothing of it is
//! left.
//!
//! A disk has one work item, queued by whatever happens to it ([`Vbd::kick`]): a
//! key changed, the frontend moved, a ring is drained, the driver lost the device.
//! It looks at how things stand and takes the steps that `logic::lifecycle` names.
//! It may sleep for as long as the device takes, which nobody waits for but an
//! administrator who unbinds a connected disk.
//!
//! Lock order:
//!
//! 1. `state` (mutex): the work item's own; nobody else takes it
//! 2. `told` (mutex): the limit's keys are read and applied
//! 3. a worker's `engine` (mutex)
//! 4. the list of guests (mutex), a guest's state (spinlock, interrupts off), the
//!    gate's state (likewise), the answers in a worker's inbox (spinlock)
//!
//! 5. the lock of all disks (`sys::rounds`, spinlock, interrupts off)
//! 6. `shown` (spinlock, interrupts off)
//!
//! `identity` (spinlock) is a leaf.
//!
//! | file | does |
//! |---|---|
//! | [`opening`] | opens the device that the hotplug script named |
//! | [`steps`] | takes the steps from one phase to the next |
//! | [`upkeep`] | what a disk needs now and then |
//!
//! Who holds what: the driver's data holds the `Vbd`; so do the work item while it
//! is queued and each worker. `state.link` and the gate hold the workers until
//! [`Vbd::release`], which breaks that circle when the last request is answered.
//! The last reference may be dropped by a work item, hence the references to the
//! module and the device.

#![forbid(unsafe_code)]

use kernel::{
    device::Core,
    fmt,
    impl_has_work,
    new_mutex,
    new_spinlock,
    new_spinlock_irq,
    new_work,
    prelude::*,
    str::CString,
    sync::{
        atomic::{
            ordering::{
                Full,
                Relaxed, //
            },
            Atomic,
            AtomicFlag, //
        },
        Arc,
        Completion,
        Mutex,
        SpinLock,
        SpinLockIrq, //
    },
    workqueue::{
        Work,
        WorkItem, //
    }, //
};

mod opening;
mod steps;
mod upkeep;

use crate::connect::Link;
use crate::control::Told;
use crate::datapath::gate::Gate;
use crate::datapath::guest::Seat;
use crate::datapath::stats::Stats;
use crate::datapath::turnstile::Turnstile;
use crate::disk::Disk;
use crate::features::Optional;
use crate::logic::cap::DISKS_MAX;
use crate::logic::index::Overrun;
use crate::logic::lifecycle::Phase;
use crate::logic::limits::Limit;
use crate::logic::limits::Setting;
use crate::logic::number::DeviceNumber;
use crate::logic::queue::RingId;
use crate::sys::module_ref::ModuleRef;
use crate::sys::params;
use crate::sys::queue;
use crate::sys::trace::Name;
use crate::xenbus::device::Device;
use crate::xenbus::device::DeviceRef;
use crate::xenbus::device::State as Announce;
use crate::xenbus::store::Value;

/// What the work item knows. Nobody else takes this lock.
struct State {
    phase: Phase,
    disk: Option<Arc<Disk>>,
    link: Option<Link>,
    /// The value of `physical-device` that was looked at last.
    looked_at: Option<Value>,
    /// The rings were told to hurry.
    hurried: bool,
}

/// A disk as its frontend sees it.
struct Shown {
    disk: Arc<Disk>,
    /// The size that it was told, in sectors of 512 bytes.
    sectors: u64,
}

/// What sysfs shows of the device.
#[derive(Clone, Copy)]
struct Identity {
    number: DeviceNumber,
    mode: &'static str,
}

/// One virtual disk.
#[pin_data]
pub(crate) struct Vbd {
    pub(crate) dev: DeviceRef,
    frontend: CString,
    /// The driver lost the device.
    unbound: AtomicFlag,
    /// A guest has used the disk, or is about to.
    used: AtomicFlag,
    stats: Stats,
    #[pin]
    gate: Gate,
    #[pin]
    turnstile: Turnstile,
    optional: Optional,
    /// Grants that stay mapped and spare pages for copies, on all rings.
    kept: Atomic<i32>,
    /// Rounds that came by.
    rounds: Atomic<u32>,
    /// It is time to look for grants that are not used any more.
    expiring: AtomicFlag,
    /// It is time to write the statistics to the log.
    logging: AtomicFlag,
    /// It is time to write live numbers for the guest.
    publishing: AtomicFlag,
    /// Seconds between two of those; 0: never.
    pub(crate) publish: Atomic<u32>,
    /// The limit of a disk that has no key for one.
    pub(crate) default_limit: Setting,
    /// Memory is short.
    squeezed: AtomicFlag,
    /// After which round that was said last.
    squeezed_in: Atomic<u32>,
    /// What a round looks at.
    #[pin]
    shown: SpinLockIrq<Option<Shown>>,
    #[pin]
    pub(crate) told: Mutex<Told>,
    /// A ring of this connection broke.
    broken: AtomicFlag,
    /// The hotplug script may have named the device.
    named: AtomicFlag,
    #[pin]
    identity: SpinLock<Identity>,
    #[pin]
    state: Mutex<State>,
    /// Unbound, and no ring is mapped nor ever will be.
    #[pin]
    released: Completion,
    #[pin]
    work: Work<Vbd>,
    module: ModuleRef,
}

impl_has_work! {
    impl HasWork<Self> for Vbd { self.work }
}

impl WorkItem for Vbd {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        queue::describe(this.nodename());
        let mut state = this.state.lock();
        this.open_disk(&mut state);
        while this.step(&mut state) {}
        this.keep_up(&mut state);
        if this.unbound.load(Relaxed) && state.link.is_none() {
            this.released.complete_all();
        }
    }
}

impl Vbd {
    /// The disk of `dev`, without a device or a ring yet. Sleeps.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; `ENOSPC` if the guest has too many disks.
    pub(crate) fn new(dev: &Device<Core<'_>>) -> Result<Arc<Self>> {
        let state = State {
            phase: Phase::Waiting,
            disk: None,
            link: None,
            looked_at: None,
            hurried: false,
        };
        let identity = Identity {
            number: DeviceNumber { major: 0, minor: 0 },
            mode: "",
        };
        let frontend = dev.frontend_path()?;
        let name = name(dev);
        let seat = seat(dev)?;
        Arc::pin_init(
            try_pin_init!(Self {
                dev: dev.into(),
                frontend,
                unbound: AtomicFlag::new(false),
                used: AtomicFlag::new(false),
                stats: Stats::new(),
                gate <- Gate::new(seat, name),
                turnstile <- Turnstile::new(),
                optional: Optional::new(),
                kept: Atomic::new(0),
                rounds: Atomic::new(0),
                expiring: AtomicFlag::new(false),
                logging: AtomicFlag::new(false),
                publishing: AtomicFlag::new(false),
                publish: Atomic::new(0),
                default_limit: default_limit(),
                squeezed: AtomicFlag::new(false),
                squeezed_in: Atomic::new(u32::MAX),
                shown <- new_spinlock_irq!(None, "rblkback::shown"),
                told <- new_mutex!(Told::new(), "rblkback::limit"),
                broken: AtomicFlag::new(false),
                named: AtomicFlag::new(true),
                identity <- new_spinlock!(identity, "rblkback::identity"),
                state <- new_mutex!(state, "rblkback::disk"),
                released <- Completion::new(),
                work <- new_work!("rblkback::disk"),
                module: ModuleRef::get(),
            }? Error),
            GFP_KERNEL,
        )
    }

    /// The hotplug script may have named the device. Any context.
    pub(crate) fn device_named(self: &Arc<Self>) {
        self.named.store(true, Relaxed);
        self.kick();
    }

    /// Something changed: have a look, soon. Any context.
    pub(crate) fn kick(self: &Arc<Self>) {
        // Queued already: then it has yet to look.
        let _ = queue::disks().enqueue(self.clone());
    }

    /// The driver loses the device. With `wait`, returns when no ring is mapped any
    /// more and nothing is announced, so that another driver can take over: sleeps for as
    /// long as the device takes to answer what is in flight. Without, what is left goes on
    /// its own.
    pub(crate) fn unbind(self: &Arc<Self>, wait: bool) {
        self.unbound.xchg(true, Full);
        self.kick();
        if wait {
            // By the work item, which sees `unbound`.
            self.released.wait_for_completion();
            self.keep_level();
        }
    }

    /// A frontend published impossible indices on ring `number`. It is left alone
    /// from now on, until it reconnects.
    pub(crate) fn ring_broke(&self, number: RingId, overrun: Overrun) {
        // The first one is enough to know.
        if self.broken.xchg(true, Full) {
            return;
        }
        self.gate.seat().failed();
        self.dev.report(
            EINVAL,
            fmt!(
                "ring {}: req_prod {} is impossible after {} requests; the disk halts until the frontend reconnects",
                number,
                overrun.req_prod,
                overrun.req_cons
            ),
        );
    }

    /// Somebody holds pages of ring `number`, and has for long: the device has answered
    /// `requests` requests that they belong to. Sleeps.
    pub(crate) fn pages_held(&self, number: RingId, requests: usize) {
        self.dev.report(
            EBUSY,
            fmt!(
                "ring {}: the device still holds pages that it is done with; {} requests cannot be answered, and the disk cannot go",
                number,
                requests
            ),
        );
    }

    /// The device, for those who have to keep it.
    pub(crate) fn device(&self) -> DeviceRef {
        self.dev.clone()
    }

    /// Our directory in xenstore.
    pub(crate) fn nodename(&self) -> &CStr {
        self.dev.nodename()
    }

    /// The frontend's directory in xenstore.
    pub(crate) fn frontend(&self) -> &CStr {
        &self.frontend
    }

    /// The frontend's domain.
    pub(crate) fn frontend_id(&self) -> u16 {
        self.dev.frontend_id()
    }

    /// The limit.
    pub(crate) fn gate(&self) -> &Gate {
        &self.gate
    }

    /// Write barriers.
    pub(crate) fn turnstile(&self) -> &Turnstile {
        &self.turnstile
    }

    /// What the device may turn out not to know.
    pub(crate) fn optional(&self) -> &Optional {
        &self.optional
    }

    /// The device cannot do what `operation` asked for: no longer offer it.
    pub(crate) fn withdraw(self: &Arc<Self>, operation: u8) {
        if self.optional.fails(operation) {
            self.kick();
        }
    }

    /// A ring keeps `more` grants mapped or pages for copies, or fewer if negative.
    pub(crate) fn count_kept(&self, more: i32) {
        self.kept.add(more, Relaxed);
    }

    /// The counters.
    pub(crate) fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Has a guest used the disk since this driver has it?
    pub(crate) fn was_connected(&self) -> bool {
        self.used.load(Relaxed)
    }

    /// The device's number; `0:0` before it is known.
    pub(crate) fn identity(&self) -> DeviceNumber {
        self.identity.lock().number
    }

    /// `r`, `w`, or nothing before it is known.
    pub(crate) fn mode(&self) -> &'static str {
        self.identity.lock().mode
    }

    /// Announces `state`, unless the device is somebody else's already.
    pub(crate) fn announce(&self, state: Announce) {
        if !self.unbound.load(Relaxed) {
            self.dev.announce(state);
        }
    }

    /// Leaves `text` in our `error` key and announces Closing.
    pub(crate) fn fail(&self, error: Error, text: fmt::Arguments<'_>) {
        if !self.unbound.load(Relaxed) {
            self.dev.fail(error, text);
        }
    }
}

/// A place for the disk of `dev` among those of its guest.
fn seat(dev: &Device<Core<'_>>) -> Result<Seat> {
    let domain = dev.frontend_id();
    Seat::new(domain).inspect_err(|e| {
        if *e == ENOSPC {
            dev.fail(
                *e,
                fmt!("domain {domain} has {DISKS_MAX} disks already, as many as it can have"),
            );
        }
    })
}

/// How tracepoints name the disk of `dev`.
fn name(dev: &Device<Core<'_>>) -> Name {
    // The number is the last part of its path.
    let mut device = 0u32;
    for byte in dev.nodename().to_bytes_with_nul() {
        device = match byte {
            b'0'..=b'9' => device
                .saturating_mul(10)
                .saturating_add(u32::from(byte.saturating_sub(b'0'))),
            b'/' => 0,
            _ => device,
        };
    }
    Name {
        domain: dev.frontend_id(),
        device,
    }
}

/// The limit that the module parameters give a disk without keys.
fn default_limit() -> Setting {
    let limit = Limit::new(
        params::default_tokens_refill(),
        params::default_tokens_max(),
    );
    limit.map_or(Setting::Unlimited, Setting::Limited)
}
