// SPDX-License-Identifier: GPL-2.0

//! Event channels to the other domain, with late EOI.
//!
//! An event stays masked until the backend sends its EOI. A backend that sends the EOI only after
//! the work is done limits a guest that floods it with events: the next event waits for the work.
//! For an EOI that is marked as spurious, the kernel delays the next event of the channel.
//!
//! C header: [`include/xen/events.h`](srctree/include/xen/events.h)

use core::mem::transmute_copy;

use kernel::{
    irq::IrqReturn,
    prelude::*,
    sync::{
        atomic::{
            ordering::{
                Full,
                Relaxed, //
            },
            Atomic,
            AtomicFlag, //
        },
        rcu, //
    }, //
};

use super::bindings;
use super::device::DeviceRef;

/// What a handler returns. The kernel's bindings have the C enum as an integer, or as a type around one.
const IRQ_HANDLED: bindings::irqreturn_t =
    // SAFETY: Either is a C `unsigned int`, of which every value is valid.
    unsafe { transmute_copy(&(IrqReturn::Handled as u32)) };

/// Handles the events of a [`Channel`].
pub(crate) trait Handler: Send + Sync + 'static {
    /// An event has arrived. The channel is masked until [`Channel::eoi`].
    ///
    /// Context: hard interrupt, also on PREEMPT_RT.
    fn event(&self);
}

/// Evidence that an event has arrived. The channel is masked until [`Channel::eoi`] consumes it.
#[must_use]
pub(crate) struct Eoi(());

/// The backend's end of an event channel.
///
/// Drop unbinds the channel. It waits for a running [`Handler::event`] and sleeps.
///
/// # Invariants
///
/// After initialisation, `irq` is bound to this object by
/// `bind_interdomain_evtchn_to_irqhandler_lateeoi`, and `port` is the local port of that event
/// channel. Both stay so until drop.
#[pin_data(PinnedDrop)]
pub(crate) struct Channel<H: Handler> {
    /// The interrupt number, for the EOI.
    irq: Atomic<u32>,
    /// The local port, for notifications.
    port: Atomic<u32>,
    /// Whether an event has arrived since the last [`Channel::take_event`].
    arrived: AtomicFlag,
    handler: H,
    _dev: DeviceRef,
}

impl<H: Handler> Channel<H> {
    /// Binds a local port to port `remote` of the frontend of `dev`.
    ///
    /// Context: process; sleeps.
    ///
    /// # Errors
    ///
    /// Xen's error if the port does not exist or is not open to this domain. `ENXIO` if the local
    /// port cannot be found.
    pub(crate) fn bind(dev: DeviceRef, remote: u32, handler: H) -> impl PinInit<Self, Error> {
        let (xdev, domain) = (dev.as_raw(), dev.frontend_id());
        try_pin_init!(&this in Self {
            irq: Atomic::new(0),
            port: Atomic::new(0),
            arrived: AtomicFlag::new(false),
            handler,
            _dev: dev,
            _: {
                // SAFETY: `xdev` is valid, because `_dev` is a reference to it. All fields are
                // initialised, so the handler may run at once. The object is pinned, and `drop`
                // unbinds the handler before the memory is freed.
                //
                // A handler only wakes a thread. PREEMPT_RT would give the interrupt a thread of its own
                // for that.
                let irq = unsafe {
                    bindings::bind_interdomain_evtchn_to_irqhandler_lateeoi(
                        xdev,
                        remote,
                        Some(Self::interrupt),
                        kernel::bindings::IRQF_NO_THREAD as c_ulong,
                        c"rblkback".as_char_ptr(),
                        this.as_ptr().cast(),
                    )
                };
                if irq < 0 {
                    let error = Error::from_errno(irq);
                    if error == ENOMEM {
                        close_left_connected(domain, remote);
                    }
                    return Err(error);
                }
                let Some(local) = port_of(irq as u32) else {
                    // SAFETY: The call above bound `irq` with this cookie.
                    unsafe { bindings::unbind_from_irqhandler(irq as u32, this.as_ptr().cast()) };
                    return Err(ENXIO);
                };
                // INVARIANT: `irq` was bound above, and `local` is its port. The interrupt handler,
                // which may run already, uses neither field.
                // SAFETY: `this` is valid and initialised, and only shared references to it exist.
                let channel = unsafe { &*this.as_ptr() };
                channel.irq.store(irq as u32, Relaxed);
                channel.port.store(local, Relaxed);
            },
        }? Error)
    }

