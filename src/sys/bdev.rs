// SPDX-License-Identifier: GPL-2.0

//! Block devices, opened by their number.
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

/// An open block device.
///
/// Drop closes the device and sleeps.
///
/// # Invariants
///
/// `file` came from `bdev_file_open_by_dev`, and this object owns that reference. `bdev` is the
/// block device of `file`.
pub(crate) struct BlockDevice {
    file: NonNull<bindings::file>,
    bdev: NonNull<bindings::block_device>,
}

// SAFETY: Any thread may use and close an open block device.
unsafe impl Send for BlockDevice {}
// SAFETY: The methods call C functions that any threads may call concurrently for an open device.
unsafe impl Sync for BlockDevice {}

/// The properties of a device.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Traits {
    /// The size in sectors of 512 bytes.
    pub(crate) sectors: u64,
    /// The logical block size in bytes.
    pub(crate) logical_block_size: u32,
    /// The physical block size in bytes.
    pub(crate) physical_block_size: u32,
    /// Whether the device has a volatile write cache, which flushes empty.
    pub(crate) write_cache: bool,
    /// Whether the device is a CD-ROM drive.
    pub(crate) cdrom: bool,
    /// Whether the medium is removable.
    pub(crate) removable: bool,
    /// The maximum size of a discard in sectors of 512 bytes; 0 if the device supports no discards.
    pub(crate) discard_sectors: u32,
    /// The unit in bytes that the device frees on a discard.
    pub(crate) discard_granularity: u32,
    /// The offset in bytes of the first such unit from the start of the device.
    pub(crate) discard_alignment: u32,
    /// The maximum size of a secure erase in sectors of 512 bytes; 0 if the device supports none.
    pub(crate) secure_erase_sectors: u32,
    /// It is divided into zones that can only be written in order.
    pub(crate) zoned: bool,
}

impl BlockDevice {
    /// Opens the device `major:minor`, for reading, and with `write` also for writing.
    ///
    /// Context: process; sleeps for as long as the device takes to open.
    ///
    /// # Errors
    ///
    /// `ENXIO` if the device does not exist; the error of the device.
    pub(crate) fn open(major: u32, minor: u32, write: bool) -> Result<Self> {
        // SAFETY: The call has no preconditions.
        let file = from_err_ptr(unsafe { bindings::xbk_disk_open(major, minor, write) })?;
        // SAFETY: `file` is the file of a block device, opened above.
        let bdev = unsafe { bindings::xbk_disk_of(file) };
        // INVARIANT: `file` was opened above, and `bdev` is its device.
        Ok(Self {
            file: NonNull::new(file).ok_or(ENXIO)?,
            bdev: NonNull::new(bdev).ok_or(ENXIO)?,
        })
    }

    /// Returns the C device. It is open while `self` is borrowed.
    pub(super) fn as_ptr(&self) -> *mut bindings::block_device {
        self.bdev.as_ptr()
    }

    /// Returns the current size in sectors of 512 bytes.
    ///
    /// Context: any.
    pub(crate) fn sectors(&self) -> u64 {
        // SAFETY: By the type invariant the device is open.
        unsafe { bindings::xbk_disk_sectors(self.as_ptr()) }
    }

    /// Returns whether the device is currently read-only.
    ///
    /// Context: any.
    pub(crate) fn is_read_only(&self) -> bool {
        // SAFETY: By the type invariant the device is open.
        unsafe { bindings::xbk_disk_is_read_only(self.as_ptr()) }
    }

    /// Returns whether a bio may profit from a merge with one that is submitted later: the device
    /// has an I/O scheduler or is rotational, or another queue is below it.
    ///
    /// Context: any.
    pub(crate) fn merges_late(&self) -> bool {
        // SAFETY: By the type invariant the device is open.
        unsafe { bindings::xbk_disk_merges_late(self.as_ptr()) }
    }

    /// Returns the current properties of the device.
    pub(crate) fn traits(&self) -> Traits {
        let mut disk: bindings::xbk_disk = pin_init::zeroed();
        // SAFETY: By the type invariant the device is open. `disk` is valid for writes.
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
            secure_erase_sectors: disk.secure_erase_sectors,
            zoned: disk.zoned,
        }
    }

    /// Discards `sectors` sectors of 512 bytes from `sector` on. With `secure` the device erases
    /// them, so that they cannot be read again.
    ///
    /// Context: process; sleeps until the device has finished.
    ///
    /// # Errors
    ///
    /// The error of the device, see [`is_unsupported`].
    pub(crate) fn discard(&self, sector: u64, sectors: u64, secure: bool) -> Result {
        let bdev = self.as_ptr();
        // SAFETY: By the type invariant the device is open.
        to_result(unsafe { bindings::xbk_disk_discard(bdev, sector, sectors, secure) })
    }

    /// Writes the dirty pages of the device's page cache back and invalidates the cache, so that
    /// the guest and this domain see the same data. Pages that this domain uses stay cached.
    ///
    /// Context: process; sleeps until the device has finished.
    ///
    /// # Errors
    ///
    /// The error of writing back. The cache is invalidated nevertheless.
    pub(crate) fn drop_page_cache(&self) -> Result {
        // SAFETY: By the type invariant the device is open.
        to_result(unsafe { bindings::xbk_disk_uncache(self.as_ptr()) })
    }
}

/// Returns whether the error of a device says that it does not support the operation.
pub(crate) fn is_unsupported(error: Error) -> bool {
    // The kernel crate has this error by name only as of Linux 7.3.
    error.to_errno() == -(bindings::EOPNOTSUPP as i32)
}

impl Drop for BlockDevice {
    fn drop(&mut self) {
        // SAFETY: By the type invariant this object owns the reference to the open file.
        unsafe { bindings::xbk_disk_close(self.file.as_ptr()) };
    }
}
