// SPDX-License-Identifier: GPL-2.0

//! Brings the frames of a ring's requests into this kernel's reach, and lets them go.
//!
//! Jobs are *staged*: what they need and is not there yet is gathered and mapped with
//! one call to Xen for all of them. A frontend that offers persistent grants finds its
//! frames still mapped when it uses them again; all others are unmapped, again
//! many at once, before the request is answered.
//!
//! Used by one worker, under its lock.

use kernel::prelude::*;

use super::job::Job;
use crate::logic::abi::INDIRECT_MAX;
use crate::logic::abi::SEGMENT_SIZE;
use crate::logic::persistent::Place;
use crate::logic::persistent::Slot;
use crate::logic::persistent::Table;
use crate::logic::persistent::ENTRIES_MAX;
use crate::logic::request::Transfer;
use crate::sys::params;
use crate::xenbus::grant::ForeignPage;
use crate::xenbus::grant::Loan;
use crate::xenbus::grant::MapBatch;
use crate::xenbus::grant::Mapped;
use crate::xenbus::grant::PageCache;
use crate::xenbus::grant::Snapshot;
use crate::xenbus::grant::UnmapBatch;

/// Frames mapped or unmapped with one call.
const BATCH: usize = INDIRECT_MAX as usize;
const NS_PER_SECOND: u64 = 1_000_000_000;

const _: () = assert!(BATCH * SEGMENT_SIZE <= crate::xenbus::grant::SNAPSHOT_SIZE);

/// A frame that a job works on.
pub(crate) enum Held {
    /// Not mapped yet, or refused.
    Missing,
    /// Mapped for this job alone.
    Own(Mapped),
    /// Stays mapped after it.
    Shared(Place, Loan),
}

impl Held {
    /// The page, once it is mapped.
    pub(crate) fn page(&self) -> Option<ForeignPage<'_>> {
        match self {
            Self::Missing => None,
            Self::Own(mapped) => Some(mapped.page()),
            Self::Shared(_, loan) => Some(loan.page()),
        }
    }

    /// Must the answer wait, because somebody still looks at a page that is to be
    /// unmapped?
    pub(crate) fn is_used(&self) -> bool {
        matches!(self, Self::Own(mapped) if mapped.is_used())
    }
}

type Persistent = Table<Mapped, KVec<Slot<Mapped>>>;

/// What a ring needs to map and unmap frames.
pub(crate) struct Mapper {
    domain: u16,
    cache: Pin<KBox<PageCache>>,
    map: MapBatch,
    unmap: UnmapBatch,
    snapshot: Snapshot,
    persistent: Option<Persistent>,
    /// Jobs whose frames are in `map`.
    staged: KVec<KBox<Job>>,
    /// Frames of jobs that were staged and not released.
    frames: u32,
    frames_max: u32,
}

