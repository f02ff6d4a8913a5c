// SPDX-License-Identifier: GPL-2.0

//! One admitted request on its way to the disk and back.
//!
//! | stage | made by | owned by |
//! |---|---|---|
//! | [`Job`] with nothing mapped | [`Job::new`], from a [`Pass`] | the worker |
//! | mapped | [`Job::start`] | the worker |
//! | in flight | [`Job::start`] | the bio, until the disk has answered |
//! | finished | end of I/O | the worker's inbox |
//! | unmapped | [`grant::unmap`] | the worker's inbox |
//! | answered | the worker | nobody: its [`Room`] is used again |

use kernel::{
    prelude::*,
    sync::Arc, //
};

use super::gate::Pass;
use super::pool::Room;
use super::ring::Answer;
use super::worker::Worker;
use crate::disk::Disk;
use crate::logic::abi::Slot;
use crate::logic::abi::Status;
use crate::logic::abi::SEGMENTS_MAX;
use crate::logic::request::Operation;
use crate::logic::request::Request;
use crate::sys::bio::Bio;
use crate::sys::bio::Direction;
use crate::sys::bio::EndIo;
use crate::xenbus::grant;
use crate::xenbus::grant::Mapping;
use crate::xenbus::grant::PageCache;
use crate::xenbus::grant::UnmapRoom;
use crate::xenbus::grant::Unmapped;

const _: () = assert!(SEGMENTS_MAX <= grant::PAGES_MAX);

/// One admitted request.
pub(crate) struct Job {
    worker: Arc<Worker>,
    answer: Answer,
    request: Request,
    mapping: Mapping,
    unmap_room: UnmapRoom,
    _pass: Pass,
}

impl Job {
    /// Puts a checked request into `room`. `slot` is the copy it was checked from.
    pub(crate) fn new(
        room: Room,
        pass: Pass,
        worker: Arc<Worker>,
        id: u64,
        slot: &Slot,
        request: Request,
    ) -> KBox<Self> {
        KBox::write(
            room,
            Self {
                worker,
                answer: Answer {
                    id,
                    operation: slot.operation(),
                    status: Status::Error,
                },
                request,
                mapping: Mapping::empty(),
                unmap_room: UnmapRoom::new(),
                _pass: pass,
            },
        )
    }

    /// Maps the request's pages and sends it to the disk. May sleep.
    ///
    /// # Errors
    ///
    /// Gives the job back if it did not get there: its answer says so, and what was
    /// mapped of it still is.
    pub(crate) fn start(
        mut self: KBox<Self>,
        disk: &Disk,
        domain: u16,
        cache: &PageCache,
    ) -> Result<(), KBox<Self>> {
        match self.prepare(disk, domain, cache) {
            Ok(bio) => {
                bio.submit(self);
                Ok(())
            }
            Err(_) => Err(self),
        }
    }

    fn prepare(&mut self, disk: &Disk, domain: u16, cache: &PageCache) -> Result<Bio> {
        let request = &self.request;
        let (direction, writable) = match request.operation() {
            Operation::Read => (Direction::Read, true),
            Operation::Write => (Direction::Write, false),
            Operation::Flush => (Direction::FlushThenWrite, false),
        };
        let refs = request.extents().map(|extent| extent.gref);
        self.mapping = Mapping::map(cache, domain, refs, writable)?;
        let pages = u16::from(request.extent_count());
        let mut bio = Bio::new(disk.device(), direction, request.sector(), pages)?;
        for (page, extent) in self.mapping.pages().zip(request.extents()) {
            bio.add(page, extent.offset, extent.len)?;
        }
        Ok(bio)
    }

    /// What the guest is told.
    pub(crate) fn answer(&self) -> Answer {
        self.answer
    }

    /// Gives the room back, and the frames to `cache`. Only when nothing is mapped
    /// any more.
    pub(crate) fn recycle(mut self: KBox<Self>, cache: &PageCache) -> Room {
        grant::recycle(&mut *self, cache);
        KBox::drop_contents(self)
    }
}

impl EndIo for Job {
    fn end_io(mut this: KBox<Self>, outcome: Result) {
        this.answer.status = match outcome {
            Ok(()) => Status::Okay,
            Err(e) if e == EOPNOTSUPP => Status::Unsupported,
            Err(_) => Status::Error,
        };
        let worker = this.worker.clone();
        worker.finished(this);
    }
}

impl Unmapped for Job {
    fn unmap_room(&mut self) -> (&mut Mapping, &mut UnmapRoom) {
        (&mut self.mapping, &mut self.unmap_room)
    }

    fn unmapped(this: KBox<Self>) {
        let worker = this.worker.clone();
        worker.unmapped(this);
    }
}
