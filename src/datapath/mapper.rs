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
//! | Xen has no handle left for this domain | are copied; or the request waits for space |
//!
//! Context: the thread of the ring, under its lock.

use kernel::prelude::*;

use super::copier::Copier;
use super::frame::Frame;
use super::pending_request::Admitted;
use super::pending_request::PendingRequest;
use super::pending_request::RequestQueue;
use super::persistent_grants::PersistentGrants;
use crate::logic::protocol::abi::INDIRECT_MAX;
use crate::logic::protocol::abi::SEGMENT_SIZE;
use crate::logic::protocol::merge_hint::MergeHint;
use crate::logic::protocol::request::Transfer;
use crate::xenbus::copy::Snapshot;
use crate::xenbus::grant::MapBatch;
use crate::xenbus::grant::MapError;
use crate::xenbus::grant::UnmapBatch;
use crate::xenbus::page_cache::PageCache;

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
    /// If the frontend offers persistent grants.
    grants: Option<PersistentGrants>,
    copier: Copier,
    /// Requests whose frames are gathered.
    staged: KVec<PendingRequest>,
    /// Requests that wait for space: they have no frame, and are staged again later.
    postponed: RequestQueue<Admitted>,
    /// Through the requests that are staged.
    merge_hint: MergeHint,
    /// Frames of requests that were staged and not released.
    frames: u32,
    frames_max: u32,
    /// A frame of what is staged could not be mapped for want of space.
    no_space: bool,
    /// There may be more free pages than before.
    grown: bool,
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
    ) -> impl Init<Self, Error> {
        let copies = if persistent { 0 } else { limits.copies };
        // A mapper is large: it is built in its place, not by way of the stack.
        try_init!(Self {
            grants: if persistent {
                Some(PersistentGrants::new(limits.kept as usize)?)
            } else {
                None
            },
            domain,
            cache: KBox::pin_init(PageCache::new(), GFP_KERNEL)?,
            map: MapBatch::new(BATCH)?,
            unmap: UnmapBatch::new(BATCH)?,
            snapshot: Snapshot::new()?,
            copier: Copier::new(*domain, copies as usize)?,
            staged: KVec::with_capacity(entries.min(BATCH), GFP_KERNEL)?,
            postponed: RequestQueue::new(),
            merge_hint: MergeHint::new(),
            frames: 0,
            frames_max: limits.frames,
            no_space: false,
            grown: false,
        }? Error)
    }

    /// May a request of `segments` segments be consumed now, or are too many frames in use?
    pub(crate) fn can_take(&self, segments: u16) -> bool {
        self.frames.saturating_add(u32::from(segments)) <= self.frames_max
    }

    /// Must what is staged be mapped before another request of `segments` segments is?
    pub(crate) fn must_map_first(&self, segments: u16) -> bool {
        (self.grants.is_none() && self.copier.must_copy_first(segments))
            || self.map.remaining() < usize::from(segments)
            || self.staged.len() == self.staged.capacity()
    }

    /// A private copy of the segments of an indirect transfer. May sleep.
    ///
    /// # Errors
    ///
    /// `EFAULT` if Xen lets us neither map nor copy the frame.
    #[inline(never)]
    pub(crate) fn segments(&mut self, transfer: &Transfer, frame: u32, now: u64) -> Result<&[u8]> {
        let len = usize::from(transfer.count()).saturating_mul(SEGMENT_SIZE);
        let at = (self.domain, frame);
        if let Some(grants) = &mut self.grants {
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
        // A grant that stays is mapped for both directions.
        let writable = self.grants.is_some() || reads;
        let copied = self.grants.is_none() && self.copier.reserve(usize::from(count));
        let mut owns = false;
        let (extents, frames) = request.frames();
        for extent in extents {
            // The list has capacity for every extent.
            let mut push = |frame| frames.push_within_capacity(frame).is_ok();
            if let Some(grants) = &mut self.grants {
                if let Some((place, page)) = grants.find(extent.gref(), now) {
                    push(Frame::Persistent(place, page));
                    continue;
                }
            } else if copied {
                if let Some(frame) = self.copier.prepare(extent, !reads) {
                    push(frame);
                    continue;
                }
            }
            let frame = self.push_map(extent.gref(), writable);
            owns |= matches!(frame, Frame::Missing);
            push(frame);
        }
        request.set_own_mappings(owns);
        // What stays mapped for a read, and what was copied for a write, needs nothing before the
        // response.
        request.set_needs_thread(owns || reads && self.grants.is_none());
        let _ = self.staged.push_within_capacity(request);
    }

    /// Has a frame mapped with the next call, if there is space for it.
    #[inline(never)]
    fn push_map(&mut self, gref: u32, writable: bool) -> Frame {
        match self.map.push(&self.cache, self.domain, gref, writable) {
            Ok(()) => Frame::Missing,
            Err(_) => {
                self.no_space = true;
                Frame::NoSpace
            }
        }
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
        if !self.map.is_empty() {
            self.map_missing(now);
        }
        if self.copier.is_in_use() {
            copy_from_guest(&mut self.copier, &mut self.staged);
        }
        if core::mem::take(&mut self.no_space) {
            self.copy_instead();
        }
    }

    /// Maps what was noted for that. May sleep.
    #[inline(never)]
    fn map_missing(&mut self, now: u64) {
        let frames = self
            .staged
            .iter_mut()
            .flat_map(|request| request.frames().1.iter_mut());
        let mut missing = frames.filter(|frame| matches!(frame, Frame::Missing));
        let (grants, no_space, grown) = (&mut self.grants, &mut self.no_space, &mut self.grown);
        self.map.run(&self.cache, &mut self.unmap, |gref, mapped| {
            let Some(frame) = missing.next() else {
                return;
            };
            // The page of a frame that is not mapped is free again.
            *grown |= mapped.is_err();
            match (mapped, &mut *grants) {
                (Ok(mapped), Some(grants)) => *frame = grants.keep(gref, mapped, now),
                (Ok(mapped), None) => *frame = Frame::Own(mapped),
                // The request fails.
                (Err(MapError::Refused), _) => {}
                (Err(MapError::NoSpace), _) => {
                    *frame = Frame::NoSpace;
                    *no_space = true;
                }
            }
        });
        self.unmap();
    }

    /// Copies frames for which this domain had no space to map them. Postpones the requests for which
    /// there is no memory for that either: no request fails for want of a resource of this domain.
    #[cold]
    fn copy_instead(&mut self) {
        // Space for others, and for this ring.
        if let Some(grants) = &mut self.grants {
            grants.forget(|mapped| self.unmap.push(mapped, &self.cache));
            self.unmap();
        }
        let mut at = 0;
        while let Some(request) = self.staged.get_mut(at) {
            if !lacks_space(request) || copy_frames(&mut self.copier, request) {
                copy_from_guest(&mut self.copier, core::slice::from_mut(request));
                at = at.saturating_add(1);
            } else if let Ok(mut request) = self.staged.remove(at) {
                self.release_one(&mut request, 0);
                self.postponed.push_back(request);
            }
        }
        self.unmap();
    }

    /// Do requests wait for space?
    pub(crate) fn has_postponed(&self) -> bool {
        !self.postponed.is_empty()
    }

    /// How many requests wait for space.
    pub(crate) fn postponed(&self) -> usize {
        self.postponed.len()
    }

    /// A request that waits for space, to be staged again.
    pub(crate) fn take_postponed(&mut self) -> Option<PendingRequest> {
        self.postponed.pop_front()
    }

    /// What is staged, to be taken after [`Self::map_staged`].
    pub(crate) fn staged(&mut self) -> &mut KVec<PendingRequest> {
        &mut self.staged
    }

    /// Lets go of the frames of requests that are done and were not released
    /// ([`Self::release_without_call`]), so that they can have their responses. A request fails if the guest
    /// cannot be given what it read. Sleeps.
    pub(crate) fn release(&mut self, requests: &mut [PendingRequest]) {
        let copied = self.copier.is_in_use();
        for owner in 0..requests.len() {
            if !requests
                .get(owner)
                .is_some_and(PendingRequest::needs_thread)
            {
                continue;
            }
            let frames = requests.get(owner).map_or(0, PendingRequest::frame_count);
            if copied && self.copier.must_copy_first(frames) {
                self.copier.copy_to_guest(requests);
            }
            if let Some(request) = requests.get_mut(owner) {
                self.release_one(request, owner);
            }
        }
        if copied {
            self.copier.copy_to_guest(requests);
            self.grown = true;
        }
        self.unmap();
    }

    /// Lets go of the frames of a request that does not need the thread: nothing of it is to be unmapped or
    /// copied to the guest.
    pub(crate) fn release_without_call(&mut self, mut request: PendingRequest) -> PendingRequest {
        self.release_one(&mut request, 0);
        self.grown |= self.copier.is_in_use();
        request
    }

    /// Unmaps what was gathered for that. Sleeps.
    fn unmap(&mut self) {
        if !self.unmap.is_empty() {
            self.unmap.run(&self.cache);
            self.grown = true;
        }
    }

    /// The request is number `owner` of those that are released.
    fn release_one(&mut self, request: &mut PendingRequest, owner: usize) {
        self.frames = self.frames.saturating_sub(u32::from(request.frame_count()));
        if let (false, Some(grants)) = (request.needs_thread(), &mut self.grants) {
            // All of them are frames that stay mapped.
            let frames = request.frames().1;
            while let Some(frame) = frames.pop() {
                if let Frame::Persistent(entry, user) = frame {
                    grants.release(entry, user);
                }
            }
            return;
        }
        let copy_back = request.writes_to_guest() && request.is_good();
        let mut good = true;
        let (extents, frames) = request.frames();
        for (frame, extent) in frames.drain_all().zip(extents) {
            match (frame, &mut self.grants) {
                (Frame::Own(mapped), _) => self.unmap.push(mapped, &self.cache),
                (Frame::Persistent(entry, user), Some(grants)) => grants.release(entry, user),
                (Frame::Copied(buffer), _) if copy_back => {
                    good &= self.copier.stage_copy_to_guest(buffer, extent, owner);
                }
                (Frame::Copied(buffer), _) => self.copier.put(buffer),
                // Nothing to release.
                (Frame::Missing | Frame::NoSpace | Frame::CopyPending, _) => {}
                // Never: only a table of grants makes such a frame.
                (Frame::Persistent(..), None) => good = false,
            }
        }
        if !good {
            request.fail();
        }
    }

    /// Frames that stay mapped, spare pages for copies, and what requests use, which may have their
    /// responses already.
    pub(crate) fn kept(&self) -> usize {
        let grants = self.grants.as_ref().map_or(0, PersistentGrants::len);
        let kept = self.copier.spare().saturating_add(usize::from(grants));
        kept.saturating_add(self.frames as usize)
    }

    /// Are there more free pages than when this was asked last?
    pub(crate) fn take_grown(&mut self) -> bool {
        core::mem::take(&mut self.grown)
    }

    /// Gives pages back until `keep` free ones are left. Sleeps.
    pub(crate) fn shrink(&mut self, keep: u32) {
        self.cache.shrink(keep);
        self.copier.shrink(keep as usize);
    }

    /// Unmaps what was kept and not used for long. Sleeps.
    pub(crate) fn expire(&mut self, now: u64) {
        if let Some(grants) = &mut self.grants {
            grants.expire(now, |mapped| self.unmap.push(mapped, &self.cache));
        }
        self.unmap();
        self.copier.expire();
    }

    /// Unmaps everything that is kept and not in use. Returns whether nothing is left mapped. Sleeps.
    pub(crate) fn forget(&mut self) -> bool {
        self.copier.shrink(0);
        let Some(grants) = &mut self.grants else {
            return true;
        };
        let empty = grants.forget(|mapped| self.unmap.push(mapped, &self.cache));
        self.unmap();
        empty
    }
}

/// Does the request have a frame for which there was no space?
fn lacks_space(request: &mut PendingRequest) -> bool {
    let mut frames = request.frames().1.iter();
    frames.any(|frame| matches!(frame, Frame::NoSpace))
}

/// Provides a page of ours for each frame of `request` for which there was no space. Returns false
/// if there are not enough pages.
fn copy_frames(copier: &mut Copier, request: &mut PendingRequest) -> bool {
    let fetch = !request.writes_to_guest();
    let (extents, frames) = request.frames();
    if !copier.reserve_instead(extents.len()) {
        return false;
    }
    for (frame, extent) in frames.iter_mut().zip(extents) {
        if matches!(frame, Frame::NoSpace) {
            if let Some(copied) = copier.prepare(extent, fetch) {
                *frame = copied;
            }
        }
    }
    request.set_needs_thread(true);
    true
}

/// Copies what `requests` expect of their guest.
fn copy_from_guest(copier: &mut Copier, requests: &mut [PendingRequest]) {
    let frames = requests
        .iter_mut()
        .flat_map(|request| request.frames().1.iter_mut());
    copier.copy_from_guest(frames.filter(|frame| matches!(frame, Frame::CopyPending)));
}
