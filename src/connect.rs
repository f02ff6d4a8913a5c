// SPDX-License-Identifier: GPL-2.0

//! Connecting to a frontend: read what it wrote, map its ring, tell it about the
//! disk.
//!
//! Every key of the frontend is hostile. A key that is missing or makes no sense
//! ends the attempt with a text that names the key and its value; what was mapped
//! until then is unmapped.
//!
//! Source of the keys: Xen's `xen/include/public/io/blkif.h`.

#![forbid(unsafe_code)]

use kernel::{
    fmt,
    prelude::*,
    sync::Arc, //
};

use crate::datapath::ring::Ring;
use crate::datapath::worker::Worker;
use crate::disk::Disk;
use crate::logic::abi::Abi;
use crate::logic::number::decimal;
use crate::logic::number::Foreign;
use crate::vbd::Vbd;
use crate::xenbus::device::State;
use crate::xenbus::shared_ring::SharedRing;
use crate::xenbus::store::within;
use crate::xenbus::store::Value;
use crate::xenbus::store::DIRECT;

/// Pages of a ring that is offered.
const RING_PAGES: u32 = 1;

/// What a frontend asks for.
struct Wish {
    ring_ref: u32,
    port: u32,
    abi: Abi,
    cdrom: bool,
}

/// The rings of a connected disk.
pub(crate) struct Link {
    workers: KVec<Arc<Worker>>,
}

impl Link {
    /// Connects `vbd` to its frontend. Sleeps.
    ///
    /// # Errors
    ///
    /// The reason is in our `error` key, and Closing is announced.
    pub(crate) fn connect(vbd: &Arc<Vbd>, disk: &Arc<Disk>) -> Result<Self> {
        let wish = Wish::read(vbd)?;
        let entries = wish.abi.ring_entries(RING_PAGES);
        let shared = SharedRing::map(vbd.device(), &[wish.ring_ref])
            .inspect_err(|e| vbd.fail(*e, fmt!("mapping ring-ref {}", wish.ring_ref)))?;
        let ring = Ring::attach(shared, wish.abi, entries).map_err(|overrun| {
            vbd.fail(
                EINVAL,
                fmt!(
                    "the ring at ring-ref {} holds impossible indices (req_prod {}, rsp_prod {})",
                    wish.ring_ref,
                    overrun.req_prod,
                    overrun.req_cons
                ),
            );
            EINVAL
        })?;
        // The guest and this host are to see the same bytes.
        disk.device().drop_page_cache().inspect_err(|e| {
            vbd.fail(*e, fmt!("writing back the page cache of {}", disk.number()))
        })?;
        describe(vbd, disk, wish.cdrom)
            .inspect_err(|e| vbd.fail(*e, fmt!("writing the description of the disk")))?;
        let link = Self::start(vbd, disk, ring, entries, wish.port)?;
        vbd.announce(State::Connected);
        Ok(link)
    }

    fn start(
        vbd: &Arc<Vbd>,
        disk: &Arc<Disk>,
        ring: Ring,
        entries: u32,
        port: u32,
    ) -> Result<Self> {
        let no_memory = |e: &Error| vbd.fail(*e, fmt!("no memory for a ring"));
        let worker = Worker::new(vbd.clone(), 0, entries).inspect_err(no_memory)?;
        let mut workers = KVec::with_capacity(1, GFP_KERNEL)
            .map_err(Error::from)
            .inspect_err(no_memory)?;
        let mut asking = KVec::with_capacity(1, GFP_KERNEL)
            .map_err(Error::from)
            .inspect_err(no_memory)?;
        // Both have room for one.
        let _ = workers.push_within_capacity(worker.clone());
        let _ = asking.push_within_capacity(worker.clone());
        vbd.gate().attach(asking);
        let link = Self { workers };
        if let Err(e) = worker.connect(ring, entries, disk.clone(), port) {
            vbd.fail(e, fmt!("binding to event-channel {}", port));
            link.release(vbd);
            return Err(e);
        }
        Ok(link)
    }

    /// Takes no more requests. Does not wait.
    pub(crate) fn stop(&self) {
        for worker in &self.workers {
            worker.stop();
        }
    }

    /// Lets what is on the rings now through the gate.
    pub(crate) fn hurry(&self) {
        for worker in &self.workers {
            worker.hurry();
        }
    }