impl Mapper {
    /// For a ring of `entries` slots of `domain`, whose requests may use `frames_max`
    /// frames at a time. `persistent`: its frontend offers persistent grants. Sleeps.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(
        domain: u16,
        entries: usize,
        frames_max: u32,
        persistent: bool,
    ) -> Result<Self> {
        Ok(Self {
            domain,
            cache: KBox::pin_init(PageCache::new(), GFP_KERNEL)?,
            map: MapBatch::new(BATCH)?,
            unmap: UnmapBatch::new(BATCH)?,
            snapshot: Snapshot::new()?,
            persistent: if persistent { Some(table()?) } else { None },
            staged: KVec::with_capacity(entries.min(BATCH), GFP_KERNEL)?,
            frames: 0,
            frames_max,
        })
    }

    /// May a request of `segments` segments be taken now, or are too many frames in
    /// use already?
    pub(crate) fn has_room_for(&self, segments: u16) -> bool {
        self.frames.saturating_add(u32::from(segments)) <= self.frames_max
    }

    /// Must what is staged be mapped before another job of `segments` segments is?
    pub(crate) fn must_map_first(&self, segments: u16) -> bool {
        self.map.room() < usize::from(segments) || self.staged.len() == self.staged.capacity()
    }

    /// A private copy of the segments of an indirect transfer. May sleep.
    ///
    /// # Errors
    ///
    /// `EFAULT` if Xen refuses to copy the frame.
    pub(crate) fn segments(&mut self, transfer: &Transfer, frame: u32) -> Result<&[u8]> {
        let len = usize::from(transfer.count()).saturating_mul(SEGMENT_SIZE);
        self.snapshot.take(self.domain, frame, len)
    }

    /// Notes what `job` needs. Only if [`Self::must_map_first`] said no. May sleep.
    pub(crate) fn stage(&mut self, mut job: KBox<Job>, now: u64) {
        // A grant that stays is mapped for both directions.
        let writable = job.writes_to_guest() || self.persistent.is_some();
        self.frames = self.frames.saturating_add(u32::from(job.frame_count()));
        let (extents, held) = job.frames();
        for extent in extents {
            let known = self
                .persistent
                .as_mut()
                .and_then(|table| table.acquire(extent.gref(), now));
            let frame = match known {
                Some((place, mapped)) => Held::Shared(place, mapped.lend()),
                None => {
                    let pushed = self
                        .map
                        .push(&self.cache, self.domain, extent.gref(), writable);
                    if pushed.is_err() {
                        break;
                    }
                    Held::Missing
                }
            };
            // Its room has capacity for every extent.
            let _ = held.push_within_capacity(frame);
        }
        let _ = self.staged.push_within_capacity(job);
    }

    /// Maps what was noted, and hands every staged job to `ready`. May sleep.
    pub(crate) fn map_staged(&mut self, now: u64, mut ready: impl FnMut(KBox<Job>)) {
        let mut missing = self
            .staged
            .iter_mut()
            .flat_map(|job| job.frames().1.iter_mut())
            .filter(|held| matches!(held, Held::Missing));
        let table = &mut self.persistent;
        self.map.run(&self.cache, &mut self.unmap, |gref, mapped| {
            if let (Some(held), Some(mapped)) = (missing.next(), mapped) {
                *held = keep(table, gref, mapped, now);
            }
        });
        self.unmap.run(&self.cache);
        for job in self.staged.drain_all() {
            ready(job);
        }
    }

    /// Lets go of the frames of a job that is done. They are unmapped by
    /// [`Self::settle`] at the latest.
    pub(crate) fn release(&mut self, job: &mut Job) {
        self.frames = self.frames.saturating_sub(u32::from(job.frame_count()));
        for held in job.frames().1.drain_all() {
            match held {
                Held::Missing => {}
                Held::Own(mapped) => self.unmap.push(mapped, &self.cache),
                Held::Shared(place, loan) => {
                    let table = self.persistent.as_mut();
                    if let Some(mapped) = table.and_then(|table| table.release(place)) {
                        mapped.take_back(loan);
                    }
                }
            }
        }
    }

    /// Unmaps what was released. Sleeps.
    pub(crate) fn settle(&mut self) {
        self.unmap.run(&self.cache);
    }

    /// Grants that stay mapped now.
    pub(crate) fn kept(&self) -> u16 {
        self.persistent.as_ref().map_or(0, |table| table.len())
    }

    /// Gives pages back until `keep` free ones are left. Sleeps.
    pub(crate) fn shrink(&self, keep: u32) {
        self.cache.shrink(keep);
    }

    /// Unmaps grants that stayed and were not used for long. Sleeps.
    pub(crate) fn expire(&mut self, now: u64) {
        // 0 stands for never.
        let unused = u64::from(params::persistent_grant_unused_seconds());
        if unused > 0 {
            let before = now.saturating_sub(unused.saturating_mul(NS_PER_SECOND));
            self.evict(before, usize::MAX);
        }
        // The administrator may have lowered the cap.
        let most = params::max_persistent_grants() as usize;
        self.evict(now, usize::from(self.kept()).saturating_sub(most));
    }

    /// Unmaps every grant that stayed and is not in use. Returns whether none is left.
    /// Sleeps.
    pub(crate) fn forget(&mut self) -> bool {
        self.evict(u64::MAX, usize::MAX);
        self.persistent
            .as_ref()
            .is_none_or(|table| table.is_empty())
    }

    fn evict(&mut self, before: u64, most: usize) {
        if let Some(table) = &mut self.persistent {
            table.evict(before, most, Mapped::is_used, |mapped| {
                self.unmap.push(mapped, &self.cache)
            });
            self.unmap.run(&self.cache);
        }
    }
}

/// A frame just mapped: stays if there is room for it, and its only user is the job
/// that asked first.
fn keep(table: &mut Option<Persistent>, gref: u32, mut mapped: Mapped, now: u64) -> Held {
    let Some(table) = table else {
        return Held::Own(mapped);
    };
    let most = params::max_persistent_grants();
    // Several segments that were staged together may name the same grant.
    if u32::from(table.len()) >= most || table.is_full() || table.contains(gref) {
        return Held::Own(mapped);
    }
    let loan = mapped.lend();
    match table.insert(gref, mapped, now) {
        Ok(place) => Held::Shared(place, loan),
        // Never, after what was asked above.
        Err(mut mapped) => {
            mapped.take_back(loan);
            Held::Own(mapped)
        }
    }
}

fn table() -> Result<Persistent> {
    let entries = (params::max_persistent_grants() as usize).min(ENTRIES_MAX);
    let mut slots = KVec::with_capacity(entries, GFP_KERNEL)?;
    for _ in 0..entries {
        // Within its capacity.
        let _ = slots.push_within_capacity(Slot::new());
    }
    Ok(Table::new(slots, params::random()))
}
