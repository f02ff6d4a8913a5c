// SPDX-License-Identifier: GPL-2.0

//! One virtual disk, from the moment its directory appears until nothing of it is left.
//!
//! A disk has one work item. Whatever happens to the disk queues it ([`disk::Vbd::kick`]): a key
//! changed, the frontend moved, a ring is drained, the driver lost the device. The work item looks
//! at how things stand and takes the steps that [`crate::logic::lifecycle`] names. It may sleep for
//! as long as the device takes, and nothing waits for it but an administrator who unbinds a
//! connected disk.
//!
//! Requests are not in here: [`crate::datapath`] serves them and knows nothing of a disk's life.
//!
//! | file | holds |
//! |---|---|
//! | [`disk`] | the disk: what belongs to it, what it hears of its rings |
//! | [`steps`] | the work item: the steps from one phase to the next |
//! | [`look`] | how the disk stands, by which the step is decided |
//! | [`settle`] | what becomes of errors: a report, a refusal, another attempt |
//! | [`opening`] | opening the device that the hotplug script named |
//! | [`frontend_config`] | what a frontend asks for |
//! | [`connection`] | connecting to a frontend, and the connection's end |
//! | [`ring_workers`] | the workers of its rings and their threads, which outlive a connection |
//! | [`features`] | what the frontend is told |
//! | [`error`] | why a disk cannot be served, as a value |
//! | [`limit_keys`] | reading the keys of the limit |
//! | [`limit_control`] | applying them, telling the guest |
//! | [`upkeep`], [`upkeep_flags`] | what a connected disk needs now and then; what of it is due |
//! | [`binding`] | what the driver keeps of a bound device; its watch |
//! | [`domains`] | whose disks are left to another driver |
//! | [`watch_barrier`] | keeps the module until its watches are done |
//! | [`sysfs`] | files for the administrator |
//! | [`display`] | how values of the pure code are printed |
//!
//! Lock order:
//!
//! 1. `Vbd::state` (mutex): the work item's own
//! 2. `LimitControl::state` (mutex): the keys of the limit are read and applied
//! 3. `engine` of a worker (mutex)
//! 4. the locks of [`crate::qos`], in its order
//! 5. the list of `sys::periodic` (spinlock, interrupts off)
//! 6. `Vbd::advertised` (spinlock, interrupts off)
//!
//! `Vbd::identity` (spinlock) and the spinlocks of [`crate::datapath`] have no order: no other lock
//! is taken under them.
//!
//! References: the driver's data has one to the `Vbd`; so have the work item while it is queued and
//! each worker. The gate refers to the workers until the connection is released, which it is when the
//! last request has its response; `state.ring_workers` does until the driver has lost the device. That
//! breaks the circle. A work item may drop the last reference, hence the references to the module and
//! the device.

#![forbid(unsafe_code)]

pub(crate) mod binding;
mod connection;
mod disk;
mod display;
mod domains;
mod error;
mod features;
mod frontend_config;
mod limit_control;
mod limit_keys;
mod look;
mod opening;
mod ring_workers;
mod settle;
mod steps;
pub(crate) mod sysfs;
mod upkeep;
mod upkeep_flags;
pub(crate) mod watch_barrier;
