// SPDX-License-Identifier: GPL-2.0

//! The xenbus driver: a disk appears, its frontend moves, it goes.
//!
//! Everything that may take time happens in the disk's own work item: the xenwatch thread, which
//! calls most of this, serves every Xen device of the host.

#![forbid(unsafe_code)]

use kernel::{
    device::Core,
    prelude::*, //
};

use crate::sys::periodic;
use crate::vbd::binding::Binding;
use crate::vbd::sysfs;
use crate::xenbus::attribute::Groups;
use crate::xenbus::device::Device;
use crate::xenbus::driver::DeviceId;
use crate::xenbus::driver::Driver;

/// The driver's name in sysfs. Not `vbd`: that is xen-blkback's.
pub(crate) const NAME: &CStr = c"rblkback";

/// The driver.
pub(crate) struct Backend;

impl Driver for Backend {
    type Data = Binding;

    const IDS: &'static [DeviceId] = &[DeviceId::new(c"vbd"), DeviceId::end()];

    const GROUPS: Groups<Binding> = sysfs::GROUPS;

    fn probe(dev: &Device<Core<'_>>) -> impl PinInit<Binding, Error> {
        Binding::new(dev)
    }

    fn otherend_changed(data: Pin<&Binding>) {
        data.kick();
    }

    fn reclaim(dev: &Device) {
        periodic::reclaim(dev.nodename());
    }

    fn unbind(dev: &Device<Core<'_>>, data: Pin<&Binding>) {
        data.unbind(!dev.is_vanished());
    }
}
