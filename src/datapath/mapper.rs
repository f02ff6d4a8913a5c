// SPDX-License-Identifier: GPL-2.0

//! Maps or copies the frames of a ring's requests, and releases them.
//!
//! Requests are *staged*: what they need and is not there yet is gathered, and mapped or copied with
//! one call to Xen for all of them.
//!
//! | the frontend | its frames |
//! |---|---|
//! | offers persistent grants | are found still mapped when it uses them again ([`PersistentGrants`]) |
//! | does not | are copied ([`Copier`]) |
//! | as many as can be kept or copied are in use | are mapped, and unmapped before the response |
//!
//! Context: the thread of the ring, under its lock.

use kernel::prelude::*;

use super::copier::Copier;
use super::frame::Frame;
use super::pending_request::PendingRequest;
use super::persistent_grants::PersistentGrants;
use crate::logic::protocol::abi::INDIRECT_MAX;
use crate::logic::protocol::abi::SEGMENT_SIZE;
use crate::logic::protocol::merge_hint::MergeHint;
use crate::logic::protocol::request::Extent;
use crate::logic::protocol::request::Transfer;
use crate::xenbus::copy::Snapshot;
use crate::xenbus::grant::MapBatch;
use crate::xenbus::grant::PageCache;
use crate::xenbus::grant::UnmapBatch;

/// Frames mapped or unmapped with one call.
const BATCH: usize = INDIRECT_MAX as usize;

const _: () = assert!(BATCH * SEGMENT_SIZE <= crate::xenbus::copy::SNAPSHOT_SIZE);

/// Frames that a ring may use at a time.
#[derive(Clone, Copy)]
pub(crate) struct FrameLimits {
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
    staged: KVec<PendingRequest>,
    /// Through the requests that are staged.
    merge_hint: MergeHint,
    /// Frames of requests that were staged and not released.
    frames: u32,
    frames_max: u32,
}

