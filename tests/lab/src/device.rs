// SPDX-License-Identifier: GPL-2.0

//! Kinds of devices that can back the disks of a scenario. Each scenario is written for any of
//! them; `scenarios/late.rs` says which run on which.

use std::time::Duration;

/// What is behind [`crate::disk::Disk::memory`] and [`crate::disk::Disk::blank`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// null_blk that answers before its caller goes on. No real device does, so what only happens
    /// between a request and its answer never happens here.
    AtOnce,
    /// null_blk whose answers come from a timer: as fast as the fastest NVMe disks ...
    Us20,
    /// ... as an SSD ...
    Us80,
    /// ... as a busy rotating disk or a network ...
    Ms50,
    /// ... and as one that recovers from an error.
    S2,
    /// A device mapper target over one of 80 us.
    Mapped,
    /// A loop device over a file in memory.
    Loop,
    /// QEMU's NVMe disk, with its interrupts.
    Nvme,
    /// QEMU's virtio disk, with its interrupts.
    Virtio,
}

impl Device {
    const ALL: [Device; 9] = [
        Device::AtOnce,
        Device::Us20,
        Device::Us80,
        Device::Ms50,
        Device::S2,
        Device::Mapped,
        Device::Loop,
        Device::Nvme,
        Device::Virtio,
    ];

    /// As it stands behind a scenario's name and `@`.
    pub fn name(self) -> &'static str {
        match self {
            Device::AtOnce => "at-once",
            Device::Us20 => "20us",
            Device::Us80 => "80us",
            Device::Ms50 => "50ms",
            Device::S2 => "2s",
            Device::Mapped => "dm",
            Device::Loop => "loop",
            Device::Nvme => "nvme",
            Device::Virtio => "virtio",
        }
    }

    pub fn by_name(name: &str) -> Option<Device> {
        Device::ALL.into_iter().find(|device| device.name() == name)
    }

    /// How long a null_blk takes for an answer.
    pub fn delay(self) -> Duration {
        match self {
            Device::Us20 => Duration::from_micros(20),
            Device::Us80 | Device::Mapped => Duration::from_micros(80),
            Device::Ms50 => Duration::from_millis(50),
            Device::S2 => Duration::from_secs(2),
            Device::AtOnce | Device::Loop | Device::Nvme | Device::Virtio => Duration::ZERO,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for device in Device::ALL {
            assert_eq!(Device::by_name(device.name()), Some(device));
        }
        assert_eq!(Device::by_name("floppy"), None);
    }
}
