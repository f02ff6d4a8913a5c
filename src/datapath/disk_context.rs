// SPDX-License-Identifier: GPL-2.0

//! All that a ring needs of its disk: one struct, and one trait for what the disk has to hear of.

use kernel::{
    prelude::*,
    sync::{
        atomic::{
            ordering::Relaxed,
            Atomic, //
        },
        Arc, //
    }, //
};

use super::stats::Stats;
use super::write_barrier::WriteBarrier;
use crate::logic::ids::RingId;
use crate::logic::protocol::index::Overrun;
use crate::qos::gate::Gate;
use crate::xenbus::device::DeviceRef;

/// What the rings of a disk share with each other and with the rest of the driver.
#[pin_data]
pub(crate) struct DiskContext {
    /// The device on the bus.
    pub(crate) dev: DeviceRef,
    /// The limit.
    pub(crate) gate: Arc<Gate>,
    /// Write barriers.
    #[pin]
    pub(crate) write_barrier: WriteBarrier,
    /// The counters of `statistics/`.
    pub(crate) stats: Stats,
    /// Grants that stay mapped and spare pages for copies, of all rings.
    kept: Atomic<i32>,
}

impl DiskContext {
    /// The context of the disk of `dev`. Sleeps.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(dev: DeviceRef, gate: Arc<Gate>) -> Result<Arc<Self>> {
        let context = pin_init!(Self {
            dev,
            gate,
            write_barrier <- WriteBarrier::new(),
            stats: Stats::new(),
            kept: Atomic::new(0),
        });
        Arc::pin_init(context, GFP_KERNEL)
    }

    /// A ring keeps `more` grants mapped or pages for copies, or fewer if negative.
    pub(super) fn count_kept(&self, more: i32) {
        self.kept.add(more, Relaxed);
    }

    /// Do the rings keep grants mapped, or pages for copies? Context: any.
    pub(crate) fn keeps_any(&self) -> bool {
        self.kept.load(Relaxed) > 0
    }
}

/// What a ring tells its disk. Context: the thread of the ring; each may sleep.
pub(crate) trait DiskEvents: Send + Sync + 'static {
    /// Ring `ring` was stopped, and nothing of the frontend is mapped but the ring itself.
    fn ring_drained(self: Arc<Self>, ring: RingId);

    /// The frontend published impossible indices on ring `ring`, which serves no request from now
    /// on.
    fn ring_broken(&self, ring: RingId, overrun: Overrun);

    /// The device has answered `requests` requests of ring `ring` long ago and still refers to
    /// their pages.
    fn pages_held(&self, ring: RingId, requests: usize);

    /// The device does not know `operation` (`BLKIF_OP_*`), although it was offered.
    fn unsupported(self: Arc<Self>, operation: u8);
}
