// SPDX-License-Identifier: GPL-2.0

//! Brings the frames of a ring's requests into this kernel's reach, and lets them go.
//!
//! Jobs are *staged*: what they need and is not there yet is gathered, and mapped or copied
//! with one call to Xen for all of them.
//!
//! | the frontend | its frames |
//! |---|---|
//! | offers persistent grants | are found still mapped when it uses them again ([`Keeper`]) |
//! | does not | are copied ([`Copier`]) |
//! | as many as can be kept or copied are in use | are mapped, and unmapped before the answer |
//!
//! Used by one worker, under its lock.

use kernel::prelude::*;

use super::copier::Copier;
use super::held::Held;
use super::job::Job;
use super::keeper::Keeper;
use crate::logic::abi::INDIRECT_MAX;
use crate::logic::abi::SEGMENT_SIZE;
use crate::logic::request::Extent;
use crate::logic::request::Transfer;
use crate::logic::trail::Trail;
use crate::xenbus::copy::Snapshot;
use crate::xenbus::grant::MapBatch;
use crate::xenbus::grant::PageCache;
use crate::xenbus::grant::UnmapBatch;

/// Frames mapped or unmapped with one call.
const BATCH: usize = INDIRECT_MAX as usize;

const _: () = assert!(BATCH * SEGMENT_SIZE <= crate::xenbus::copy::SNAPSHOT_SIZE);

/// Frames that a ring may use at a time.
#[derive(Clone, Copy)]
pub(crate) struct Bounds {
    /// For its requests, in all.
    pub(crate) frames: u32,
    /// Of those, copied.
    pub(crate) copies: u32,
    /// That stay mapped if its frontend offers persistent grants.
    pub(crate) kept: u32,
}

/// What a ring needs to map, copy and unmap frames.
pub(crate) struct Mapper {
    domain: u16,
    cache: Pin<KBox<PageCache>>,
    map: MapBatch,
    unmap: UnmapBatch,
    snapshot: Snapshot,
    way: Way,
    /// Jobs whose frames are gathered.
    staged: KVec<Job>,
    /// Through the jobs that are staged.
    trail: Trail,
    /// Frames of jobs that were staged and not released.
    frames: u32,
    frames_max: u32,
}

/// What is tried before frames are mapped for one job.
enum Way {
    Keep(Keeper),
    Copy(Copier),
}

