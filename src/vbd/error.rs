// SPDX-License-Identifier: GPL-2.0

//! Why a disk cannot be served, as a value.
//!
//! What is found on the way to a connection is returned as a [`VbdError`]. Only
//! [`settle`](super::settle) decides what becomes of it; its text goes to the log and to the `error`
//! key, and names the key and the value that are wrong.

use kernel::{
    fmt,
    prelude::*,
    str::CString,
    sync::Arc, //
};

use crate::logic::number::DeviceNumber;
use crate::logic::number::UntrustedText;
use crate::logic::protocol::index::Overrun;
use crate::xenbus::store::Value;

/// Why a disk cannot be served.
pub(super) enum VbdError {
    /// A key of our directory could not be read.
    Keys(Error),
    /// A key of the frontend could not be read.
    Read {
        /// Its path below the frontend's directory.
        path: CString,
        /// What xenstored answered.
        error: Error,
    },
    /// A key of the frontend is missing.
    Missing {
        /// Its path below the frontend's directory.
        path: CString,
    },
    /// A key of the frontend holds no number.
    NotANumber {
        /// Its path below the frontend's directory.
        path: CString,
        /// What it holds.
        text: Value,
    },
    /// A key of the frontend holds a number that was not offered.
    NotOffered {
        /// Its name.
        key: &'static CStr,
        /// What it holds.
        number: u32,
        /// What was offered at least.
        least: u32,
        /// What was offered at most.
        most: u32,
    },
    /// The frontend speaks no protocol that is known.
    Protocol(Value),
    /// There is no memory for the path of a key.
    NoMemoryForKey(&'static CStr),
    /// There is no memory for so many rings, or no thread.
    NoMemoryForRings {
        /// How many.
        rings: usize,
        /// The error.
        error: Error,
    },
    /// There is no memory for a ring of so many slots.
    NoMemoryForRing {
        /// The slots.
        entries: u32,
    },
    /// Ring pages could not be mapped.
    MapRing {
        /// Reference of the first page.
        gref: u32,
        /// What Xen answered.
        error: Error,
    },
    /// A ring holds indices that cannot be.
    RingIndices {
        /// Reference of the first page.
        gref: u32,
        /// The indices.
        overrun: Overrun,
    },
    /// The event channel could not be bound.
    BindEventChannel {
        /// The frontend's port.
        port: u32,
        /// What Xen answered.
        error: Error,
    },
    /// The page cache of the device could not be written back.
    PageCache {
        /// The device.
        device: DeviceNumber,
        /// What the device answered.
        error: Error,
    },
    /// The description of the disk could not be written.
    Describe(Error),
    /// `physical-device` is no device number.
    DeviceNumber(Arc<Value>),
    /// `physical-device` names another device than the one that is open.
    DeviceChanged {
        /// The device that is open.
        open: DeviceNumber,
        /// What the key holds.
        text: Arc<Value>,
    },
    /// `mode` makes no sense.
    Mode(Option<Value>),
    /// The device is a zoned one.
    Zoned(DeviceNumber),
    /// The logical blocks of the device are larger than a request can be aligned to.
    LogicalBlocks {
        /// The device.
        device: DeviceNumber,
        /// Their size in bytes.
        size: u32,
    },
    /// The device could not be opened.
    Open {
        /// The device.
        device: DeviceNumber,
        /// Whether it was to be read only.
        read_only: bool,
        /// What the device answered.
        error: Error,
    },
}

impl VbdError {
    /// Is this an error of this host's that may pass, whatever the frontend does?
    pub(super) fn may_pass(&self) -> bool {
        match self {
            // These are about this host only.
            Self::Keys(_)
            | Self::Read { .. }
            | Self::Describe(_)
            | Self::NoMemoryForKey(_)
            | Self::NoMemoryForRings { .. }
            | Self::NoMemoryForRing { .. } => true,
            // Without a handle or memory for the mapping.
            Self::MapRing { error, .. } => *error == ENOMEM,
            _ => false,
        }
    }

