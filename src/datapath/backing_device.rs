// SPDX-License-Identifier: GPL-2.0

//! The block device behind a virtual disk.

use kernel::{
    prelude::*,
    sync::atomic::{
        ordering::Relaxed,
        Atomic, //
    }, //
};

use crate::logic::number::DeviceNumber;
use crate::logic::protocol::abi::SECTOR_SIZE;
use crate::logic::protocol::discard::Granule;
use crate::logic::protocol::disk_view::DiskView;
use crate::sys::bdev::BlockDevice;
use crate::sys::bdev::Traits;

/// Flags of the `info` key (`VDISK_*` in `xen/interface/io/blkif.h`).
mod info {
    pub(super) const CDROM: u32 = 1;
    pub(super) const REMOVABLE: u32 = 2;
    pub(super) const READ_ONLY: u32 = 4;
}

/// An open device, as the guest is to see it. Drop closes it and sleeps.
pub(crate) struct BackingDevice {
    device: BlockDevice,
    number: DeviceNumber,
    /// The toolstack gave it to read only.
    read_only: bool,
    /// Sectors of 512 bytes per logical block, as of the last connection.
    block: Atomic<u32>,
    /// Discards are offered.
    discard: Option<DiscardLimits>,
}

/// What a frontend has to know of discards.
#[derive(Clone, Copy)]
pub(crate) struct DiscardLimits {
    /// Bytes.
    pub(crate) granularity: u32,
    /// Bytes.
    pub(crate) alignment: u32,
    /// Secure discards, too.
    pub(crate) secure: bool,
}

impl BackingDevice {
    /// Opens the device. `discard`: the toolstack allows discards. Sleeps, for as long as
    /// the device takes.
    ///
    /// # Errors
    ///
    /// What the device answers; `EACCES` for a read-only one that is to be written.
    pub(crate) fn open(number: DeviceNumber, read_only: bool, discard: bool) -> Result<Self> {
        let device = BlockDevice::open(number.major, number.minor, !read_only)?;
        let traits = device.traits();
        let discard =
            (discard && !read_only && traits.discard_sectors != 0).then_some(DiscardLimits {
                granularity: traits.discard_granularity,
                alignment: traits.discard_alignment,
                secure: traits.secure_erase_sectors != 0,
            });
        Ok(Self {
            discard,
            number,
            read_only,
            block: Atomic::new(traits.logical_block_size / SECTOR_SIZE),
            device,
        })
    }

    /// The device's number.
    pub(crate) fn number(&self) -> DeviceNumber {
        self.number
    }

    /// May the guest only read? The device may become read-only while it is open.
    /// Any context.
    pub(crate) fn is_read_only(&self) -> bool {
        self.read_only || self.device.is_read_only()
    }

    /// Did the toolstack give the device to read only?
    pub(crate) fn is_given_read_only(&self) -> bool {
        self.read_only
    }

    /// The device, for bios.
    pub(crate) fn block_device(&self) -> &BlockDevice {
        &self.device
    }

    /// What the device is now, for a frontend that connects: its requests are checked by the same
    /// logical blocks that it is told.
    pub(crate) fn traits_for_frontend(&self) -> Traits {
        let traits = self.device.traits();
        self.block
            .store(traits.logical_block_size / SECTOR_SIZE, Relaxed);
        traits
    }

    /// What the device is now.
    pub(crate) fn traits(&self) -> Traits {
        self.device.traits()
    }

    /// Which discards are offered, if any.
    pub(crate) fn discard(&self) -> Option<DiscardLimits> {
        self.discard
    }

    /// What the device discards as a whole.
    pub(crate) fn discard_granule(&self) -> Granule {
        let bytes = |get: fn(&DiscardLimits) -> u32| self.discard.as_ref().map_or(0, get);
        let sectors = |bytes: u32| u64::from(bytes / SECTOR_SIZE);
        let granule = Granule {
            sectors: sectors(bytes(|discard| discard.granularity)),
            first: sectors(bytes(|discard| discard.alignment)),
        };
        // A piece has to be of whole logical blocks, whatever the device says.
        let block = u64::from(self.block.load(Relaxed));
        let whole = |sectors: u64| sectors.checked_rem(block) == Some(0);
        if granule.sectors != 0 && whole(granule.sectors) && whole(granule.first) {
            granule
        } else {
            Granule {
                sectors: block,
                first: 0,
            }
        }
    }

    /// The largest discard, in sectors of 512 bytes, that the device takes as one request. Any context.
    pub(super) fn discard_sectors_max(&self, secure: bool) -> u64 {
        let traits = self.device.traits();
        let most = if secure {
            traits.secure_erase_sectors
        } else {
            traits.discard_sectors
        };
        u64::from(most)
    }

    /// Size now, in sectors of 512 bytes. Any context.
    pub(crate) fn sectors(&self) -> u64 {
        self.device.sectors()
    }

    /// The value of the `info` key. `cdrom`: the toolstack calls it one.
    pub(crate) fn info(&self, cdrom: bool) -> u32 {
        let traits = self.device.traits();
        let flag = |set, bit| if set { bit } else { 0 };
        flag(cdrom || traits.cdrom, info::CDROM)
            | flag(traits.removable, info::REMOVABLE)
            | flag(self.is_read_only(), info::READ_ONLY)
    }

    /// What a request is checked against, as of this moment. Any
    /// context.
    pub(crate) fn view(&self) -> DiskView {
        DiskView {
            sectors: self.device.sectors(),
            block: self.block.load(Relaxed),
            read_only: self.is_read_only(),
            discard: self.discard.is_some(),
            secure: self.discard.is_some_and(|discard| discard.secure),
        }
    }
}
