// SPDX-License-Identifier: GPL-2.0

//! A block device, opened by its number.
//!
//! C headers: [`include/linux/blkdev.h`](srctree/include/linux/blkdev.h),
//! [`include/linux/fs.h`](srctree/include/linux/fs.h)

use core::ptr::NonNull;

use kernel::{
    error::{
        from_err_ptr,
        to_result, //
    },
    prelude::*, //
};

use super::bindings;

/// An open block device. Drop closes it and sleeps.
///
/// # Invariants
///
/// `file` is ours, was opened by `bdev_file_open_by_dev`, and `bdev` belongs to it.
pub(crate) struct BlockDevice {
    file: NonNull<bindings::file>,
    bdev: NonNull<bindings::block_device>,
}

// SAFETY: An open block device may be used and closed by any thread.
unsafe impl Send for BlockDevice {}
// SAFETY: All methods only read what the block layer guards itself.
unsafe impl Sync for BlockDevice {}

/// What a device is and can do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Traits {
    /// Size in sectors of 512 bytes.
    pub(crate) sectors: u64,
    /// Bytes.
    pub(crate) logical_block_size: u32,
    /// Bytes.
    pub(crate) physical_block_size: u32,
    /// It has a volatile write cache, so flushes matter.
    pub(crate) write_cache: bool,
    /// It is a CD-ROM drive.
    pub(crate) cdrom: bool,
    /// Its medium can be taken out.
    pub(crate) removable: bool,
    /// Sectors of 512 bytes that one discard may cover; 0: it knows none.
    pub(crate) discard_sectors: u32,
    /// Bytes that a discard frees at least, if aligned to them.
    pub(crate) discard_granularity: u32,
    /// Bytes from the start to the first place so aligned.
    pub(crate) discard_alignment: u32,
    /// It can make sectors unreadable.
    pub(crate) secure_erase: bool,
}

impl BlockDevice {
    /// Opens `major:minor`. Sleeps, for as long as the device takes to open.
    ///
    /// # Errors
    ///
    /// `ENXIO` if there is no such device; what the device answers.
    pub(crate) fn open(major: u32, minor: u32, write: bool) -> Result<Self> {
        // SAFETY: No preconditions.
        let file = from_err_ptr(unsafe { bindings::xbk_disk_open(major, minor, write) })?;
        // SAFETY: Opened just now.
        let bdev = unsafe { bindings::xbk_disk_of(file) };
        // INVARIANT: Opened just now, closed in `drop` only.
        Ok(Self {
            file: NonNull::new(file).ok_or(ENXIO)?,
            bdev: NonNull::new(bdev).ok_or(ENXIO)?,
        })
    }

    /// The C device, for sending bios to it while it is open.
    pub(super) fn as_ptr(&self) -> *mut bindings::block_device {
        self.bdev.as_ptr()
    }

    /// Size now, in sectors of 512 bytes. Any context.
    pub(crate) fn sectors(&self) -> u64 {
        // SAFETY: By the type invariant.
        unsafe { bindings::xbk_disk_sectors(self.as_ptr()) }
    }

    /// Does the device itself refuse writes now? Any context.
    pub(crate) fn is_read_only(&self) -> bool {
        // SAFETY: By the type invariant.
        unsafe { bindings::xbk_disk_is_read_only(self.as_ptr()) }
    }

    /// Can a bio that has no neighbour among those sent with it still be merged with one, to
    /// some profit? Not if the device takes requests as they come. Any context.
    pub(crate) fn merges_late(&self) -> bool {
        // SAFETY: By the type invariant.
        unsafe { bindings::xbk_disk_merges_late(self.as_ptr()) }
    }

    /// What it is and can do, now.
    pub(crate) fn traits(&self) -> Traits {
        let mut disk: bindings::xbk_disk = pin_init::zeroed();
        // SAFETY: By the type invariant; `disk` is valid for writes.
        unsafe { bindings::xbk_disk_read(self.as_ptr(), &mut disk) };
        Traits {
            sectors: disk.sectors,
            logical_block_size: disk.logical_block_size,
            physical_block_size: disk.physical_block_size,
            write_cache: disk.write_cache,
            cdrom: disk.cdrom,
            removable: disk.removable,
            discard_sectors: disk.discard_sectors,
            discard_granularity: disk.discard_granularity,
            discard_alignment: disk.discard_alignment,
            secure_erase: disk.secure_erase,
        }
    }

    /// Tells the device that sectors (of 512 bytes) are no longer needed; `secure`: that
    /// they must become unreadable. Sleeps for as long as the device takes.
    ///
    /// # Errors
    ///
    /// What the device answers: `EOPNOTSUPP` if it knows no such thing.
    pub(crate) fn discard(&self, sector: u64, sectors: u64, secure: bool) -> Result {
        let bdev = self.as_ptr();
        // SAFETY: By the type invariant.
        to_result(unsafe { bindings::xbk_disk_discard(bdev, sector, sectors, secure) })
    }

    /// Writes back what the page cache holds of the device, and drops what it can of
    /// it, so that a guest and this domain see the same bytes. What this domain uses
    /// at the same time stays cached. Sleeps for as long as the device takes.
    pub(crate) fn drop_page_cache(&self) -> Result {
        // SAFETY: By the type invariant.
        to_result(unsafe { bindings::xbk_disk_uncache(self.as_ptr()) })
    }
}

impl Drop for BlockDevice {
    fn drop(&mut self) {
        // SAFETY: By the type invariant; nobody uses it any more.
        unsafe { kernel::bindings::bdev_fput(self.file.as_ptr()) };
    }
}
