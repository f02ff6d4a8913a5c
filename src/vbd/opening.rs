// SPDX-License-Identifier: GPL-2.0

//! Opening the device that the hotplug script named.

#![forbid(unsafe_code)]

use kernel::{
    prelude::*,
    sync::{
        atomic::ordering::{
            Full,
            Relaxed, //
        },
        Arc, //
    }, //
};

use super::Identity;
use super::State;
use super::Vbd;
use crate::disk::Disk;
use crate::logic::lifecycle::Phase;
use crate::logic::number::DeviceNumber;
use crate::logic::number::Foreign;
use crate::xenbus::store;
use crate::xenbus::store::Value;

impl Vbd {
    /// Opens the device that the hotplug script named, when it is new.
    pub(super) fn open_disk(&self, state: &mut State) {
        if self.unbound.load(Relaxed) || !self.named.xchg(false, Full) {
            return;
        }
        let Ok(Some(text)) = store::DIRECT.read(self.nodename(), c"physical-device") else {
            return;
        };
        let bytes = text.bytes();
        if state
            .looked_at
            .as_ref()
            .is_some_and(|old| old.bytes() == bytes)
        {
            return;
        }
        match (&state.disk, DeviceNumber::parse(bytes)) {
            (Some(disk), number) if number == Some(disk.number()) => {}
            (Some(disk), _) => self.dev.report(
                EBUSY,
                fmt!(
                    "physical-device cannot change from {} to {} while the disk is attached",
                    disk.number(),
                    Foreign(bytes)
                ),
            ),
            (None, Some(number)) => state.disk = self.open(number),
            (None, None) => self.fail(
                EINVAL,
                fmt!("physical-device {} is not major:minor", Foreign(bytes)),
            ),
        }
        state.looked_at = Some(text);
        if state.disk.is_none() {
            state.phase = Phase::Failed;
        }
    }

    fn open(&self, number: DeviceNumber) -> Option<Arc<Disk>> {
        let text = store::DIRECT.read(self.nodename(), c"mode").ok().flatten();
        let text = text.as_ref().map(Value::bytes).unwrap_or_default();
        let read_only = match text {
            // "w!" is what xl writes for a disk that is shared on purpose.
            b"w" | b"w!" => false,
            b"r" => true,
            _ => {
                self.fail(EINVAL, fmt!("mode {} is neither r nor w", Foreign(text)));
                return None;
            }
        };
        let enable = store::DIRECT.read(self.nodename(), c"discard-enable");
        let enable = enable.ok().flatten();
        let discard = enable.is_none_or(|text| text.bytes() != b"0");
        let disk = Disk::open(number, read_only, discard)
            .and_then(|disk| Ok(Arc::new(disk, GFP_KERNEL)?))
            .inspect_err(|e| {
                let access = if read_only { "reading" } else { "writing" };
                self.fail(
                    *e,
                    fmt!("opening physical-device {} for {}", number, access),
                );
            })
            .ok()?;
        let mode = if disk.is_read_only() { "r" } else { "w" };
        *self.identity.lock() = Identity { number, mode };
        Some(disk)
    }
}
