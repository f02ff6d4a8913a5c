// SPDX-License-Identifier: GPL-2.0

//! What a connected disk needs now and then: a size that changed is told, grants that are not used
//! any more are unmapped, memory that can be spared is given back.
//!
//! The periodic timer only finds out what is due; the disk's work item does it.

use kernel::{
    prelude::*,
    sync::{
        atomic::ordering::Relaxed,
        Arc, //
    }, //
};

use super::disk::Vbd;
use super::disk::VbdState;
use super::features;
use crate::datapath::backing_device::BackingDevice;
use crate::logic::lifecycle::Phase;
use crate::sys::params;
use crate::sys::periodic::Periodic;

/// Every how many seconds a disk looks for grants that are not used any more, and writes its
/// statistics to the log if it should.
const SECONDS: u32 = 10;

/// Does what is due. Context: the disk's work item; talks to xenstored.
pub(super) fn run(vbd: &Vbd, state: &VbdState) {
    let (Some(connection), Some(device)) = (&state.connection, &state.device) else {
        return;
    };
    if vbd.unbound.load(Relaxed) || state.phase != Phase::Connected {
        return;
    }
    vbd.optional.withdraw(vbd.nodename());
    if vbd.upkeep.reclaim.take() {
        connection.reclaim();
    }
    if vbd.upkeep.expire.take() {
        connection.expire_grants();
    }
    if vbd.upkeep.log.take() {
        pr_info!("{}: {}\n", vbd.nodename(), vbd.context.stats);
    }
    if vbd.upkeep.publish.take() {
        vbd.limits.publish_numbers();
    }
    advertise_size(vbd, device);
}

/// Tells the frontend when the disk's size is not what it was told.
fn advertise_size(vbd: &Vbd, device: &BackingDevice) {
    let sectors = device.sectors();
    let advertised = vbd.advertised.lock().as_ref().map(|size| size.sectors);
    // Our state is written once more, which must not undo a Closing.
    if advertised == Some(sectors) || !vbd.dev().is_connected() {
        return;
    }
    // If it cannot be written now, the next second tries again.
    if features::resize(vbd.nodename(), sectors).is_err() {
        return;
    }
    if let Some(size) = &mut *vbd.advertised.lock() {
        size.sectors = sectors;
    }
    if sectors == 0 {
        vbd.reported.store(true, Relaxed);
        vbd.dev().report(
            ENODEV,
            fmt!("device {} is gone: its requests fail", device.number()),
        );
    }
}

impl Periodic for Vbd {
    fn tick(self: Arc<Self>) {
        let advertised = self.advertised.lock();
        let Some(size) = &*advertised else {
            return;
        };
        let tick = self.upkeep.tick();
        let is_tenth = tick % SECONDS == 0;
        let expire = is_tenth && self.context.keeps_any();
        let log = is_tenth && params::log_stats() != 0;
        let publish = self.limits.is_publish_due(tick);
        for (due, flag) in [
            (expire, &self.upkeep.expire),
            (log, &self.upkeep.log),
            (publish, &self.upkeep.publish),
        ] {
            if due {
                flag.set();
            }
        }
        if expire || log || publish || size.device.sectors() != size.sectors {
            self.kick_for_upkeep();
        }
    }

    fn alarm(self: Arc<Self>) {
        self.kick();
    }

    fn reclaim(self: Arc<Self>) {
        if self.upkeep.is_new_reclaim() && self.advertised.lock().is_some() {
            self.upkeep.reclaim.set();
            self.kick_for_upkeep();
        }
    }

    fn name(&self) -> &CStr {
        self.nodename()
    }
}
