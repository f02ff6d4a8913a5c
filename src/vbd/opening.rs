// SPDX-License-Identifier: GPL-2.0

//! Opening the device that the hotplug script named.

use kernel::{
    prelude::*,
    sync::Arc, //
};

use super::error::VbdError;
use crate::datapath::backing_device::BackingDevice;
use crate::logic::number::DeviceNumber;
use crate::logic::protocol::abi::PAGE_SIZE;
use crate::xenbus::store::Value;
use crate::xenbus::store::DIRECT;

/// Reads from our directory `dir` whether the guest may only read. Sleeps.
///
/// # Errors
///
/// If the key cannot be read or makes no sense.
pub(super) fn read_mode(dir: &CStr) -> Result<bool, VbdError> {
    let text = DIRECT.read(dir, c"mode").map_err(VbdError::Keys)?;
    let letters = text.as_ref().map(Value::bytes).unwrap_or_default();
    // As Xen's block script reads it: toolstacks write r, ro, w, rw and w!, which is a disk that is
    // shared on purpose.
    let has = |letter| letters.iter().any(|other| *other == letter);
    match (has(b'w'), has(b'r')) {
        (true, _) => Ok(false),
        (false, true) => Ok(true),
        (false, false) => Err(VbdError::Mode(text)),
    }
}

/// Opens device `number` as the keys in our directory `dir` say. Sleeps, for as long as the device
/// takes.
///
/// # Errors
///
/// Why it cannot be opened.
pub(super) fn open(dir: &CStr, number: DeviceNumber) -> Result<Arc<BackingDevice>, VbdError> {
    let read_only = read_mode(dir)?;
    let enable = DIRECT.read(dir, c"discard-enable");
    let enable = enable.map_err(VbdError::Keys)?;
    let discard = enable.is_none_or(|text| text.bytes() != b"0");
    let device = BackingDevice::open(number, read_only, discard)
        .and_then(|device| Ok(Arc::new(device, GFP_KERNEL)?))
        .map_err(|error| VbdError::Open {
            device: number,
            read_only,
            error,
        })?;
    let traits = device.traits();
    if traits.zoned {
        return Err(VbdError::Zoned(number));
    }
    if traits.logical_block_size > PAGE_SIZE {
        return Err(VbdError::LogicalBlocks {
            device: number,
            size: traits.logical_block_size,
        });
    }
    Ok(device)
}
