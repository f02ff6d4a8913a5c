// SPDX-License-Identifier: GPL-2.0

//! Connecting to a frontend: map its rings, tell it about the disk, serve them.
//!
//! What cannot be done ends the attempt with a text in our `error` key; what was mapped
//! until then is unmapped.

#![forbid(unsafe_code)]

use kernel::{
    prelude::*,
    sync::Arc, //
};

use crate::datapath::engine::Setup;
use crate::datapath::mapper::Bounds;
use crate::datapath::ring::Ring;
use crate::datapath::worker::Worker;
use crate::disk::Disk;
use crate::features;
use crate::logic::frames;
use crate::logic::frames::Demand;
use crate::logic::queue::RingId;
use crate::sys::params;
use crate::sys::rounds;
use crate::sys::thread::Thread;
use crate::sys::trace::Name;
use crate::vbd::Vbd;
use crate::wish::Place;
use crate::wish::Wish;
use crate::xenbus::device::State;
use crate::xenbus::shared_ring::SharedRing;

/// The rings of a connected disk.
pub(crate) struct Link {
    workers: KVec<Thread<Worker>>,
}

impl Link {
    /// Connects `vbd` to its frontend. Returns the size that it was told as well, in
    /// sectors of 512 bytes. Sleeps.
    ///
    /// # Errors
    ///
    /// The reason is in our `error` key, and Closing is announced.
    pub(crate) fn connect(vbd: &Arc<Vbd>, disk: &Arc<Disk>) -> Result<(Self, u64)> {
        let wish = Wish::read(vbd)?;
        let persistent = wish.persistent && params::feature_persistent();
        let bounds = reserve(vbd, &wish, persistent)?;
        Self::serve(vbd, disk, &wish, persistent, bounds).inspect_err(|_| unreserve(vbd))
    }

    fn serve(
        vbd: &Arc<Vbd>,
        disk: &Arc<Disk>,
        wish: &Wish,
        persistent: bool,
        bounds: Bounds,
    ) -> Result<(Self, u64)> {
        let entries = wish.abi.ring_entries(wish.pages);
        // The guest and this host are to see the same bytes.
        disk.device().drop_page_cache().inspect_err(|e| {
            vbd.fail(*e, fmt!("writing back the page cache of {}", disk.number()))
        })?;
        let sectors = features::describe(vbd, disk, wish.cdrom)
            .inspect_err(|e| vbd.fail(*e, fmt!("writing the description of the disk")))?;
        let workers = workers(vbd, wish.rings.len(), entries)
            .inspect_err(|e| vbd.fail(*e, fmt!("no memory for {} rings", wish.rings.len())))?;
        let link = Self { workers };
        for (worker, place) in link.workers.iter().zip(&wish.rings) {
            let served = ring(vbd, place, wish, entries).and_then(|ring| {
                let setup = Setup {
                    ring,
                    entries,
                    disk: disk.clone(),
                    port: place.port,
                    persistent,
                    bounds,
                };
                worker.connect(setup).inspect_err(|e| {
                    if *e == ENOMEM {
                        vbd.fail(*e, fmt!("no memory for a ring of {} slots", entries));
                    } else {
                        vbd.fail(*e, fmt!("binding to event-channel {}", place.port));
                    }
                })
            });
            if let Err(e) = served {
                // Nothing was taken off any ring yet.
                link.release(vbd);
                return Err(e);
            }
        }
        link.workers.iter().for_each(|worker| worker.start());
        vbd.announce(State::Connected);
        Ok((link, sectors))
    }

    /// Takes no more requests. Does not wait.
    pub(crate) fn stop(&self) {
        self.workers.iter().for_each(|worker| worker.stop());
    }

    /// Lets what is on the rings now through the gate.
    pub(crate) fn hurry(&self) {
        self.workers.iter().for_each(|worker| worker.hurry());
    }

    /// Unmaps what stayed mapped for too long.
    pub(crate) fn tidy(&self) {
        self.workers.iter().for_each(|worker| worker.tidy());
    }

