// SPDX-License-Identifier: GPL-2.0

//! Connecting to a frontend: mapping its rings, telling it about the disk, serving it; and the end
//! of that.
//!
//! An attempt that fails leaves nothing behind: what was mapped until then is unmapped.

use kernel::{
    fmt,
    prelude::*,
    sync::Arc, //
};

use super::error::VbdError;
use super::features;
use super::features::Offers;
use super::features::OptionalFeatures;
use super::frontend_config::FrontendConfig;
use super::frontend_config::RingLocation;
use super::ring_workers::RingWorkers;
use crate::datapath::backing_device::BackingDevice;
use crate::datapath::disk_context::DiskContext;
use crate::datapath::disk_context::DiskEvents;
use crate::datapath::engine::RingSetup;
use crate::datapath::mapper::FrameLimits;
use crate::datapath::ring::Ring;
use crate::datapath::worker::Worker;
use crate::logic::frame_budget;
use crate::logic::frame_budget::Demand;
use crate::logic::ids::RingId;
use crate::logic::protocol::abi::Abi;
use crate::sys::params;
use crate::xenbus::shared_ring::SharedRing;

/// What a connection is made of.
pub(super) struct Parties<'a> {
    /// What the rings need of the disk.
    pub(super) context: &'a Arc<DiskContext>,
    /// What hears of the rings.
    pub(super) events: Arc<dyn DiskEvents>,
    /// The frontend's directory in xenstore.
    pub(super) frontend: &'a CStr,
    /// The device.
    pub(super) device: &'a Arc<BackingDevice>,
    /// What the device turned out not to know.
    pub(super) optional: &'a OptionalFeatures,
    /// The frontend was connected before: it goes by what it was offered then.
    pub(super) running: bool,
}

/// The rings of a connected disk.
pub(super) struct Connection {
    workers: KVec<Arc<Worker>>,
    /// Pages of each ring.
    pages: u32,
    /// The size that the frontend was told, in sectors of 512 bytes.
    sectors: u64,
    /// Grants stay mapped.
    persistent: bool,
}

impl fmt::Display for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let grants = if self.persistent {
            "persistent"
        } else {
            "copied"
        };
        f.write_fmt(fmt!(
            "queues {}, ring pages {}, grants {}",
            self.workers.len(),
            self.pages,
            grants
        ))
    }
}

impl Connection {
    /// Connects the disk to its frontend. Requests are served from [`Self::start`] on. Sleeps, for as
    /// long as the device takes to write its page cache back.
    ///
    /// # Errors
    ///
    /// Why the frontend cannot be served.
    pub(super) fn new(
        parties: &Parties<'_>,
        ring_workers: &mut RingWorkers,
    ) -> Result<Self, VbdError> {
        let offers = Offers::read(parties.context.dev.nodename()).map_err(VbdError::Keys)?;
        let config = FrontendConfig::read(parties.frontend, &offers)?;
        // Decided once: a frontend that is told anything else than what is done would count on
        // grants that are not mapped, or the other way round.
        let offered = if parties.running {
            offers.persistent
        } else {
            params::feature_persistent()
        };
        let persistent = config.persistent && offered;
        let limits = reserve(parties.context, &config, persistent);
        Self::serve(parties, ring_workers, &config, offered, limits)
            .inspect_err(|_| unreserve(parties.context))
    }

    /// Serves the rings that `config` names.
    ///
    /// What costs least and fails most often comes first: a driver that had the disk before may keep
    /// its event channels for long, and a guest may name channels that are not its own.
    // Not inlined, so that its stack frame does not add to that of the caller.
    #[inline(never)]
    fn serve(
        parties: &Parties<'_>,
        ring_workers: &mut RingWorkers,
        config: &FrontendConfig,
        offered: bool,
        limits: FrameLimits,
    ) -> Result<Self, VbdError> {
        let count = config.rings.len();
        let no_memory = |error: Error| VbdError::NoMemoryForRings {
            rings: count,
            error,
        };
        ring_workers.reserve(count).map_err(no_memory)?;
        let workers = KVec::with_capacity(count, GFP_KERNEL).map_err(|e| no_memory(e.into()))?;
        let mut connection = Self {
            workers,
            pages: config.pages,
            sectors: 0,
            persistent: limits.kept > 0,
        };
        let served = connection
            .bind_all(parties, ring_workers, config, limits)
            .and_then(|()| connection.describe(parties, config, offered))
            .and_then(|()| {
                let started = ring_workers.start_threads(parties.context);
                started
                    .and_then(|()| connection.join_gate(parties))
                    .map_err(no_memory)
            })
            .and_then(|()| connection.attach_all(config));
        if let Err(error) = served {
            // No request was consumed yet.
            connection.release(parties.context);
            return Err(error);
        }
        ring_workers.truncate(count);
        Ok(connection)
    }

    /// Has the rings served. Does not wait.
    pub(super) fn start(&self) {
        self.workers.iter().for_each(|worker| worker.start());
    }

    /// Has a worker for each ring, maps the ring and binds its event channel.
    // Not inlined, so that its stack frame does not add to that of the caller.
    #[inline(never)]
    fn bind_all(
        &mut self,
        parties: &Parties<'_>,
        ring_workers: &mut RingWorkers,
        config: &FrontendConfig,
        limits: FrameLimits,
    ) -> Result<(), VbdError> {
        let entries = config.entries();
        for (number, location) in (0..=RingId::MAX).zip(&config.rings) {
            let worker = ring_workers
                .worker(parties.context, &parties.events, number)
                .map_err(|_| VbdError::NoMemoryForRing { entries })?;
            let setup = RingSetup {
                ring: map_ring(parties.context, location, config.abi, entries)?,
                entries,
                device: parties.device.clone(),
                port: location.port,
                // Without a grant that may stay, copies cost less than a mapping per request.
                persistent: self.persistent,
                limits,
            };
            connect_worker(&worker, setup)?;
            // The vector has capacity for all.
            let _ = self.workers.push_within_capacity(worker);
        }
        Ok(())
    }

