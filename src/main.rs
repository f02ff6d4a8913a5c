// SPDX-License-Identifier: GPL-2.0

//! rblkback: the block backend of a Xen host, with a limit per disk.
//!
//! It takes the place of xen-blkback: it maps the pages that a guest grants, serves
//! its shared rings, and sends every request through the disk's token bucket
//! before anything reaches the device.
//!
//! | room | holds |
//! |---|---|
//! | [`logic`] | what requests, indices, limits and states mean; pure, tested on the host |
//! | [`datapath`] | the way of a request from the ring to the disk and back |
//! | [`driver`], [`vbd`] | one disk and its life |
//! | [`wish`], [`connect`], [`features`] | the handshake: what a frontend wants, its rings, what it is told |
//! | [`disk`], [`control`], [`sysfs`] | the device, the administrator's keys, what he sees |
//! | [`sys`] | safe wrappers over C APIs of the kernel |
//! | [`xenbus`] | safe wrappers over the C Xen API |
//!
//! `Documentation/architecture.rst` follows one request through them.

#![crate_name = "rblkback"]

use kernel::prelude::*;

mod connect;
mod control;
mod datapath;
mod disk;
mod display;
mod driver;
mod features;
mod logic;
mod sys;
mod sysfs;
mod vbd;
mod wish;
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

/// The loaded module. Dropped from top to bottom: no device is ours any more then,
/// or the module could not be unloaded, but the code that let the last one go may
/// still run in the xenwatch thread or on our queues.
#[pin_data]
struct Rblkback {
    #[pin]
    registration: kernel::driver::Registration<xenbus::driver::Adapter<driver::Backend>>,
    barrier: xenbus::watch::Barrier,
    rounds: sys::rounds::Rounds,
    guests: datapath::guest::Guests,
    queues: sys::queue::ModuleQueues,
}

impl kernel::InPlaceModule for Rblkback {
    fn init(module: &'static ThisModule) -> impl PinInit<Self, Error> {
        sys::params::init();
        try_pin_init!(Self {
            // First: probing a device needs them.
            queues: sys::queue::ModuleQueues::new()?,
            guests: datapath::guest::begin()?,
            rounds: sys::rounds::begin()?,
            barrier: xenbus::watch::Barrier::new()?,
            registration <- kernel::driver::Registration::new(driver::NAME, module),
        }? Error)
    }
}
