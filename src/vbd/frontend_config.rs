// SPDX-License-Identifier: GPL-2.0

//! What a frontend wrote into its directory: which rings, in which layout.
//!
//! Every key is hostile. A key that is missing or makes no sense is an error that names the key and
//! its value.
//!
//! | key | where | if absent |
//! |---|---|---|
//! | `multi-queue-num-queues` | top | one ring, whose keys are at the top |
//! | `ring-page-order` | top | one page, `ring-ref` |
//! | `ring-ref`, or `ring-ref0`, .. | top, or `queue-0`, .. | refused |
//! | `event-channel` | the same | refused |
//! | `protocol` | top | `x86_32-abi` |
//! | `feature-persistent` | top | no |
//! | `device-type` | top | a disk |
//!
//! With more than one queue, ring keys at the top mean nothing: a frontend that came from a host
//! with fewer queues leaves them behind.
//!
//! Source of the keys: Xen's `xen/include/public/io/blkif.h`.

use kernel::{
    prelude::*,
    str::CString, //
};

use super::error::VbdError;
use super::features::Offers;
use crate::logic::number::decimal;
use crate::logic::protocol::abi::Abi;
use crate::xenbus::shared_ring::PAGES_MAX;
use crate::xenbus::store::Value;
use crate::xenbus::store::DIRECT;

type Result<T> = core::result::Result<T, VbdError>;

/// Where one ring is.
pub(super) struct RingLocation {
    refs: [u32; PAGES_MAX],
    pages: usize,
    /// The frontend's event channel.
    pub(super) port: u32,
}

impl RingLocation {
    /// Grant references of the ring's pages, in order.
    pub(super) fn refs(&self) -> &[u32] {
        self.refs.get(..self.pages).unwrap_or_default()
    }
}

/// What a frontend asks for.
pub(super) struct FrontendConfig {
    /// Its rings.
    pub(super) rings: KVec<RingLocation>,
    /// Their layout.
    pub(super) abi: Abi,
    /// Pages of each ring.
    pub(super) pages: u32,
    /// The frontend offers grants that stay mapped.
    pub(super) persistent: bool,
    /// The toolstack calls the disk a CD-ROM.
    pub(super) cdrom: bool,
}

impl FrontendConfig {
    /// How many rings the frontend names: at most as many as were offered.
    pub(super) fn ring_count(&self) -> u32 {
        u32::try_from(self.rings.len()).unwrap_or(u32::MAX)
    }

    /// Slots of each ring.
    pub(super) fn entries(&self) -> u32 {
        self.abi.ring_entries(self.pages)
    }

    /// Reads the keys of the frontend's directory `path`, which may ask for what our directory
    /// `offers`. Talks to xenstored; sleeps.
    ///
    /// # Errors
    ///
    /// The first key that cannot be read, is missing or makes no sense.
    pub(super) fn read(path: &CStr, offers: &Offers) -> Result<Self> {
        let top = Dir { path, queue: None };
        let order = top.up_to(c"ring-page-order", 0, offers.ring_page_order)?;
        let queues = top.up_to(c"multi-queue-num-queues", 1, offers.queues)?;
        let queues = queues.unwrap_or(1);
        let protocol = top.text(c"protocol")?;
        let abi = Abi::from_protocol(protocol.as_ref().map(Value::bytes));
        let abi = match (abi, protocol) {
            (Some(abi), _) => abi,
            (None, Some(text)) => return Err(VbdError::Protocol(text)),
            // A frontend that names none speaks one, so this is never.
            (None, None) => return Err(top.missing(c"protocol")),
        };
        let mut rings = KVec::with_capacity(queues as usize, GFP_KERNEL).map_err(|e| {
            VbdError::NoMemoryForRings {
                rings: queues as usize,
                error: e.into(),
            }
        })?;
        for number in 0..queues {
            let dir = Dir {
                path,
                queue: (queues > 1).then_some(number),
            };
            // Within the vector's capacity.
            let _ = rings.push_within_capacity(dir.ring(order)?);
        }
        let kind = top.text(c"device-type")?;
        Ok(Self {
            rings,
            abi,
            pages: 1u32.checked_shl(order.unwrap_or(0)).unwrap_or(1),
            persistent: top.number(c"feature-persistent")? == Some(1),
            cdrom: kind.is_some_and(|kind| kind.bytes() == b"cdrom"),
        })
    }
}

/// A directory of the frontend: its own, or that of one of its queues.
struct Dir<'a> {
    path: &'a CStr,
    queue: Option<u32>,
}

impl Dir<'_> {
    fn ring(&self, order: Option<u32>) -> Result<RingLocation> {
        let mut location = RingLocation {
            refs: [0; PAGES_MAX],
            pages: 1usize.checked_shl(order.unwrap_or(0)).unwrap_or(1),
            port: 0,
        };
        // A frontend that knows of larger rings may number even a single page.
        let single = match order {
            None => true,
            Some(0) => self.number(c"ring-ref0")?.is_none(),
            Some(_) => false,
        };
        for (number, gref) in location.refs.iter_mut().enumerate().take(location.pages) {
            *gref = if single {
                self.required(c"ring-ref")?
            } else {
                let key = CString::try_from_fmt(fmt!("ring-ref{}", number));
                self.required(&key.map_err(|_| VbdError::NoMemoryForKey(c"ring-ref"))?)?
            };
        }
        location.port = self.required(c"event-channel")?;
        Ok(location)
    }

    /// The key's path below the frontend's directory.
    fn key_path(&self, key: &CStr) -> Result<CString> {
        let path = match self.queue {
            Some(queue) => CString::try_from_fmt(fmt!("queue-{}/{}", queue, key)),
            None => CString::try_from(key).map_err(Error::from),
        };
        path.map_err(|_| VbdError::NoMemoryForKey(c"a key of the frontend"))
    }

    fn text(&self, key: &CStr) -> Result<Option<Value>> {
        let path = self.key_path(key)?;
        DIRECT
            .read(self.path, &path)
            .map_err(|error| VbdError::Read { path, error })
    }

    fn number(&self, key: &CStr) -> Result<Option<u32>> {
        let Some(text) = self.text(key)? else {
            return Ok(None);
        };
        match decimal(text.bytes(), u32::MAX) {
            Some(number) => Ok(Some(number)),
            None => Err(VbdError::NotANumber {
                path: self.key_path(key)?,
                text,
            }),
        }
    }

    fn required(&self, key: &CStr) -> Result<u32> {
        self.number(key)?.ok_or_else(|| self.missing(key))
    }

    fn missing(&self, key: &CStr) -> VbdError {
        match self.key_path(key) {
            Ok(path) => VbdError::Missing { path },
            Err(error) => error,
        }
    }

    fn up_to(&self, key: &'static CStr, least: u32, most: u32) -> Result<Option<u32>> {
        match self.number(key)? {
            Some(number) if number < least || number > most => Err(VbdError::NotOffered {
                key,
                number,
                least,
                most,
            }),
            found => Ok(found),
        }
    }
}