    /// Tells the frontend about the disk. Sleeps, for as long as the device takes to write its page
    /// cache back.
    fn describe(
        &mut self,
        parties: &Parties<'_>,
        config: &FrontendConfig,
        offered: bool,
    ) -> Result<(), VbdError> {
        let device = parties.device;
        // The guest and this host are to see the same bytes.
        let synced = device.block_device().drop_page_cache();
        synced.map_err(|error| VbdError::PageCache {
            device: device.number(),
            error,
        })?;
        let dir = parties.context.dev.nodename();
        let sectors = features::describe(dir, parties.optional, device, config.cdrom, offered);
        self.sectors = sectors.map_err(VbdError::Describe)?;
        Ok(())
    }

    /// The gate and the barrier know the rings from here on.
    fn join_gate(&self, parties: &Parties<'_>) -> Result {
        let context = parties.context;
        let mut wakers = KVec::with_capacity(self.workers.len(), GFP_KERNEL)?;
        for worker in &self.workers {
            // The vector has capacity for all.
            let _ = wakers.push_within_capacity(worker.waker());
        }
        context
            .write_barrier
            .reset(u32::try_from(wakers.len()).unwrap_or(0));
        context.gate.attach(wakers);
        Ok(())
    }

    /// Looks where each ring stands. A driver that had the disk before keeps its event channels until
    /// its last response is written, so no ring may be looked at before all channels are bound: that
    /// alone keeps two drivers from serving the same request.
    fn attach_all(&self, config: &FrontendConfig) -> Result<(), VbdError> {
        for (worker, location) in self.workers.iter().zip(&config.rings) {
            let gref = location.refs().first().copied().unwrap_or(0);
            let attached = worker.attach();
            attached.map_err(|overrun| VbdError::RingIndices { gref, overrun })?;
        }
        Ok(())
    }

    /// The size that the frontend was told, in sectors of 512 bytes.
    pub(super) fn sectors(&self) -> u64 {
        self.sectors
    }

    /// No request is consumed any more. `abandoned`: nor does the frontend expect anything of those that
    /// were. Does not wait.
    pub(super) fn stop(&self, abandoned: bool) {
        self.workers
            .iter()
            .for_each(|worker| worker.stop(abandoned));
    }

    /// Admits what is on the rings now.
    pub(super) fn admit_backlog(&self) {
        self.workers
            .iter()
            .for_each(|worker| worker.admit_backlog());
    }

    /// Unmaps what stayed mapped for too long.
    pub(super) fn expire_grants(&self) {
        self.workers
            .iter()
            .for_each(|worker| worker.expire_grants());
    }

    /// Gives back the memory that the rings can spare.
    pub(super) fn reclaim(&self) {
        self.workers.iter().for_each(|worker| worker.reclaim());
    }

    /// Does every request that was consumed have its response, and is everything unmapped?
    pub(super) fn is_drained(&self) -> bool {
        self.workers.iter().all(|worker| worker.is_drained())
    }

    /// Unmaps the rings. To be called when drained. Sleeps.
    pub(super) fn release(self, context: &DiskContext) {
        drop(context.gate.detach());
        for worker in &self.workers {
            worker.release();
        }
        unreserve(context);
    }
}

/// Reserves the frames that the rings may use, of those that their guest may.
fn reserve(context: &DiskContext, config: &FrontendConfig, persistent: bool) -> FrameLimits {
    let demand = Demand {
        rings: config.ring_count(),
        entries: config.entries(),
        pages: config.pages,
        persistent: if persistent {
            params::max_persistent_grants()
        } else {
            0
        },
    };
    let budget = params::max_guest_frames();
    let frames = context.gate.slot().reserve_frames(|others| {
        let free = frame_budget::free(budget, others.frames, others.disks);
        let frames = demand.frames_per_ring(free);
        (demand.total(frames), frames)
    });
    FrameLimits {
        frames: frames.requests,
        kept: frames.persistent,
        copies: frame_budget::copies_per_ring(demand.rings),
    }
}

fn unreserve(context: &DiskContext) {
    context.gate.slot().reserve_frames(|_| (0, ()));
}

fn map_ring(
    context: &DiskContext,
    location: &RingLocation,
    abi: Abi,
    entries: u32,
) -> Result<Ring, VbdError> {
    let refs = location.refs();
    let gref = refs.first().copied().unwrap_or(0);
    let shared = SharedRing::map(context.dev.frontend_id(), refs)
        .and_then(|shared| Ok(Arc::new(shared, GFP_KERNEL)?))
        .map_err(|error| VbdError::MapRing { gref, error })?;
    Ok(Ring::new(shared, abi, entries))
}

fn connect_worker(worker: &Worker, setup: RingSetup) -> Result<(), VbdError> {
    let (entries, port) = (setup.entries, setup.port);
    worker.connect(setup).map_err(|error| {
        if error == ENOMEM {
            VbdError::NoMemoryForRing { entries }
        } else {
            VbdError::BindEventChannel { port, error }
        }
    })
}
