// SPDX-License-Identifier: GPL-2.0

//! Opening the device that the hotplug script named.

use kernel::{
    prelude::*,
    sync::Arc, //
};

use super::error::VbdError;
use crate::datapath::backing_device::BackingDevice;
use crate::logic::number::DeviceNumber;
use crate::xenbus::store::Value;
use crate::xenbus::store::DIRECT;

/// Opens device `number` as the keys in our directory `dir` say. Sleeps, for as long as the device
/// takes.
///
/// # Errors
///
/// Why it cannot be opened.
pub(super) fn open(dir: &CStr, number: DeviceNumber) -> Result<Arc<BackingDevice>, VbdError> {
    let text = DIRECT.read(dir, c"mode").ok().flatten();
    let read_only = match text.as_ref().map(Value::bytes).unwrap_or_default() {
        // xl's "w!" is a disk that is shared on purpose.
        b"w" | b"w!" => false,
        b"r" => true,
        _ => return Err(VbdError::Mode(text)),
    };
    let enable = DIRECT.read(dir, c"discard-enable").ok().flatten();
    let discard = enable.is_none_or(|text| text.bytes() != b"0");
    BackingDevice::open(number, read_only, discard)
        .and_then(|device| Ok(Arc::new(device, GFP_KERNEL)?))
        .map_err(|error| VbdError::Open {
            device: number,
            read_only,
            error,
        })
}