    /// Was every request that was taken answered and unmapped?
    pub(crate) fn is_drained(&self) -> bool {
        self.workers.iter().all(|worker| worker.is_drained())
    }

    /// Unmaps the rings. Only when drained. Sleeps.
    pub(crate) fn release(self, vbd: &Vbd) {
        drop(vbd.gate().detach());
        for worker in &self.workers {
            worker.release();
        }
    }
}

impl Wish {
    fn read(vbd: &Vbd) -> Result<Self> {
        only_one(vbd, c"multi-queue-num-queues", 1)?;
        let order = only_one(vbd, c"ring-page-order", 0)?;
        // A frontend that knows of larger rings may number even a single page.
        let numbered = match order {
            Some(_) => optional(vbd, c"ring-ref0")?,
            None => None,
        };
        let ring_ref = match numbered {
            Some(ring_ref) => ring_ref,
            None => required(vbd, c"ring-ref")?,
        };
        let port = required(vbd, c"event-channel")?;
        let protocol = text(vbd, c"protocol")?;
        let protocol = protocol.as_ref().map(Value::bytes);
        let Some(abi) = Abi::from_protocol(protocol) else {
            let protocol = Foreign(protocol.unwrap_or_default());
            return refuse(vbd, fmt!("protocol {} is not known", protocol));
        };
        let kind = text(vbd, c"device-type")?;
        let cdrom = kind.is_some_and(|kind| kind.bytes() == b"cdrom");
        Ok(Self {
            ring_ref,
            port,
            abi,
            cdrom,
        })
    }
}

fn text(vbd: &Vbd, key: &CStr) -> Result<Option<Value>> {
    DIRECT
        .read(vbd.frontend(), key)
        .inspect_err(|e| vbd.fail(*e, fmt!("reading {}", key)))
}

fn refuse<T>(vbd: &Vbd, why: fmt::Arguments<'_>) -> Result<T> {
    vbd.fail(EINVAL, why);
    Err(EINVAL)
}

fn optional(vbd: &Vbd, key: &CStr) -> Result<Option<u32>> {
    let Some(text) = text(vbd, key)? else {
        return Ok(None);
    };
    match decimal(text.bytes(), u32::MAX) {
        Some(number) => Ok(Some(number)),
        None => refuse(
            vbd,
            fmt!("{} {} is not a number", key, Foreign(text.bytes())),
        ),
    }
}

fn required(vbd: &Vbd, key: &CStr) -> Result<u32> {
    match optional(vbd, key)? {
        Some(number) => Ok(number),
        None => refuse(vbd, fmt!("{} is missing", key)),
    }
}

/// A key that, if it is there, can only have one value.
fn only_one(vbd: &Vbd, key: &CStr, value: u32) -> Result<Option<u32>> {
    match optional(vbd, key)? {
        Some(other) if other != value => refuse(
            vbd,
            fmt!("{} {} was not offered, only {}", key, other, value),
        ),
        found => Ok(found),
    }
}

/// Writes what a frontend has to know before it asks for anything.
pub(crate) fn offer(vbd: &Vbd) -> Result {
    within(vbd.nodename(), |store, dir| {
        // Zero and one rather than nothing: another backend may have offered more
        // before us.
        store.write(dir, c"max-ring-page-order", fmt!("0"))?;
        store.write(dir, c"multi-queue-max-queues", fmt!("1"))?;
        store.write(dir, c"feature-max-indirect-segments", fmt!("0"))
    })
}

/// Writes what a frontend has to know of the disk, all at once.
fn describe(vbd: &Vbd, disk: &Disk, cdrom: bool) -> Result {
    let traits = disk.traits();
    within(vbd.nodename(), |store, dir| {
        let flag = |key, set| store.write(dir, key, fmt!("{}", u8::from(set)));
        flag(c"feature-flush-cache", traits.write_cache)?;
        flag(c"feature-barrier", false)?;
        flag(c"feature-discard", false)?;
        flag(c"feature-persistent", false)?;
        store.write(dir, c"sectors", fmt!("{}", traits.sectors))?;
        store.write(dir, c"info", fmt!("{}", disk.info(cdrom)))?;
        store.write(dir, c"sector-size", fmt!("{}", traits.logical_block_size))?;
        store.write(
            dir,
            c"physical-sector-size",
            fmt!("{}", traits.physical_block_size),
        )
    })
}
