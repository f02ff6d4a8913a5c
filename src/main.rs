// SPDX-License-Identifier: GPL-2.0

//! rblkback: the block backend of a Xen host, with a limit per disk.
//!
//! It takes the place of xen-blkback: it maps the pages that a guest grants, serves
//! its shared rings, and sends every request through the disk's token bucket
//! before anything reaches the device.
//!
//! | folder | holds | may use |
//! |---|---|---|
//! | [`logic`] | what requests, indices, limits and states mean; pure, tested on the host | `core` |
//! | [`xenbus`] | safe wrappers over the C Xen API | `kernel` |
//! | [`sys`] | safe wrappers over other C APIs of the kernel | `kernel` |
//! | [`qos`] | who may do I/O now: the gate of a disk, the cap of a guest | the three above |
//! | [`datapath`] | the way of a request from the ring to the device and back | those above |
//! | [`vbd`] | the life of a disk: handshake, keys, sysfs | those above |
//! | [`driver`] | the driver that the bus calls | all of them |
//!
//! `Documentation/architecture.rst` follows one request through them. `make test T=layers` holds
//! the last column.

#![crate_name = "rblkback"]

use kernel::prelude::*;

mod datapath;
mod driver;
mod logic;
mod qos;
mod sys;
mod vbd;
#[path = "../xenbus/mod.rs"]
mod xenbus;

module! {
    type: Rblkback,
    name: "rblkback",
    authors: ["The rblkback authors"],
    description: "Xen block backend with a token bucket per disk",
    license: "GPL",
    alias: ["xen-backend:vbd"],
}

/// The loaded module.
///
/// The fields are dropped from top to bottom. No device is ours any more then, or the module could
/// not be unloaded, but the code that released the last one may still run in the xenwatch thread or
/// on our workqueues.
#[pin_data]
struct Rblkback {
    #[pin]
    registration: kernel::driver::Registration<xenbus::driver::Adapter<driver::Backend>>,
    barrier: vbd::watch_barrier::WatchBarrier,
    periodic: sys::periodic::Running,
    guests: qos::registry::GuestRegistry,
    queues: sys::workqueue::ModuleQueues,
}

impl kernel::InPlaceModule for Rblkback {
    fn init(module: &'static ThisModule) -> impl PinInit<Self, Error> {
        sys::params::init();
        try_pin_init!(Self {
            // Probing a device needs all of these.
            queues: sys::workqueue::ModuleQueues::new()?,
            guests: qos::registry::start()?,
            periodic: sys::periodic::start()?,
            barrier: vbd::watch_barrier::WatchBarrier::new()?,
            registration <- kernel::driver::Registration::new(driver::NAME, module),
        }? Error)
    }
}
