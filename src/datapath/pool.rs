// SPDX-License-Identifier: GPL-2.0

//! Room for jobs.
//!
//! Nothing is set aside for what a guest might send: a job's memory comes when its
//! request comes, in one of three sizes, and some of it is kept for the next ones.
//! One room of the largest size is there from the start and never given away, so
//! that a ring gets on when memory is short.

use core::mem::MaybeUninit;

use kernel::prelude::*;

use super::job::Job;
use super::mapper::Held;
use crate::logic::abi::INDIRECT_MAX;
use crate::logic::abi::SEGMENTS_MAX;
use crate::logic::request::Extent;

/// Segments that a room of each size is for: a direct request, an indirect one as
/// Linux sends them by default, the largest.
const SIZES: [usize; 3] = [SEGMENTS_MAX, 32, INDIRECT_MAX as usize];
/// Rooms of each size that are kept, at most.
const KEPT: [usize; 3] = [64, 32, 4];

/// Memory for one job.
pub(crate) struct Room {
    /// The job itself.
    pub(super) job: KBox<MaybeUninit<Job>>,
    /// For its checked segments; as many elements as segments fit.
    pub(super) extents: KVec<Extent>,
    /// For its mapped frames; capacity for as many.
    pub(super) held: KVec<Held>,
}

impl Room {
    fn new(segments: usize, flags: kernel::alloc::Flags) -> Result<Self> {
        Ok(Self {
            job: KBox::new_uninit(flags)?,
            extents: KVec::from_elem(Extent::default(), segments, flags)?,
            held: KVec::with_capacity(segments, flags)?,
        })
    }
}

/// The spare rooms of one ring. Used by its worker only.
pub(crate) struct Pool {
    spare: [KVec<Room>; SIZES.len()],
}

impl Pool {
    /// A pool for a ring of `entries` slots. Sleeps.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(entries: usize) -> Result<Self> {
        let [small, medium, large] = KEPT;
        let mut last = KVec::with_capacity(large, GFP_KERNEL)?;
        last.push_within_capacity(Room::new(usize::from(INDIRECT_MAX), GFP_KERNEL)?)
            .map_err(|_| ENOMEM)?;
        Ok(Self {
            spare: [
                KVec::with_capacity(small.min(entries), GFP_KERNEL)?,
                KVec::with_capacity(medium.min(entries), GFP_KERNEL)?,
                last,
            ],
        })
    }

    /// Room for one more job of `segments` segments; `None` if there is no memory, in
    /// which case a job in flight will bring its room back. Does not sleep.
    pub(crate) fn take(&mut self, segments: usize) -> Option<Room> {
        let mut sizes = SIZES.iter().zip(&mut self.spare);
        let (size, spare) = sizes.find(|(size, _)| segments <= **size)?;
        if let Some(room) = spare.pop() {
            return Some(room);
        }
        match Room::new(*size, GFP_NOWAIT | __GFP_NOWARN) {
            Ok(room) => Some(room),
            Err(_) => sizes.find_map(|(_, larger)| larger.pop()),
        }
    }

    /// Takes back the room of a job that is done.
    pub(crate) fn put(&mut self, room: Room) {
        let mut sizes = SIZES.iter().zip(&mut self.spare);
        let fitting = sizes.find(|(size, _)| **size == room.extents.len());
        if let Some((_, spare)) = fitting {
            // A room too many is simply freed.
            drop(spare.push_within_capacity(room));
        }
    }
}
