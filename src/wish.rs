// SPDX-License-Identifier: GPL-2.0

//! What a frontend wrote into its directory: which rings, in which layout.
//!
//! Every key is hostile. A key that is missing or makes no sense ends the attempt to
//! connect with a text that names the key and its value.
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
//! With more than one queue, ring keys at the top mean nothing: a frontend that came
//! from a host with fewer queues leaves them behind.
//!
//! Source of the keys: Xen's `xen/include/public/io/blkif.h`.

#![forbid(unsafe_code)]

use kernel::{
    fmt,
    prelude::*,
    str::CString, //
};

use crate::logic::abi::Abi;
use crate::logic::number::decimal;
use crate::logic::number::Foreign;
use crate::logic::queue::RINGS_MAX;
use crate::sys::params;
use crate::vbd::Vbd;
use crate::xenbus::shared_ring::PAGES_MAX;
use crate::xenbus::store::Value;
use crate::xenbus::store::DIRECT;

/// Where one ring is.
pub(crate) struct Place {
    refs: [u32; PAGES_MAX],
    pages: usize,
    /// The frontend's event channel.
    pub(crate) port: u32,
}

impl Place {
    /// Grant references of its pages, in order.
    pub(crate) fn refs(&self) -> &[u32] {
        self.refs.get(..self.pages).unwrap_or_default()
    }
}

/// What a frontend asks for.
pub(crate) struct Wish {
    /// Its rings.
    pub(crate) rings: KVec<Place>,
    /// Their layout.
    pub(crate) abi: Abi,
    /// Pages of each ring.
    pub(crate) pages: u32,
    /// It offers grants that stay mapped.
    pub(crate) persistent: bool,
    /// The toolstack calls the disk a CD-ROM.
    pub(crate) cdrom: bool,
}

impl Wish {
    /// How many rings it names: at most as many as were offered.
    pub(crate) fn ring_count(&self) -> u32 {
        u32::try_from(self.rings.len()).unwrap_or(u32::MAX)
    }

    /// Reads it. Talks to xenstored.
    ///
    /// # Errors
    ///
    /// The reason is in our `error` key, and Closing is announced.
    pub(crate) fn read(vbd: &Vbd) -> Result<Self> {
        let top = Dir { vbd, queue: None };
        let order = top.up_to(c"ring-page-order", 0, params::max_ring_page_order())?;
        let most = (RINGS_MAX as u32).min(params::max_queues());
        let queues = top.up_to(c"multi-queue-num-queues", 1, most)?.unwrap_or(1);
        let protocol = top.text(c"protocol")?;
        let protocol = protocol.as_ref().map(Value::bytes);
        let Some(abi) = Abi::from_protocol(protocol) else {
            let protocol = Foreign(protocol.unwrap_or_default());
            return top.refuse(fmt!("protocol {} is not known", protocol));
        };
        let mut rings = KVec::with_capacity(queues as usize, GFP_KERNEL)
            .map_err(Error::from)
            .inspect_err(|e| vbd.fail(*e, fmt!("no memory for {} rings", queues)))?;
        for number in 0..queues {
            let dir = Dir {
                vbd,
                queue: (queues > 1).then_some(number),
            };
            // Within its capacity.
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
    vbd: &'a Vbd,
    queue: Option<u32>,
}

impl Dir<'_> {
    fn ring(&self, order: Option<u32>) -> Result<Place> {
        let mut place = Place {
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
        for (number, gref) in place.refs.iter_mut().enumerate().take(place.pages) {
            *gref = if single {
                self.required(c"ring-ref")?
            } else {
                let key = CString::try_from_fmt(fmt!("ring-ref{}", number))?;
                self.required(&key)?
            };
        }
        place.port = self.required(c"event-channel")?;
        Ok(place)
    }

    /// The key's path below the frontend's directory.
    fn path(&self, key: &CStr) -> Result<CString> {
        let path = match self.queue {
            Some(queue) => CString::try_from_fmt(fmt!("queue-{}/{}", queue, key)),
            None => CString::try_from(key).map_err(Error::from),
        };
        path.inspect_err(|e| self.vbd.fail(*e, fmt!("no memory for reading {}", key)))
    }

    fn text(&self, key: &CStr) -> Result<Option<Value>> {
        let path = self.path(key)?;
        DIRECT
            .read(self.vbd.frontend(), &path)
            .inspect_err(|e| self.vbd.fail(*e, fmt!("reading {}", &*path)))
    }

    fn number(&self, key: &CStr) -> Result<Option<u32>> {
        let Some(text) = self.text(key)? else {
            return Ok(None);
        };
        match decimal(text.bytes(), u32::MAX) {
            Some(number) => Ok(Some(number)),
            None => {
                let path = self.path(key)?;
                self.refuse(fmt!("{} {} is not a number", &*path, Foreign(text.bytes())))
            }
        }
    }

    fn required(&self, key: &CStr) -> Result<u32> {
        match self.number(key)? {
            Some(number) => Ok(number),
            None => {
                let path = self.path(key)?;
                self.refuse(fmt!("{} is missing", &*path))
            }
        }
    }

    fn up_to(&self, key: &CStr, least: u32, most: u32) -> Result<Option<u32>> {
        match self.number(key)? {
            Some(number) if number < least || number > most => self.refuse(fmt!(
                "{} {} was not offered, only {} to {}",
                key,
                number,
                least,
                most
            )),
            found => Ok(found),
        }
    }

    fn refuse<T>(&self, why: fmt::Arguments<'_>) -> Result<T> {
        self.vbd.fail(EINVAL, why);
        Err(EINVAL)
    }
}
