// SPDX-License-Identifier: GPL-2.0

//! Frames of a ring that stay mapped, because its frontend offers persistent grants.
//!
//! Context: the thread of the ring, under its lock.

use kernel::prelude::*;

use super::frame::Frame;
use crate::logic::persistent::EntryIndex;
use crate::logic::persistent::GrantTable;
use crate::logic::persistent::TableSlot;
use crate::logic::persistent::ENTRIES_MAX;
use crate::sys::params;
use crate::xenbus::copy::Snapshot;
use crate::xenbus::grant::MapBatch;
use crate::xenbus::grant::Mapped;
use crate::xenbus::grant::MappedRef;
use crate::xenbus::grant::UnmapBatch;
use crate::xenbus::page_cache::PageCache;

const NS_PER_SECOND: u64 = 1_000_000_000;

/// Grants that stay mapped from one request to the next.
pub(crate) struct PersistentGrants {
    table: GrantTable<Mapped, KVVec<TableSlot<Mapped>>>,
    /// For a frame of segments, which is looked into at once.
    single: MapBatch,
}

impl PersistentGrants {
    /// A table of `most` grants, or of fewer if `max_persistent_grants` is lowered. Sleeps.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(most: usize) -> Result<Self> {
        let entries = most.min(ENTRIES_MAX);
        // Long enough that no such piece of memory may be left.
        let mut slots = KVVec::with_capacity(entries, GFP_KERNEL)?;
        for _ in 0..entries {
            // Within its capacity.
            let _ = slots.push_within_capacity(TableSlot::new());
        }
        Ok(Self {
            table: GrantTable::new(slots, params::random()),
            single: MapBatch::new(1)?,
        })
    }

    /// How many it keeps now.
    pub(crate) fn len(&self) -> u16 {
        self.table.len()
    }

    /// The place of `gref` and its page, if it is mapped already.
    #[inline]
    pub(crate) fn find(&mut self, gref: u32, now: u64) -> Option<(EntryIndex, MappedRef)> {
        let (place, mapped) = self.table.acquire(gref, now)?;
        Some((place, mapped.get()))
    }

    /// A frame just mapped: stays if there is room for it, and its only user is the request
    /// that asked first.
    pub(crate) fn keep(&mut self, gref: u32, mut mapped: Mapped, now: u64) -> Frame {
        // Several segments that were staged together may name the same grant.
        if !self.can_keep() || self.table.contains(gref) {
            return Frame::Own(mapped);
        }
        let user = mapped.get();
        match self.table.insert(gref, mapped, now) {
            Ok(place) => Frame::Persistent(place, user),
            // Never, after what was asked above.
            Err(mut mapped) => {
                mapped.put(user);
                Frame::Own(mapped)
            }
        }
    }

    /// A user of the frame at `place` is done.
    pub(crate) fn release(&mut self, place: EntryIndex, user: MappedRef) {
        if let Some(mapped) = self.table.release(place) {
            mapped.put(user);
        }
    }

    fn can_keep(&self) -> bool {
        u32::from(self.table.len()) < params::max_persistent_grants() && !self.table.is_full()
    }

    /// Is the frame of `gref` of `domain` kept? Maps it if the table is not full. May sleep.
    pub(crate) fn ensure_mapped(
        &mut self,
        (domain, gref): (u16, u32),
        (cache, unmap): (&PageCache, &mut UnmapBatch),
        now: u64,
    ) -> bool {
        if self.table.contains(gref) {
            return true;
        }
        // As any grant that stays, for both directions. Xen refuses that if it was granted
        // for reading only.
        if !self.can_keep() || self.single.push(cache, domain, gref, true).is_err() {
            return false;
        }
        let (table, mut kept, mut left) = (&mut self.table, None, None);
        self.single.run(cache, unmap, |gref, mapped| {
            match mapped.map(|mapped| table.insert(gref, mapped, now)) {
                Ok(Ok(place)) => kept = Some(place),
                // Never, after what was asked above.
                Ok(Err(mapped)) => left = Some(mapped),
                // Then the caller copies.
                Err(_) => {}
            }
        });
        if let Some(mapped) = left {
            unmap.push(mapped, cache);
        }
        // No request uses it yet.
        kept.is_some_and(|place| self.table.release(place).is_some())
    }

    /// The first `len` bytes of a frame that is kept, copied into `snapshot`.
    ///
    /// # Errors
    ///
    /// `EFAULT` if it is not kept; as [`Snapshot::read`].
    pub(crate) fn read<'s>(
        &mut self,
        gref: u32,
        snapshot: &'s mut Snapshot,
        len: usize,
        now: u64,
    ) -> Result<&'s [u8]> {
        let (place, mapped) = self.table.acquire(gref, now).ok_or(EFAULT)?;
        let bytes = snapshot.read(mapped, len);
        self.table.release(place);
        bytes
    }

    /// Gives what was not used for long to `gone`.
    pub(crate) fn expire(&mut self, now: u64, mut gone: impl FnMut(Mapped)) {
        // 0 stands for never.
        let unused = u64::from(params::persistent_grant_unused_seconds());
        if unused > 0 {
            let before = now.saturating_sub(unused.saturating_mul(NS_PER_SECOND));
            self.evict(before, usize::MAX, &mut gone);
        }
        // The administrator may have lowered the cap.
        let most = params::max_persistent_grants() as usize;
        self.evict(now, usize::from(self.len()).saturating_sub(most), gone);
    }

    /// Gives all that is not in use to `gone`. Returns whether nothing is left.
    pub(crate) fn forget(&mut self, gone: impl FnMut(Mapped)) -> bool {
        self.evict(u64::MAX, usize::MAX, gone);
        self.table.is_empty()
    }

    fn evict(&mut self, before: u64, most: usize, gone: impl FnMut(Mapped)) {
        self.table.evict(before, most, Mapped::is_used, gone);
    }
}