    /// Sends an event to the frontend.
    ///
    /// Context: any.
    pub(crate) fn notify(&self) {
        // `notify_remote_via_irq` would look up the port on each call, which costs more than the
        // rest of the notification.
        // SAFETY: By the type invariant the port is a local port that this object has bound.
        unsafe { bindings::xbk_notify(self.port.load(Relaxed)) };
    }

    /// Takes the event that has arrived, if any. The caller must call this before it looks for
    /// work: only then does the EOI mean that the work of this event is done.
    ///
    /// Context: any.
    pub(crate) fn take_event(&self) -> Option<Eoi> {
        self.arrived.xchg(false, Full).then_some(Eoi(()))
    }

    /// Sends the EOI, which unmasks the channel. `spurious` says that the event brought no work.
    ///
    /// Context: any in which a spinlock may be taken.
    pub(crate) fn eoi(&self, _event: Eoi, spurious: bool) {
        let irq = self.irq.load(Relaxed);
        // SAFETY: By the type invariant `irq` is bound by this object.
        unsafe { bindings::xbk_irq_lateeoi(irq, spurious) };
    }

    extern "C" fn interrupt(_irq: c_int, cookie: *mut c_void) -> bindings::irqreturn_t {
        // SAFETY: `bind` passed a pinned `Channel<H>` as the cookie. `drop` unbinds the handler,
        // which waits for running ones, before the memory is freed.
        let channel = unsafe { &*cookie.cast::<Self>() };
        channel.arrived.store(true, Relaxed);
        channel.handler.event();
        IRQ_HANDLED
    }
}

#[pinned_drop]
impl<H: Handler> PinnedDrop for Channel<H> {
    fn drop(self: Pin<&mut Self>) {
        let cookie: *const Self = &*self;
        // The call also closes the port.
        // SAFETY: By the type invariant `irq` is bound, with this object as the cookie.
        unsafe {
            bindings::unbind_from_irqhandler(self.irq.load(Relaxed), cookie.cast_mut().cast())
        };
    }
}

/// Returns the local port that `irq` is bound to.
///
/// The kernel exports only the lookup of an irq by its port, so this function tries one port after
/// the other. The time grows with the number of ports of this domain.
fn port_of(irq: u32) -> Option<u32> {
    ports().find(|port| irq_of(*port) == Some(irq))
}

/// Closes the local port that a failed bind has left connected to port `remote` of `domain`.
///
/// `bind_interdomain_evtchn_to_irqhandler_lateeoi` has Xen connect the two ports first. If there is
/// no memory for the interrupt then, it returns `ENOMEM` and leaves them connected
/// (`drivers/xen/events/events_base.c`, Linux 7.3). No other code closes the local port, and while
/// it is open Xen refuses every later bind to the frontend's port.
///
/// To be called at once after a bind that has failed with `ENOMEM`. Xen connects a frontend's port
/// to one local port only, so if that bind has connected it, the port found here is its own. If
/// Xen itself had no memory, nothing was connected. Then this finds a port only if the frontend
/// names the same port to another driver, which is between the two steps of its bind at this moment.
///
/// Context: process; one hypercall for each local port up to that one.
#[cold]
fn close_left_connected(domain: u16, remote: u32) {
    for port in ports() {
        let mut peer = (0, 0);
        // SAFETY: The pointers are valid for writes.
        let connected = unsafe { bindings::xbk_evtchn_peer(port, &mut peer.0, &mut peer.1) };
        if connected < 0 {
            // Past the last port that this domain ever had. Xen also says nothing of a port that it
            // uses itself, as an HVM domain has some: there the search may end too early.
            return;
        }
        if connected == 1 && peer == (domain, remote) && irq_of(port).is_none() {
            // SAFETY: No irq is bound to the port, so no code of this kernel uses it.
            unsafe { bindings::xbk_evtchn_close(port) };
            return;
        }
    }
}

/// Returns the numbers that local ports can have.
fn ports() -> core::ops::Range<u32> {
    // SAFETY: The event channel subsystem is initialised: the module loads in a Xen domain only.
    1..unsafe { bindings::xen_evtchn_nr_channels() }
}

/// Returns the irq that is bound to the local port `port`, which is one of [`ports`].
fn irq_of(port: u32) -> Option<u32> {
    // Another driver may unbind its port at the same time. The kernel frees the data of that port
    // after an RCU grace period.
    let _rcu = rcu::read_lock();
    // SAFETY: `port` is below the number of ports, and `_rcu` keeps its data alive.
    let irq = unsafe { bindings::irq_from_evtchn(port) };
    // -1 stands for none.
    (irq != u32::MAX).then_some(irq)
}
