// SPDX-License-Identifier: GPL-2.0

//! Room for jobs.
//!
//! Nothing is set aside for what a guest might send: a job's memory comes when its
//! request comes, in one of three sizes, and some of it is kept for the next ones.
//! One room of the largest size is there from the start and never given away, so
//! that a ring gets on when memory is short.

use kernel::{
    prelude::*,
    sync::Arc, //
};

use super::job::Room;
use super::worker::Worker;
use crate::disk::Disk;
use crate::logic::abi::INDIRECT_MAX;
use crate::logic::abi::SEGMENTS_MAX;

/// Segments that a room of each size is for: a direct request, an indirect one as
/// Linux sends them by default, the largest.
const SIZES: [usize; 3] = [SEGMENTS_MAX, 32, INDIRECT_MAX as usize];
/// Rooms of the largest size that are kept, at most; of each other, as many as the ring has slots.
/// A ring is emptied and filled in one go, and to make a room costs nearly as much as all else that
/// dom0 does for a read of 4 KiB.
const LARGEST_KEPT: usize = 4;

/// The spare rooms of one ring. Used by its worker only.
pub(crate) struct Pool {
    worker: Arc<Worker>,
    disk: Arc<Disk>,
    spare: [KVec<Room>; SIZES.len()],
}

impl Pool {
    /// A pool for a ring of `entries` slots. Sleeps.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(worker: Arc<Worker>, disk: Arc<Disk>, entries: usize) -> Result<Self> {
        let most = usize::from(INDIRECT_MAX);
        let mut last = KVec::with_capacity(LARGEST_KEPT, GFP_KERNEL)?;
        last.push_within_capacity(Room::new(worker.clone(), disk.clone(), most, GFP_KERNEL)?)
            .map_err(|_| ENOMEM)?;
        Ok(Self {
            worker,
            disk,
            spare: [
                KVec::with_capacity(entries, GFP_KERNEL)?,
                KVec::with_capacity(entries, GFP_KERNEL)?,
                last,
            ],
        })
    }

    /// Room for one more job of `segments` segments; `None` if there is no memory, in
    /// which case a job in flight will bring its room back. Does not sleep.
    pub(crate) fn take(&mut self, segments: usize) -> Option<Room> {
        let index = SIZES.iter().position(|size| segments <= *size)?;
        if let Some(room) = self.spare.get_mut(index)?.pop() {
            return Some(room);
        }
        self.make(index).or_else(|| {
            let larger = self.spare.iter_mut().skip(index.saturating_add(1));
            larger.into_iter().find_map(KVec::pop)
        })
    }

    #[cold]
    fn make(&self, index: usize) -> Option<Room> {
        let (worker, disk) = (self.worker.clone(), self.disk.clone());
        Room::new(worker, disk, *SIZES.get(index)?, GFP_NOWAIT | __GFP_NOWARN).ok()
    }

    /// Frees what is spare, but for one room of the largest size.
    pub(crate) fn shrink(&mut self) {
        let [small, medium, largest] = &mut self.spare;
        small.clear();
        medium.clear();
        largest.truncate(1);
    }

    /// Takes back the room of a job that is done.
    pub(crate) fn put(&mut self, room: Room) {
        let index = SIZES.iter().position(|size| *size == room.segments());
        if let Some(spare) = index.and_then(|index| self.spare.get_mut(index)) {
            // A room too many is simply freed.
            drop(spare.push_within_capacity(room));
        }
    }
}
