// SPDX-License-Identifier: GPL-2.0

//! Room for jobs.
//!
//! Nothing is set aside for what a guest might send: a job's memory comes when its
//! request comes, and is kept for the next one. One piece is there from the start,
//! so that a ring gets on when memory is short.

use core::mem::MaybeUninit;

use kernel::prelude::*;

use super::job::Job;

/// Memory for one job.
pub(crate) type Room = KBox<MaybeUninit<Job>>;

/// The spare rooms of one ring. Used by its worker only.
pub(crate) struct Pool {
    spare: KVec<Room>,
}

impl Pool {
    /// A pool that keeps up to `most` rooms. Sleeps.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(most: usize) -> Result<Self> {
        let mut spare = KVec::with_capacity(most, GFP_KERNEL)?;
        spare
            .push_within_capacity(KBox::new_uninit(GFP_KERNEL)?)
            .map_err(|_| ENOMEM)?;
        Ok(Self { spare })
    }

    /// Room for one more job; `None` if there is no memory, in which case a job in
    /// flight will bring its room back. Does not sleep.
    pub(crate) fn take(&mut self) -> Option<Room> {
        match self.spare.pop() {
            Some(room) => Some(room),
            None => KBox::new_uninit(GFP_NOWAIT | __GFP_NOWARN).ok(),
        }
    }

    /// Takes back the room of a job that is done.
    pub(crate) fn put(&mut self, room: Room) {
        // A room too many is simply freed.
        drop(self.spare.push_within_capacity(room));
    }
}
