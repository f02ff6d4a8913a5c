// SPDX-License-Identifier: GPL-2.0

//! One admitted request on its way to the disk and back.
//!
//! | stage | made by | owned by |
//! |---|---|---|
//! | nothing mapped | [`Job::new`], from a [`Pass`] | the worker |
//! | mapped, in flight | [`Job::start`] | the bio, until the disk has answered |
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
use crate::logic::abi::Status;
use crate::logic::abi::SEGMENTS_MAX;
use crate::logic::request::Operation;
use crate::logic::request::Request;
use crate::sys::bdev::BlockDevice;
use crate::sys::bio;
use crate::sys::bio::Direction;
use crate::sys::bio::Io;
use crate::sys::bio::Piece;
use crate::xenbus::grant;
use crate::xenbus::grant::Mapping;
use crate::xenbus::grant::PageCache;
use crate::xenbus::grant::UnmapRoom;
use crate::xenbus::grant::Unmapped;

const _: () = assert!(SEGMENTS_MAX <= grant::PAGES_MAX);

/// One admitted request.
pub(crate) struct Job {
    worker: Arc<Worker>,
    disk: Arc<Disk>,
    answer: Answer,
    request: Request,
    mapping: Mapping,
    unmap_room: UnmapRoom,
    _pass: Pass,
}

impl Job {
    /// Puts a checked request into `room`. `answer` is what the guest is told if it
    /// does not get to the disk.
    pub(crate) fn new(
        room: Room,
        pass: Pass,
        worker: Arc<Worker>,
        disk: Arc<Disk>,
        answer: Answer,
        request: Request,
    ) -> KBox<Self> {
        KBox::write(
            room,
            Self {
                worker,
                disk,
                answer,
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
    /// Gives the job back if it did not get there; what was mapped of it still is.
    pub(crate) fn start(
        mut self: KBox<Self>,
        domain: u16,
        cache: &PageCache,
    ) -> Result<(), KBox<Self>> {
        let writable = self.request.operation() == Operation::Read;
        let refs = self.request.extents().map(|extent| extent.gref);
        match Mapping::map(cache, domain, refs, writable) {
            Ok(mapping) => self.mapping = mapping,
            Err(_) => return Err(self),
        }
        bio::submit(self)
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

impl Io for Job {
    fn device(&self) -> &BlockDevice {
        self.disk.device()
    }

    fn direction(&self) -> Direction {
        match self.request.operation() {
            Operation::Read => Direction::Read,
            Operation::Write => Direction::Write,
            Operation::Flush => Direction::FlushThenWrite,
        }
    }

    fn sector(&self) -> u64 {
        self.request.sector()
    }

    fn piece_count(&self) -> u16 {
        u16::from(self.request.extent_count())
    }

    fn pieces(&self) -> impl Iterator<Item = Piece<'_>> {
        let extents = self.request.extents();
        self.mapping
            .pages()
            .zip(extents)
            .map(|(page, extent)| Piece {
                page,
                offset: extent.offset,
                len: extent.len,
            })
    }

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
