// SPDX-License-Identifier: GPL-2.0

//! An event channel to the other domain, with late EOI.
//!
//! An event stays masked until its EOI is sent. Whoever sends the EOI only when
//! the work is done makes a guest that floods its backend with events wait for
//! itself. An EOI that says "spurious" makes Xen's Linux side delay the guest's
//! next event.
//!
//! C header: [`include/xen/events.h`](srctree/include/xen/events.h)

use kernel::{
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

/// What to do when an event arrives.
pub(crate) trait Handler: Send + Sync + 'static {
    /// Runs in hard interrupt context: must not sleep. No further event comes
    /// until the EOI of this one ([`Channel::eoi`]).
    fn event(&self);
}

/// An event arrived and is masked until this is given to [`Channel::eoi`].
#[must_use]
pub(crate) struct Eoi(());

/// The backend's end of an event channel, from its creation to its drop.
///
/// Drop waits for a running [`Handler::event`] and sleeps.
///
/// # Invariants
///
/// Once initialised, `irq` is bound to this object by
/// `bind_interdomain_evtchn_to_irqhandler_lateeoi` until drop, and `port` is our end of the
/// event channel that it stands for.
#[pin_data(PinnedDrop)]
pub(crate) struct Channel<H: Handler> {
    /// By which its EOI is sent.
    irq: Atomic<u32>,
    /// By which events are sent.
    port: Atomic<u32>,
    /// An event arrived, and nobody has taken it.
    arrived: AtomicFlag,
    handler: H,
    _dev: DeviceRef,
}

impl<H: Handler> Channel<H> {
    /// Binds to port `remote` of the device's frontend. May sleep.
    ///
    /// # Errors
    ///
    /// What Xen answers: there is no such port, or it is not meant for us. `ENXIO` if the
    /// kernel does not know which port of ours it has bound.
    pub(crate) fn bind(dev: DeviceRef, remote: u32, handler: H) -> impl PinInit<Self, Error> {
        let xdev = dev.as_raw();
        try_pin_init!(&this in Self {
            irq: Atomic::new(0),
            port: Atomic::new(0),
            arrived: AtomicFlag::new(false),
            handler,
            _dev: dev,
            _: {
                // SAFETY: All fields are initialised, so the handler may run at
                // once; `this` is pinned and stays until `drop` has unbound it.
                let irq = unsafe {
                    bindings::bind_interdomain_evtchn_to_irqhandler_lateeoi(
                        xdev,
                        remote,
                        Some(Self::interrupt),
                        0,
                        c"rblkback".as_char_ptr(),
                        this.as_ptr().cast(),
                    )
                };
                if irq < 0 {
                    return Err(Error::from_errno(irq));
                }
                let Some(local) = port_of(irq as u32) else {
                    // SAFETY: Bound just now with this cookie.
                    unsafe { bindings::unbind_from_irqhandler(irq as u32, this.as_ptr().cast()) };
                    return Err(ENXIO);
                };
                // INVARIANT: Bound just now. The handler reads neither.
                // SAFETY: `this` is valid; the fields are atomics.
                let channel = unsafe { &*this.as_ptr() };
                channel.irq.store(irq as u32, Relaxed);
                channel.port.store(local, Relaxed);
            },
        }? Error)
    }

    /// Tells the other domain that there is something to see.
    pub(crate) fn notify(&self) {
        // By port: to look the irq up costs more than all else of this.
        // SAFETY: By the type invariant, the port is ours.
        unsafe { bindings::xbk_notify(self.port.load(Relaxed)) };
    }

    /// Takes the event that arrived, if any. To be called before looking for work, so
    /// that the EOI goes to whoever looked after the event.
    pub(crate) fn take_event(&self) -> Option<Eoi> {
        self.arrived.xchg(false, Full).then_some(Eoi(()))
    }

    /// Lets the next event through. `spurious`: this one was for nothing.
    pub(crate) fn eoi(&self, _event: Eoi, spurious: bool) {
        let irq = self.irq.load(Relaxed);
        // SAFETY: By the type invariant, `irq` is ours; an `Eoi` is made once per event.
        unsafe { bindings::xbk_irq_lateeoi(irq, spurious) };
    }

    extern "C" fn interrupt(_irq: c_int, cookie: *mut c_void) -> bindings::irqreturn_t {
        // SAFETY: The cookie is a live `Channel<H>`: `drop` unbinds, which waits for
        // running handlers, before the memory goes.
        let channel = unsafe { &*cookie.cast::<Self>() };
        channel.arrived.store(true, Relaxed);
        channel.handler.event();
        bindings::irqreturn::IRQ_HANDLED
    }
}

#[pinned_drop]
impl<H: Handler> PinnedDrop for Channel<H> {
    fn drop(self: Pin<&mut Self>) {
        let cookie: *const Self = &*self;
        // SAFETY: By the type invariant, bound with this cookie. Closes the port.
        unsafe {
            bindings::unbind_from_irqhandler(self.irq.load(Relaxed), cookie.cast_mut().cast())
        };
    }
}

/// The port that `irq` is bound to. The kernel tells only the opposite, so this asks for each
/// port until it is the right one: the more of them dom0 has, the longer it takes.
fn port_of(irq: u32) -> Option<u32> {
    // SAFETY: Events are set up: a channel was bound.
    let ports = unsafe { bindings::xen_evtchn_nr_channels() };
    (1..ports).find(|port| {
        // Others may unbind theirs meanwhile. What the kernel knows of a port is freed a grace
        // period after that.
        let _rcu = rcu::read_lock();
        // SAFETY: Any port may be asked about, by the guard above.
        let bound = unsafe { bindings::irq_from_evtchn(*port) };
        bound == irq
    })
}
