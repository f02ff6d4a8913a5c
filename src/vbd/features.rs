// SPDX-License-Identifier: GPL-2.0

//! What we write into our directory for the frontend to read.
//!
//! | when | keys |
//! |---|---|
//! | probed | `max-ring-page-order`, `multi-queue-max-queues`, `feature-max-indirect-segments`, `feature-tokens` |
//! | connecting | `feature-*`, `discard-*`, `sectors`, `info`, sector sizes |
//! | the device's size changed | `sectors`, and `state` once more so that the frontend looks |
//! | the device cannot do it after all | the feature's key becomes 0 |
//!
//! Each in one transaction. Source of the keys: Xen's `xen/include/public/io/blkif.h`.

use kernel::{
    prelude::*,
    sync::atomic::{
        ordering::{
            Full,
            Relaxed, //
        },
        AtomicFlag, //
    }, //
};

use crate::datapath::backing_device::BackingDevice;
use crate::logic::ids::RINGS_MAX;
use crate::logic::number::decimal;
use crate::logic::protocol::abi::INDIRECT_MAX;
use crate::logic::protocol::request::OP_BARRIER;
use crate::logic::protocol::request::OP_DISCARD;
use crate::logic::protocol::request::OP_FLUSH;
use crate::sys::params;
use crate::xenbus::shared_ring::PAGES_MAX;
use crate::xenbus::store::within;
use crate::xenbus::store::DIRECT;

const FLUSH: &CStr = c"feature-flush-cache";
const BARRIER: &CStr = c"feature-barrier";
const DISCARD: &CStr = c"feature-discard";
const SECTORS: &CStr = c"sectors";
const PERSISTENT: &CStr = c"feature-persistent";
const MAX_QUEUES: &CStr = c"multi-queue-max-queues";
const MAX_RING_PAGE_ORDER: &CStr = c"max-ring-page-order";
/// `XenbusStateConnected`.
const CONNECTED: u32 = 4;

/// What a frontend may ask for, as our directory says.
#[derive(Clone, Copy)]
pub(super) struct Offers {
    /// The largest ring, as the logarithm of its pages.
    pub(super) ring_page_order: u32,
    /// Rings.
    pub(super) queues: u32,
    /// Grants may stay mapped.
    pub(super) persistent: bool,
}

impl Offers {
    /// Reads what our directory `dir` says, whichever driver wrote it. A key that is missing or
    /// makes no sense is an offer that was not made. Sleeps.
    ///
    /// # Errors
    ///
    /// What xenstored answers.
    pub(super) fn read(dir: &CStr) -> Result<Self> {
        let number = |key: &CStr| {
            let text = DIRECT.read(dir, key)?;
            Ok::<_, Error>(text.and_then(|text| decimal(text.bytes(), u32::MAX)))
        };
        let order = number(MAX_RING_PAGE_ORDER)?.unwrap_or(0);
        let queues = number(MAX_QUEUES)?.unwrap_or(1);
        Ok(Self {
            ring_page_order: order.min(PAGES_MAX.ilog2()),
            queues: queues.clamp(1, RINGS_MAX as u32),
            persistent: number(PERSISTENT)? == Some(1),
        })
    }
}

/// Writes into our directory `dir` what a frontend has to know before it asks for anything. What a
/// frontend that is `running` was offered when it connected stays as it is. Sleeps.
///
/// # Errors
///
/// `ENOENT` if the directory is gone; what xenstored answers.
pub(super) fn offer(dir: &CStr, running: bool) -> Result {
    within(dir, |store, dir| {
        let number = |key, value: u32| store.write(dir, key, fmt!("{}", value));
        // There may be a limit, and `qos-*` says which.
        number(c"feature-tokens", 1)?;
        if running {
            return Ok(());
        }
        number(MAX_RING_PAGE_ORDER, params::max_ring_page_order())?;
        number(MAX_QUEUES, params::max_queues())?;
        number(c"feature-max-indirect-segments", u32::from(INDIRECT_MAX))
    })
}