    /// The error number that goes with the text.
    pub(super) fn errno(&self) -> Error {
        match self {
            Self::Read { error, .. }
            | Self::NoMemoryForRings { error, .. }
            | Self::MapRing { error, .. }
            | Self::BindEventChannel { error, .. }
            | Self::PageCache { error, .. }
            | Self::Describe(error)
            | Self::Keys(error)
            | Self::Open { error, .. } => *error,
            Self::Missing { .. }
            | Self::NotANumber { .. }
            | Self::NotOffered { .. }
            | Self::Protocol(_)
            | Self::RingIndices { .. }
            | Self::DeviceNumber(_)
            | Self::Zoned(_)
            | Self::LogicalBlocks { .. }
            | Self::Mode(_) => EINVAL,
            Self::NoMemoryForKey(_) | Self::NoMemoryForRing { .. } => ENOMEM,
            Self::DeviceChanged { .. } => EBUSY,
        }
    }
}

impl VbdError {
    /// What is wrong with the frontend, or with what it needs. `None` if it is something else.
    fn fmt_frontend(&self, f: &mut fmt::Formatter<'_>) -> Option<fmt::Result> {
        Some(match self {
            Self::Read { path, .. } => f.write_fmt(fmt!("reading {}", &**path)),
            Self::Missing { path } => f.write_fmt(fmt!("{} is missing", &**path)),
            Self::NotANumber { path, text } => f.write_fmt(fmt!(
                "{} {} is not a number",
                &**path,
                UntrustedText(text.bytes())
            )),
            Self::NotOffered {
                key,
                number,
                least,
                most,
            } => f.write_fmt(fmt!(
                "{} {} was not offered, only {} to {}",
                key,
                number,
                least,
                most
            )),
            Self::Protocol(text) => f.write_fmt(fmt!(
                "protocol {} is not known",
                UntrustedText(text.bytes())
            )),
            Self::NoMemoryForKey(key) => f.write_fmt(fmt!("no memory for reading {}", key)),
            Self::NoMemoryForRings { rings, .. } => {
                f.write_fmt(fmt!("no memory for {} rings", rings))
            }
            Self::NoMemoryForRing { entries } => {
                f.write_fmt(fmt!("no memory for a ring of {} slots", entries))
            }
            Self::MapRing { gref, .. } => {
                f.write_fmt(fmt!("mapping the ring at ring-ref {}", gref))
            }
            Self::RingIndices { gref, overrun } => f.write_fmt(fmt!(
                "the ring at ring-ref {} holds impossible indices (req_prod {}, rsp_prod {})",
                gref,
                overrun.req_prod,
                overrun.req_cons
            )),
            Self::BindEventChannel { port, .. } => {
                f.write_fmt(fmt!("binding to event-channel {}", port))
            }
            _ => return None,
        })
    }

    /// What is wrong with the device, or with the keys of our directory. `None` if it is something
    /// else.
    fn fmt_device(&self, f: &mut fmt::Formatter<'_>) -> Option<fmt::Result> {
        Some(match self {
            Self::PageCache { device, .. } => {
                f.write_fmt(fmt!("writing back the page cache of {}", device))
            }
            Self::Keys(_) => f.write_fmt(fmt!("reading the keys of the disk")),
            Self::Describe(_) => f.write_fmt(fmt!("writing the description of the disk")),
            Self::DeviceNumber(text) => f.write_fmt(fmt!(
                "physical-device {} is not major:minor",
                UntrustedText(text.bytes())
            )),
            Self::DeviceChanged { open, text } => f.write_fmt(fmt!(
                "physical-device cannot change from {} to {} while the disk is attached",
                open,
                UntrustedText(text.bytes())
            )),
            Self::Mode(text) => {
                let text = text.as_ref().map(Value::bytes).unwrap_or_default();
                f.write_fmt(fmt!("mode {} is neither r nor w", UntrustedText(text)))
            }
            Self::Zoned(device) => f.write_fmt(fmt!(
                "physical-device {} is zoned: writes at any place, as guests send them, would fail",
                device
            )),
            Self::LogicalBlocks { device, size } => f.write_fmt(fmt!(
                "physical-device {} has logical blocks of {} bytes; guests can address at most 4096",
                device,
                size
            )),
            Self::Open {
                device, read_only, ..
            } => f.write_fmt(fmt!(
                "opening physical-device {} for {}",
                device,
                if *read_only { "reading" } else { "writing" }
            )),
            _ => return None,
        })
    }
}

impl fmt::Display for VbdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let device = self.fmt_device(f);
        device.or_else(|| self.fmt_frontend(f)).unwrap_or(Ok(()))
    }
}