/// What is tried before frames are mapped for one request.
enum Way {
    Persistent(PersistentGrants),
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
        limits: FrameLimits,
        persistent: bool,
    ) -> Result<Self> {
        let way = if persistent {
            Way::Persistent(PersistentGrants::new(limits.kept as usize)?)
        } else {
            Way::Copy(Copier::new(domain, limits.copies as usize)?)
        };
        Ok(Self {
            domain,
            cache: KBox::pin_init(PageCache::new(), GFP_KERNEL)?,
            map: MapBatch::new(BATCH)?,
            unmap: UnmapBatch::new(BATCH)?,
            snapshot: Snapshot::new()?,
            way,
            staged: KVec::with_capacity(entries.min(BATCH), GFP_KERNEL)?,
            merge_hint: MergeHint::new(),
            frames: 0,
            frames_max: limits.frames,
        })
    }

    /// May a request of `segments` segments be consumed now, or are too many frames in use?
    pub(crate) fn can_take(&self, segments: u16) -> bool {
        self.frames.saturating_add(u32::from(segments)) <= self.frames_max
    }

    /// Must what is staged be mapped before another request of `segments` segments is?
    pub(crate) fn must_map_first(&self, segments: u16) -> bool {
        let copies = match &self.way {
            Way::Persistent(_) => false,
            Way::Copy(copier) => copier.must_copy_first(segments),
        };
        copies
            || self.map.remaining() < usize::from(segments)
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
        if let Way::Persistent(grants) = &mut self.way {
            if grants.ensure_mapped(at, (&self.cache, &mut self.unmap), now) {
                return grants.read(frame, &mut self.snapshot, len, now);
            }
        }
        self.snapshot.take(self.domain, frame, len)
    }

    /// Notes what `request` needs. Only if [`Self::must_map_first`] said no. `merges_late`: the
    /// device's queue may merge it with what is not staged now. May sleep.
    pub(crate) fn stage(&mut self, mut request: PendingRequest, merges_late: bool, now: u64) {
        self.note_neighbour(&mut request, merges_late);
        let (reads, count) = (request.writes_to_guest(), request.frame_count());
        self.frames = self.frames.saturating_add(u32::from(count));
        let owns = match &mut self.way {
            Way::Persistent(grants) => {
                gather(
                    &mut request,
                    |extent| grants.find(extent.gref(), now),
                    |extent| {
                        // A grant that stays is mapped for both directions.
                        self.map.push(&self.cache, self.domain, extent.gref(), true)
                    },
                )
            }
            Way::Copy(copier) => {
                let copied = copier.reserve(usize::from(count));
                gather(
                    &mut request,
                    |extent| copied.then(|| copier.prepare(extent, !reads)).flatten(),
                    |extent| {
                        self.map
                            .push(&self.cache, self.domain, extent.gref(), reads)
                    },
                )
            }
        };
        request.set_own_mappings(owns);
        let _ = self.staged.push_within_capacity(request);
    }

    /// Notes whether `request` continues the one before it. That costs less than to have the
    /// device's queue find out that it does not.
    fn note_neighbour(&mut self, request: &mut PendingRequest, merges_late: bool) {
        let (first, sectors) = request.range();
        let continues = self.merge_hint.continues(first, sectors);
        if let (true, Some(previous)) = (continues, self.staged.last_mut()) {
            previous.set_nomerge(false);
        }
        request.set_nomerge(!merges_late && !continues);
    }

    /// Nothing is staged?
    pub(crate) fn is_idle(&self) -> bool {
        self.staged.is_empty()
    }

    /// Maps and copies what was noted. May sleep.
    pub(crate) fn map_staged(&mut self, now: u64) {
        self.merge_hint = MergeHint::new();
        let frames = self
            .staged
            .iter_mut()
            .flat_map(|request| request.frames().1.iter_mut());
        let mut missing = frames.filter(|frame| matches!(frame, Frame::Missing));
        let way = &mut self.way;
        self.map.run(&self.cache, &mut self.unmap, |gref, mapped| {
            let (Some(frame), Some(mapped)) = (missing.next(), mapped) else {
                return;
            };
            *frame = match way {
                Way::Persistent(grants) => grants.keep(gref, mapped, now),
                Way::Copy(_) => Frame::Own(mapped),
            };
        });
        self.unmap.run(&self.cache);
        if let Way::Copy(copier) = &mut self.way {
            let frames = self
                .staged
                .iter_mut()
                .flat_map(|request| request.frames().1.iter_mut());
            copier.copy_from_guest(frames.filter(|frame| matches!(frame, Frame::CopyPending)));
        }
    }

    /// What is staged, to be taken after [`Self::map_staged`].
    pub(crate) fn staged(&mut self) -> &mut KVec<PendingRequest> {
        &mut self.staged
    }

    /// Lets go of the frames of requests that are done, so that they can have their responses. A request
    /// fails if the guest cannot be given what it read. Sleeps.
    pub(crate) fn release(&mut self, requests: &mut [PendingRequest]) {
        for owner in 0..requests.len() {
            if let (Way::Copy(copier), Some(request)) = (&mut self.way, requests.get(owner)) {
                if copier.must_copy_first(request.frame_count()) {
                    copier.copy_to_guest(requests);
                }
            }
            if let Some(request) = requests.get_mut(owner) {
                self.release_one(request, owner);
            }
        }
        if let Way::Copy(copier) = &mut self.way {
            copier.copy_to_guest(requests);
        }
        self.unmap.run(&self.cache);
    }

    /// The request is number `owner` of those that are released.
    fn release_one(&mut self, request: &mut PendingRequest, owner: usize) {
        self.frames = self.frames.saturating_sub(u32::from(request.frame_count()));
        let copy_back = request.writes_to_guest() && request.is_good();
        let mut good = true;
        let (extents, frames) = request.frames();
        for (frame, extent) in frames.drain_all().zip(extents) {
            match (frame, &mut self.way) {
                (Frame::Own(mapped), _) => self.unmap.push(mapped, &self.cache),
                (Frame::Persistent(entry, user), Way::Persistent(grants)) => {
                    grants.release(entry, user)
                }
                (Frame::Copied(buffer), Way::Copy(copier)) if copy_back => {
                    good &= copier.stage_copy_to_guest(buffer, extent, owner);
                }
                (Frame::Copied(buffer), Way::Copy(copier)) => copier.put(buffer),
                // Nothing to let go of.
                (Frame::Missing | Frame::CopyPending, _) => {}
                // Never.
                (Frame::Persistent(..), Way::Copy(_)) | (Frame::Copied(_), Way::Persistent(_)) => {
                    good = false
                }
            }
        }
        if !good {
            request.fail();
        }
    }

    /// Frames that stay mapped, or spare pages for copies.
    pub(crate) fn kept(&self) -> usize {
        match &self.way {
            Way::Persistent(grants) => usize::from(grants.len()),
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
            Way::Persistent(grants) => {
                grants.expire(now, |mapped| self.unmap.push(mapped, &self.cache));
                self.unmap.run(&self.cache);
            }
            Way::Copy(copier) => copier.expire(),
        }
    }

    /// Lets go of everything that is kept and not in use. Returns whether nothing is left
    /// mapped. Sleeps.
    pub(crate) fn forget(&mut self) -> bool {
        match &mut self.way {
            Way::Persistent(grants) => {
                let empty = grants.forget(|mapped| self.unmap.push(mapped, &self.cache));
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

/// Has `find` bring each frame that `request` needs, and `map` those that it does not find, until
/// that fails. Returns whether any is to be mapped.
fn gather(
    request: &mut PendingRequest,
    mut find: impl FnMut(&Extent) -> Option<Frame>,
    mut map: impl FnMut(&Extent) -> Result,
) -> bool {
    let mut maps = false;
    let (extents, frames) = request.frames();
    for extent in extents {
        let frame = match find(extent) {
            Some(frame) => frame,
            None if map(extent).is_ok() => {
                maps = true;
                Frame::Missing
            }
            None => break,
        };
        // The list has capacity for every extent.
        let _ = frames.push_within_capacity(frame);
    }
    maps
}