    /// Gives back what memory can be given back.
    pub(crate) fn squeeze(&self) {
        self.workers.iter().for_each(|worker| worker.squeeze());
    }

    /// Was every request that was taken answered and unmapped?
    pub(crate) fn is_drained(&self) -> bool {
        self.workers.iter().all(|worker| worker.is_drained())
    }

    /// Unmaps the rings and ends their threads. Only when drained. Sleeps.
    pub(crate) fn release(self, vbd: &Arc<Vbd>) {
        drop(vbd.gate().detach());
        for worker in &self.workers {
            worker.release();
        }
        unreserve(vbd);
    }
}

/// Reserves the frames that the rings may use, of what their guest may.
fn reserve(vbd: &Arc<Vbd>, wish: &Wish, persistent: bool) -> Result<Bounds> {
    let demand = Demand {
        rings: wish.ring_count(),
        entries: wish.abi.ring_entries(wish.pages),
        pages: wish.pages,
        kept: if persistent {
            params::max_persistent_grants()
        } else {
            0
        },
    };
    let budget = params::max_guest_frames();
    let share = rounds::reserve(&**vbd, |others| {
        let free = frames::free(budget, others.reserved, others.members);
        match demand.share(free) {
            Some(share) => (demand.total(share), Ok(share)),
            None => (0, Err(free)),
        }
    });
    let share = share.map_err(|free| {
        vbd.fail(
            ENOSPC,
            fmt!(
                "{} rings of {} pages need {} frames; {} are free of the {} that the guest may have (max_guest_frames)",
                demand.rings,
                demand.pages,
                demand.least(),
                free,
                budget
            ),
        );
        ENOSPC
    })?;
    Ok(Bounds {
        frames: share.requests,
        kept: share.kept,
        copies: frames::copies_per_ring(demand.rings),
    })
}

fn unreserve(vbd: &Arc<Vbd>) {
    rounds::reserve(&**vbd, |_| (0, ()));
}

/// Workers for `count` rings of `entries` slots, each with a thread; the gate knows them
/// from here on.
fn workers(vbd: &Arc<Vbd>, count: usize, entries: u32) -> Result<KVec<Thread<Worker>>> {
    let mut workers = KVec::with_capacity(count, GFP_KERNEL)?;
    let mut asking = KVec::with_capacity(count, GFP_KERNEL)?;
    for number in 0..count {
        let number = RingId::try_from(number).map_err(|_| EINVAL)?;
        let worker = Worker::new(vbd.clone(), number, entries as usize)?;
        // Both have room for all.
        let _ = asking.push_within_capacity(worker.clone());
        let _ = workers.push_within_capacity(start(vbd, worker)?);
    }
    vbd.gate().attach(asking);
    vbd.turnstile().reset(u32::try_from(count).unwrap_or(0));
    Ok(workers)
}

/// Starts the thread of a worker. `ps` shows the whole name, what shows 15 characters the most
/// of it.
fn start(vbd: &Vbd, worker: Arc<Worker>) -> Result<Thread<Worker>> {
    let Name { domain, device } = vbd.gate().name();
    let number = worker.number;
    Thread::start(worker, fmt!("rblk/{}/{}-{}", domain, device, number))
}

fn ring(vbd: &Vbd, place: &Place, wish: &Wish, entries: u32) -> Result<Ring> {
    let refs = place.refs();
    let first = refs.first().copied().unwrap_or(0);
    let shared = SharedRing::map(vbd.device(), refs)
        .inspect_err(|e| vbd.fail(*e, fmt!("mapping the ring at ring-ref {}", first)))?;
    Ring::attach(shared, wish.abi, entries).map_err(|overrun| {
        vbd.fail(
            EINVAL,
            fmt!(
                "the ring at ring-ref {} holds impossible indices (req_prod {}, rsp_prod {})",
                first,
                overrun.req_prod,
                overrun.req_cons
            ),
        );
        EINVAL
    })
}
