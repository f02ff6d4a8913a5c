// SPDX-License-Identifier: GPL-2.0

//! The disk: what belongs to it, and what it hears of its rings and of the driver.

use kernel::{
    impl_has_work,
    new_mutex,
    new_spinlock,
    new_work,
    prelude::*,
    str::CString,
    sync::{
        atomic::{
            ordering::{
                Full,
                Relaxed,
                Release, //
            },
            AtomicFlag, //
        },
        Arc,
        Completion,
        Mutex,
        SpinLock, //
    },
    workqueue::Work, //
};

use super::connection::Connection;
use super::features::OptionalFeatures;
use super::limit_control::LimitControl;
use super::ring_workers::RingWorkers;
use super::upkeep_flags::UpkeepFlags;
use crate::datapath::backing_device::BackingDevice;
use crate::datapath::disk_context::DiskContext;
use crate::datapath::disk_context::DiskEvents;
use crate::logic::ids::RingId;
use crate::logic::lifecycle::Frontend;
use crate::logic::lifecycle::Phase;
use crate::logic::number::DeviceNumber;
use crate::logic::protocol::index::Overrun;
use crate::qos::gate::Gate;
use crate::qos::guest::Backoff;
use crate::qos::registry::GuestSlot;
use crate::sys::compat::new_spinlock_irq;
use crate::sys::compat::SpinLockIrq;
use crate::sys::module_ref::ModuleRef;
use crate::sys::trace::TraceId;
use crate::sys::workqueue;
use crate::xenbus::device::DeviceRef;
use crate::xenbus::device::XenbusState;
use crate::xenbus::store::Value;
use crate::xenbus::store::DIRECT;

/// Nanoseconds that a broken ring adds to its guest's pause before a connection: as much as a
/// refused connection does.
const RING_BROKEN_BACKOFF: u64 = 250_000_000;

/// What the work item knows. Nothing else takes its lock.
pub(super) struct VbdState {
    pub(super) phase: Phase,
    pub(super) device: Option<Arc<BackingDevice>>,
    pub(super) connection: Option<Connection>,
    /// Outlive the connection. They refer to the disk: emptied when the driver loses the device.
    pub(super) ring_workers: RingWorkers,
    /// The value of `physical-device` that was looked at last.
    pub(super) looked_at: Option<Arc<Value>>,
    /// The rings were told to admit their backlog.
    pub(super) backlog_admitted: bool,
    /// Attempts to serve the frontend that failed, since the last one that did not.
    pub(super) failures: u32,
    /// When it is to be reported that the rings do not drain, in nanoseconds of CLOCK_MONOTONIC.
    pub(super) draining_due: Option<u64>,
    /// It was.
    pub(super) draining_reported: bool,
    /// A state that could not be announced yet.
    pub(super) unannounced: Option<XenbusState>,
    /// No further attempt before this time, in nanoseconds of CLOCK_MONOTONIC.
    pub(super) retry_at: u64,
}

/// The size of the disk as its frontend was told.
pub(super) struct AdvertisedSize {
    pub(super) device: Arc<BackingDevice>,
    /// Sectors of 512 bytes.
    pub(super) sectors: u64,
}

/// What sysfs shows of the device.
#[derive(Clone, Copy)]
pub(super) struct Identity {
    pub(super) number: DeviceNumber,
    /// `r`, `w`, or nothing before it is known.
    pub(super) mode: &'static str,
}

/// One virtual disk.
#[pin_data]
pub(super) struct Vbd {
    pub(super) context: Arc<DiskContext>,
    /// The frontend's directory in xenstore.
    pub(super) frontend: CString,
    /// The driver lost the device.
    pub(super) unbound: AtomicFlag,
    #[pin]
    pub(super) limits: LimitControl,
    pub(super) optional: OptionalFeatures,
    pub(super) upkeep: UpkeepFlags,
    /// What the timer compares the size of the device with.
    #[pin]
    pub(super) advertised: SpinLockIrq<Option<AdvertisedSize>>,
    /// A ring of this connection broke.
    pub(super) broken: AtomicFlag,
    /// The driver that had the disk before was connected, and the frontend has not begun anew.
    pub(super) taken_over: AtomicFlag,
    /// The frontend has not closed or begun anew since the driver was bound: one that is connected was so
    /// before.
    pub(super) fresh: AtomicFlag,
    /// Something that xenstore or a ring says may have changed since the work item looked.
    pub(super) changed: AtomicFlag,
    /// Something was reported that a connection makes good.
    pub(super) reported: AtomicFlag,
    /// The hotplug script may have named the device.
    pub(super) named: AtomicFlag,
    #[pin]
    pub(super) identity: SpinLock<Identity>,
    #[pin]
    pub(super) state: Mutex<VbdState>,
    /// The disk is unbound, and no ring is mapped nor ever will be.
    #[pin]
    pub(super) released: Completion,
    #[pin]
    work: Work<Vbd>,
    pub(super) module: ModuleRef,
}

impl_has_work! {
    impl HasWork<Self> for Vbd { self.work }
}