/// Writes into our directory `dir` what a frontend has to know of the disk. Returns the size that it
/// was told, in sectors of 512 bytes. `persistent`: its grants may stay mapped. Sleeps.
pub(super) fn describe(
    dir: &CStr,
    optional: &OptionalFeatures,
    device: &BackingDevice,
    cdrom: bool,
    persistent: bool,
) -> Result<u64> {
    let traits = device.traits_for_frontend();
    within(dir, |store, dir| {
        let number = |key, value: u32| store.write(dir, key, fmt!("{}", value));
        let works = |feature: &Failing| !feature.seen.load(Relaxed);
        number(FLUSH, (traits.write_cache && works(&optional.flush)).into())?;
        number(
            BARRIER,
            (traits.write_cache && works(&optional.barrier)).into(),
        )?;
        number(PERSISTENT, persistent.into())?;
        match device.discard().filter(|_| works(&optional.discard)) {
            Some(discard) => {
                number(DISCARD, 1)?;
                number(c"discard-granularity", discard.granularity)?;
                number(c"discard-alignment", discard.alignment)?;
                number(c"discard-secure", discard.secure.into())?;
            }
            None => number(DISCARD, 0)?,
        }
        store.write(dir, SECTORS, fmt!("{}", traits.sectors))?;
        number(c"info", device.info(cdrom))?;
        number(c"sector-size", traits.logical_block_size)?;
        number(c"physical-sector-size", traits.physical_block_size)
    })?;
    Ok(traits.sectors)
}

/// Tells a connected frontend that the disk has `sectors` sectors of 512 bytes now. Sleeps.
///
/// # Errors
///
/// `EBUSY` if the toolstack has written that the disk is to go; what xenstored answers.
pub(super) fn resize(dir: &CStr, sectors: u64) -> Result {
    within(dir, |store, dir| {
        // xl asks for a disk by writing Closing here itself.
        let state = store.read(dir, c"state")?;
        let state = state
            .as_ref()
            .and_then(|text| decimal(text.bytes(), u32::MAX));
        if state != Some(CONNECTED) {
            return Err(EBUSY);
        }
        store.write(dir, SECTORS, fmt!("{}", sectors))?;
        store.write(dir, c"state", fmt!("{}", CONNECTED))
    })
}

/// A feature that turned out not to work.
struct Failing {
    /// The device refused it, since we have the disk.
    seen: AtomicFlag,
    /// Its key was taken back.
    withdrawn: AtomicFlag,
}

impl Failing {
    const fn new() -> Self {
        Self {
            seen: AtomicFlag::new(false),
            withdrawn: AtomicFlag::new(false),
        }
    }
}

/// The features that a device may refuse although it was thought to know them.
pub(super) struct OptionalFeatures {
    flush: Failing,
    barrier: Failing,
    discard: Failing,
}

impl OptionalFeatures {
    /// All of them are thought to work.
    pub(super) const fn new() -> Self {
        Self {
            flush: Failing::new(),
            barrier: Failing::new(),
            discard: Failing::new(),
        }
    }

    /// The device does not know what `operation` asks for. Returns whether that is new.
    /// Any context.
    pub(super) fn fails(&self, operation: u8) -> bool {
        let failing = match operation {
            OP_FLUSH => &self.flush,
            OP_BARRIER => &self.barrier,
            OP_DISCARD => &self.discard,
            _ => return false,
        };
        !failing.seen.load(Relaxed) && !failing.seen.xchg(true, Full)
    }

    /// Takes back the keys of those that failed since this was called last.
    pub(super) fn withdraw(&self, dir: &CStr) {
        for (failing, key) in [
            (&self.flush, FLUSH),
            (&self.barrier, BARRIER),
            (&self.discard, DISCARD),
        ] {
            if failing.seen.load(Relaxed) && !failing.withdrawn.xchg(true, Full) {
                // If it cannot be written, the frontend learns it from each response.
                let _ = within(dir, |store, dir| store.write(dir, key, fmt!("0")));
            }
        }
    }
}
