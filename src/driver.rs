// SPDX-License-Identifier: GPL-2.0

//! The xenbus driver: a disk appears, its frontend moves, it goes.
//!
//! Everything that may take time happens in the disk's own work item
//! ([`Vbd`]): the xenwatch thread, which calls most of this, serves every Xen
//! device of the host.

#![forbid(unsafe_code)]

use kernel::{
    device::Core,
    prelude::*,
    str::CString,
    sync::Arc, //
};

use crate::control::Keys;
use crate::features;
use crate::sys::rounds;
use crate::sys::rounds::Membership;
use crate::sys::sysfs::Groups;
use crate::sysfs;
use crate::vbd::Vbd;
use crate::xenbus::device::Device;
use crate::xenbus::device::State;
use crate::xenbus::driver::DeviceId;
use crate::xenbus::driver::Driver;
use crate::xenbus::watch::Watch;

/// The driver's name in sysfs. Not `vbd`: that is xen-blkback's.
pub(crate) const NAME: &CStr = c"rblkback";

/// The driver.
pub(crate) struct Backend;

/// What the driver keeps of a device while it is bound to it.
#[pin_data]
pub(crate) struct Bound {
    /// Our directory.
    #[pin]
    keys: Watch<Keys>,
    _membership: Membership,
    _seated: Seated,
    /// The disk, which may outlive the binding.
    pub(crate) vbd: Arc<Vbd>,
}

/// A disk counts among those of its guest from the creation of this to its drop.
struct Seated(Arc<Vbd>);

impl Seated {
    fn new(vbd: Arc<Vbd>) -> Self {
        vbd.gate().seat().occupy(vbd.clone());
        Self(vbd)
    }
}

impl Drop for Seated {
    fn drop(&mut self) {
        self.0.gate().seat().vacate();
    }
}

impl Driver for Backend {
    type Data = Bound;

    const IDS: &'static [DeviceId] = &[DeviceId::new(c"vbd"), DeviceId::end()];

    const GROUPS: Groups<Bound> = sysfs::GROUPS;

    fn probe(dev: &Device<Core<'_>>) -> impl PinInit<Bound, Error> {
        let vbd = Vbd::new(dev);
        try_pin_init!(Bound {
            vbd: vbd?,
            // Before the disk can connect: what it reserves must count.
            _membership: Membership::new(vbd.clone())?,
            _seated: Seated::new(vbd.clone()),
            _: {
                vbd.start_limit()?;
                features::offer(vbd)?;
                dev.announce(State::InitWait);
            },
            // After all that can fail, and after InitWait: from here on the disk
            // may be kicked, and may connect.
            keys <- Watch::new(CString::try_from(dev.nodename())?, Keys(vbd.clone())),
            _: {
                // What changed before the watch was there.
                vbd.load_limit();
                vbd.drop_level();
            },
        }? Error)
    }

    fn otherend_changed(data: Pin<&Bound>) {
        data.vbd.kick();
    }

    fn reclaim(dev: &Device) {
        rounds::squeeze(dev.nodename());
    }

    fn unbind(dev: &Device<Core<'_>>, data: Pin<&Bound>) {
        // First: whoever waits for I/O below must not need the xenwatch thread, which
        // may be waiting for this device.
        data.keys.stop();
        data.vbd.unbind(!dev.is_vanished());
    }
}