impl Vbd {
    /// The disk of `dev`, without a device or a ring yet. `frontend` is the frontend's directory.
    /// `taken_over`: the driver that had the disk before was connected. Sleeps.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(super) fn new(
        dev: DeviceRef,
        frontend: CString,
        slot: GuestSlot,
        taken_over: bool,
    ) -> Result<Arc<Self>> {
        let gate = Arc::pin_init(Gate::new(slot, trace_id(&dev)), GFP_KERNEL)?;
        let context = DiskContext::new(dev.clone(), gate.clone())?;
        let state = VbdState {
            phase: Phase::Waiting,
            device: None,
            connection: None,
            ring_workers: RingWorkers::new(),
            looked_at: None,
            backlog_admitted: false,
            failures: 0,
            draining_due: None,
            draining_reported: false,
            unannounced: None,
            retry_at: 0,
        };
        let identity = Identity {
            number: DeviceNumber { major: 0, minor: 0 },
            mode: "",
        };
        let vbd = pin_init!(Self {
            context,
            frontend,
            unbound: AtomicFlag::new(false),
            limits <- LimitControl::new(dev, gate),
            optional: OptionalFeatures::new(),
            upkeep: UpkeepFlags::new(),
            advertised <- new_spinlock_irq!(None, "rblkback::advertised"),
            broken: AtomicFlag::new(false),
            taken_over: AtomicFlag::new(taken_over),
            fresh: AtomicFlag::new(true),
            changed: AtomicFlag::new(true),
            reported: AtomicFlag::new(false),
            named: AtomicFlag::new(true),
            identity <- new_spinlock!(identity, "rblkback::identity"),
            state <- new_mutex!(state, "rblkback::disk"),
            released <- Completion::new(),
            work <- new_work!("rblkback::disk"),
            module: ModuleRef::get(),
        });
        Arc::pin_init(vbd, GFP_KERNEL)
    }

    /// The device on the bus.
    pub(super) fn dev(&self) -> &DeviceRef {
        &self.context.dev
    }

    /// Our directory in xenstore.
    pub(super) fn nodename(&self) -> &CStr {
        self.dev().nodename()
    }

    /// The limit.
    pub(super) fn gate(&self) -> &Arc<Gate> {
        &self.context.gate
    }

    /// The hotplug script may have named the device. Context: any.
    pub(super) fn device_named(self: &Arc<Self>) {
        self.named.store(true, Relaxed);
        self.kick();
    }

    /// Something changed: queues the work item. Context: any.
    pub(super) fn kick(self: &Arc<Self>) {
        self.changed.store(true, Release);
        self.kick_for_upkeep();
    }

    /// Something is due: queues the work item. Context: any.
    pub(super) fn kick_for_upkeep(self: &Arc<Self>) {
        workqueue::DISKS.enqueue(self.clone());
    }

    /// The driver loses the device. With `wait`, returns when no ring is mapped any more and nothing
    /// is announced, so that another driver can take over: sleeps for as long as the device takes
    /// to answer what is in flight. Without, what is left goes on its own.
    pub(super) fn unbind(self: &Arc<Self>, wait: bool) {
        self.unbound.xchg(true, Full);
        self.kick();
        if wait {
            // The work item completes this when it sees `unbound`.
            self.released.wait_for_completion();
            self.limits.save_levels();
        }
    }

    /// Is the frontend connected, to us or to the driver that had the disk before? Then a guest is
    /// running on the disk, and nothing that we find wrong may take the disk away. (Boot loaders do I/O
    /// and never announce more than Initialised.) Talks to xenstored; sleeps.
    ///
    /// # Errors
    ///
    /// What xenstored answers. Then it may be connected.
    pub(super) fn is_frontend_connected(&self) -> Result<bool> {
        let state = DIRECT.read(&self.frontend, c"state")?;
        let state = Frontend::parse(state.as_ref().map(Value::bytes));
        Ok(self.is_running(state))
    }

    /// The same of a frontend in that state. One that has closed is not believed to be connected until it
    /// is, to us: it could go round what a frontend has to wait for that begins anew.
    pub(super) fn is_running(&self, state: Frontend) -> bool {
        match state {
            Frontend::Connected => self.fresh.load(Relaxed),
            Frontend::Initialised => self.taken_over.load(Relaxed),
            _ => false,
        }
    }

    /// The frontend has closed, or begins anew.
    pub(super) fn note_beginning(&self) {
        self.taken_over.store(false, Relaxed);
        self.fresh.store(false, Relaxed);
    }

    /// Announces `state`, unless the device is another driver's already. Sleeps.
    ///
    /// # Errors
    ///
    /// What xenstored answers; then nothing was announced.
    pub(super) fn announce(&self, state: XenbusState) -> Result {
        if self.unbound.load(Relaxed) {
            return Ok(());
        }
        self.dev().announce(state)
    }
}

impl DiskEvents for Vbd {
    fn ring_drained(self: Arc<Self>, _ring: RingId) {
        self.kick();
    }

    fn ring_broken(&self, ring: RingId, overrun: Overrun) {
        // The first ring that breaks is enough to know.
        if self.broken.xchg(true, Full) {
            return;
        }
        self.gate()
            .slot()
            .back_off(Backoff::Refused, RING_BROKEN_BACKOFF);
        self.reported.store(true, Relaxed);
        self.dev().report(
            EINVAL,
            fmt!(
                "ring {}: req_prod {} is impossible after {} requests; the disk halts until the frontend reconnects",
                ring,
                overrun.req_prod,
                overrun.req_cons
            ),
        );
    }

    fn pages_held(&self, ring: RingId, requests: usize) {
        self.reported.store(true, Relaxed);
        self.dev().report(
            EBUSY,
            fmt!(
                "ring {}: the device still holds pages that it is done with; {} requests cannot be answered, and the disk cannot go",
                ring,
                requests
            ),
        );
    }

    fn unsupported(self: Arc<Self>, operation: u8) {
        if self.optional.fails(operation) {
            self.kick();
        }
    }
}

/// How tracepoints name the disk of `dev`. The device's number is the last part of its path.
fn trace_id(dev: &DeviceRef) -> TraceId {
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
    TraceId {
        domain: dev.frontend_id(),
        device,
    }
}
