// SPDX-License-Identifier: GPL-2.0

//! How a disk stands: what its phase is decided by.

use kernel::{
    prelude::*,
    sync::atomic::ordering::Relaxed, //
};

use super::connection::Connection;
use super::disk::Vbd;
use super::disk::VbdState;
use crate::logic::lifecycle::Frontend;
use crate::logic::lifecycle::Phase;
use crate::logic::lifecycle::Seen;
use crate::logic::number::decimal;
use crate::xenbus::store::Value;
use crate::xenbus::store::DIRECT;

/// How things stand. Context: the disk's work item; talks to xenstored.
///
/// # Errors
///
/// What xenstored answers. Then nothing is known, and nothing may be concluded.
pub(super) fn look(vbd: &Vbd, state: &VbdState) -> Result<Seen> {
    let unbound = vbd.unbound.load(Relaxed);
    let drained = |connection: &Connection| connection.is_drained();
    let drained = state.connection.as_ref().is_none_or(drained);
    let disk = state.device.is_some();
    if unbound {
        // The keys are another driver's, and nothing depends on them any more.
        return Ok(Seen {
            frontend: Frontend::Gone,
            disk,
            online: true,
            drained,
            unbound,
        });
    }
    // Read before the frontend's state: a toolstack that takes a dead guest's directory away writes
    // that the disk is offline as well, so then the frontend's state is seen to be gone.
    let online = read_online(vbd)?;
    let text = DIRECT.read(&vbd.frontend, c"state")?;
    let frontend = Frontend::parse(text.as_ref().map(Value::bytes));
    Ok(Seen {
        frontend,
        disk,
        // As xen-blkback has it: without the key, a disk goes when its frontend has closed, or is gone
        // after it was there.
        online: online.unwrap_or(match frontend {
            Frontend::Closed => false,
            Frontend::Gone => state.phase != Phase::Closed,
            _ => true,
        }),
        drained,
        unbound,
    })
}

/// Does the toolstack want the disk to stay? `None` if it has not written that. Sleeps.
fn read_online(vbd: &Vbd) -> Result<Option<bool>> {
    let text = DIRECT.read(vbd.nodename(), c"online")?;
    Ok(text.map(|text| decimal(text.bytes(), u32::MAX).is_some_and(|online| online != 0)))
}