impl Mapper {
    /// For a ring of `entries` slots of `domain`. `persistent`: its frontend offers
    /// persistent grants. Sleeps.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(
        domain: u16,
        entries: usize,
        bounds: Bounds,
        persistent: bool,
    ) -> Result<Self> {
        let way = if persistent {
            Way::Keep(Keeper::new(bounds.kept as usize)?)
        } else {
            Way::Copy(Copier::new(domain, bounds.copies as usize)?)
        };
        Ok(Self {
            domain,
            cache: KBox::pin_init(PageCache::new(), GFP_KERNEL)?,
            map: MapBatch::new(BATCH)?,
            unmap: UnmapBatch::new(BATCH)?,
            snapshot: Snapshot::new()?,
            way,
            staged: KVec::with_capacity(entries.min(BATCH), GFP_KERNEL)?,
            trail: Trail::new(),
            frames: 0,
            frames_max: bounds.frames,
        })
    }

    /// May a request of `segments` segments be taken now, or are too many frames in
    /// use already?
    pub(crate) fn has_room_for(&self, segments: u16) -> bool {
        self.frames.saturating_add(u32::from(segments)) <= self.frames_max
    }

    /// Must what is staged be mapped before another job of `segments` segments is?
    pub(crate) fn must_map_first(&self, segments: u16) -> bool {
        let copies = match &self.way {
            Way::Keep(_) => false,
            Way::Copy(copier) => copier.must_copy_first(segments),
        };
        copies
            || self.map.room() < usize::from(segments)
            || self.staged.len() == self.staged.capacity()
    }

    /// A private copy of the segments of an indirect transfer. May sleep.
    ///
    /// # Errors
    ///
    /// `EFAULT` if Xen lets us neither map nor copy the frame.
    pub(crate) fn segments(&mut self, transfer: &Transfer, frame: u32, now: u64) -> Result<&[u8]> {
        let len = usize::from(transfer.count()).saturating_mul(SEGMENT_SIZE);
        let at = (self.domain, frame);
        if let Way::Keep(keeper) = &mut self.way {
            if keeper.keeps(at, (&self.cache, &mut self.unmap), now) {
                return keeper.look_into(frame, &mut self.snapshot, len, now);
            }
        }
        self.snapshot.take(self.domain, frame, len)
    }

    /// Notes what `job` needs. Only if [`Self::must_map_first`] said no. `merges_late`: the
    /// device's queue may merge it with what is not staged now. May sleep.
    pub(crate) fn stage(&mut self, mut job: Job, merges_late: bool, now: u64) {
        self.note_neighbour(&mut job, merges_late);
        let (reads, count) = (job.writes_to_guest(), job.frame_count());
        self.frames = self.frames.saturating_add(u32::from(count));
        let owns = match &mut self.way {
            Way::Keep(keeper) => {
                gather(
                    &mut job,
                    |extent| keeper.find(extent.gref(), now),
                    |extent| {
                        // A grant that stays is mapped for both directions.
                        self.map.push(&self.cache, self.domain, extent.gref(), true)
                    },
                )
            }
            Way::Copy(copier) => {
                let copied = copier.reserve(usize::from(count));
                gather(
                    &mut job,
                    |extent| copied.then(|| copier.prepare(extent, !reads)).flatten(),
                    |extent| {
                        self.map
                            .push(&self.cache, self.domain, extent.gref(), reads)
                    },
                )
            }
        };
        job.set_owns(owns);
        let _ = self.staged.push_within_capacity(job);
    }

    /// Notes whether `job` continues the one before it. That costs less than to have the
    /// device's queue find out that it does not.
    fn note_neighbour(&mut self, job: &mut Job, merges_late: bool) {
        let (first, sectors) = job.range();
        let continues = self.trail.continues(first, sectors);
        if let (true, Some(previous)) = (continues, self.staged.last_mut()) {
            previous.set_alone(false);
        }
        job.set_alone(!merges_late && !continues);
    }

    /// Nothing is staged?
    pub(crate) fn is_idle(&self) -> bool {
        self.staged.is_empty()
    }

    /// Maps and copies what was noted. May sleep.
    pub(crate) fn map_staged(&mut self, now: u64) {
        self.trail = Trail::new();
        let frames = self
            .staged
            .iter_mut()
            .flat_map(|job| job.frames().1.iter_mut());
        let mut missing = frames.filter(|held| matches!(held, Held::Missing));
        let way = &mut self.way;
        self.map.run(&self.cache, &mut self.unmap, |gref, mapped| {
            let (Some(held), Some(mapped)) = (missing.next(), mapped) else {
                return;
            };
            *held = match way {
                Way::Keep(keeper) => keeper.keep(gref, mapped, now),
                Way::Copy(_) => Held::Own(mapped),
            };
        });
        self.unmap.run(&self.cache);
        if let Way::Copy(copier) = &mut self.way {
            let frames = self
                .staged
                .iter_mut()
                .flat_map(|job| job.frames().1.iter_mut());
            copier.fetch(frames.filter(|held| matches!(held, Held::Expected)));
        }
    }

    /// What is staged, to be taken after [`Self::map_staged`].
    pub(crate) fn staged(&mut self) -> &mut KVec<Job> {
        &mut self.staged
    }

    /// Lets go of the frames of jobs that are done, so that they can be answered. A job
    /// fails if the guest cannot be given what it read. Sleeps.
    pub(crate) fn release(&mut self, jobs: &mut [Job]) {
        for owner in 0..jobs.len() {
            if let (Way::Copy(copier), Some(job)) = (&mut self.way, jobs.get(owner)) {
                if copier.must_copy_first(job.frame_count()) {
                    copier.settle(jobs);
                }
            }
            if let Some(job) = jobs.get_mut(owner) {
                self.release_one(job, owner);
            }
        }
        if let Way::Copy(copier) = &mut self.way {
            copier.settle(jobs);
        }
        self.unmap.run(&self.cache);
    }

    /// The job is number `owner` of those that are released.
    fn release_one(&mut self, job: &mut Job, owner: usize) {
        self.frames = self.frames.saturating_sub(u32::from(job.frame_count()));
        let bring = job.writes_to_guest() && job.is_good();
        let mut good = true;
        let (extents, held) = job.frames();
        for (held, extent) in held.drain_all().zip(extents) {
            match (held, &mut self.way) {
                (Held::Own(mapped), _) => self.unmap.push(mapped, &self.cache),
                (Held::Shared(place, loan), Way::Keep(keeper)) => keeper.release(place, loan),
                (Held::Copied(buffer), Way::Copy(copier)) if bring => {
                    good &= copier.bring(buffer, extent, owner);
                }
                (Held::Copied(buffer), Way::Copy(copier)) => copier.put(buffer),
                // Nothing to let go of.
                (Held::Missing | Held::Expected, _) => {}
                // Never.
                (Held::Shared(..), Way::Copy(_)) | (Held::Copied(_), Way::Keep(_)) => good = false,
            }
        }
        if !good {
            job.fail();
        }
    }

    /// Frames that stay mapped and pages for copies that nobody uses now.
    pub(crate) fn kept(&self) -> usize {
        match &self.way {
            Way::Keep(keeper) => usize::from(keeper.len()),
            Way::Copy(copier) => copier.spare(),
        }
    }

    /// Gives pages back until `keep` free ones are left. Sleeps.
    pub(crate) fn shrink(&mut self, keep: u32) {
        self.cache.shrink(keep);
        if let Way::Copy(copier) = &mut self.way {
            copier.shrink(keep as usize);
        }
    }

    /// Lets go of what was kept and not used for long. Sleeps.
    pub(crate) fn expire(&mut self, now: u64) {
        match &mut self.way {
            Way::Keep(keeper) => {
                keeper.expire(now, |mapped| self.unmap.push(mapped, &self.cache));
                self.unmap.run(&self.cache);
            }
            Way::Copy(copier) => copier.expire(),
        }
    }

    /// Lets go of everything that is kept and not in use. Returns whether nothing is left
    /// mapped. Sleeps.
    pub(crate) fn forget(&mut self) -> bool {
        match &mut self.way {
            Way::Keep(keeper) => {
                let empty = keeper.forget(|mapped| self.unmap.push(mapped, &self.cache));
                self.unmap.run(&self.cache);
                empty
            }
            Way::Copy(copier) => {
                copier.shrink(0);
                true
            }
        }
    }
}

/// Has `find` bring each frame that `job` needs, and `map` those that it does not find, until
/// that fails. Returns whether any is to be mapped.
fn gather(
    job: &mut Job,
    mut find: impl FnMut(&Extent) -> Option<Held>,
    mut map: impl FnMut(&Extent) -> Result,
) -> bool {
    let mut maps = false;
    let (extents, held) = job.frames();
    for extent in extents {
        let frame = match find(extent) {
            Some(frame) => frame,
            None if map(extent).is_ok() => {
                maps = true;
                Held::Missing
            }
            None => break,
        };
        // Its room has capacity for every extent.
        let _ = held.push_within_capacity(frame);
    }
    maps
}
