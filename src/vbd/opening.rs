// SPDX-License-Identifier: GPL-2.0

//! Opening the device that the hotplug script named.
//!
//! Context: the disk's work item, with the lock of `state`; it sleeps for as long as the device takes.

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

use super::disk::Identity;
use super::disk::Vbd;
use super::disk::VbdState;
use super::error::VbdError;
use super::look::look;
use super::settle::is_too_early;
use super::settle::look_again;
use super::settle::note_success;
use super::settle::settle;
use crate::datapath::backing_device::BackingDevice;
use crate::logic::lifecycle::Phase;
use crate::logic::number::DeviceNumber;
use crate::logic::protocol::abi::PAGE_SIZE;
use crate::xenbus::store::Value;
use crate::xenbus::store::DIRECT;

/// Opens the device that the hotplug script named, if that is new or could not be opened yet.
// Not inlined, so that its stack frame does not add to that of a connection.
#[inline(never)]
pub(super) fn open_device(vbd: &Vbd, state: &mut VbdState) {
    // A disk that is closed has no device open, because somebody may be waiting for it.
    if vbd.unbound.load(Relaxed)
        || matches!(state.phase, Phase::Closed | Phase::Leaving)
        || !vbd.named.load(Relaxed)
    {
        return;
    }
    let Ok(seen) = look(vbd, state) else {
        return look_again(vbd);
    };
    if !seen.online {
        return;
    }
    let running = vbd.is_running(seen.frontend);
    if state.device.is_none() && is_too_early(vbd, state, running) {
        return;
    }
    if !vbd.named.xchg(false, Full) {
        return;
    }
    let text = match read_physical_device(vbd) {
        Ok(Some(text)) => text,
        // The hotplug script has yet to write it.
        Ok(None) => return,
        Err(_) => {
            vbd.named.store(true, Relaxed);
            return look_again(vbd);
        }
    };
    let old = state.looked_at.as_ref().map(|old| old.bytes());
    if let Some(device) = state.device.as_ref().filter(|_| old == Some(text.bytes())) {
        return check_mode(vbd, device);
    }
    state.looked_at = Some(text.clone());
    match use_device(vbd, state, text) {
        Ok(()) => note_success(vbd, state),
        // The disk goes on with the device that it has.
        Err(error) if state.device.is_some() => {
            vbd.reported.store(true, Relaxed);
            vbd.dev().report(error.errno(), fmt!("{}", error));
        }
        Err(error) => {
            state.phase = settle(vbd, state, &error);
            if state.phase == Phase::Waiting {
                vbd.named.store(true, Relaxed);
            }
        }
    }
}

fn read_physical_device(vbd: &Vbd) -> Result<Option<Arc<Value>>> {
    let text = DIRECT.read(vbd.nodename(), c"physical-device")?;
    let text = text.map(|text| Arc::new(text, GFP_KERNEL)).transpose()?;
    Ok(text)
}

/// Says so if the mode is another one than the device was opened with.
fn check_mode(vbd: &Vbd, device: &BackingDevice) {
    let word = |read_only| if read_only { "r" } else { "w" };
    let given = device.is_given_read_only();
    if read_mode(vbd.nodename()).is_ok_and(|read_only| read_only != given) {
        let (old, new) = (word(given), word(!given));
        vbd.reported.store(true, Relaxed);
        vbd.dev().report(
            EBUSY,
            fmt!("mode cannot change from {old} to {new} while the disk is attached"),
        );
    }
}

/// Opens the device that `text` names, unless it is open.
fn use_device(vbd: &Vbd, state: &mut VbdState, text: Arc<Value>) -> Result<(), VbdError> {
    let number = DeviceNumber::parse(text.bytes());
    match (&state.device, number) {
        (Some(device), _) if number == Some(device.number()) => {}
        (Some(device), _) => {
            return Err(VbdError::DeviceChanged {
                open: device.number(),
                text,
            });
        }
        (None, Some(number)) => {
            let device = open(vbd.nodename(), number)?;
            let mode = if device.is_read_only() { "r" } else { "w" };
            *vbd.identity.lock() = Identity { number, mode };
            state.device = Some(device);
        }
        (None, None) => return Err(VbdError::DeviceNumber(text)),
    }
    Ok(())
}

/// Reads from our directory `dir` whether the guest may only read. Sleeps.
///
/// # Errors
///
/// If the key cannot be read or makes no sense.
fn read_mode(dir: &CStr) -> Result<bool, VbdError> {
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
fn open(dir: &CStr, number: DeviceNumber) -> Result<Arc<BackingDevice>, VbdError> {
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
