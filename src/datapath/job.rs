// SPDX-License-Identifier: GPL-2.0

//! One admitted transfer on its way to the disk and back.
//!
//! | stage | made by | owned by |
//! |---|---|---|
//! | checked, nothing mapped | [`Job::new`], from a [`Pass`] | the engine |
//! | staged, mapped | `Mapper::stage`, `Mapper::map_staged` | the mapper |
//! | in flight | [`bio::submit`](crate::sys::bio::submit) | the bio, until the disk has answered |
//! | finished | end of I/O | the worker's inbox |
//! | released | `Mapper::release` | the engine |
//! | answered | the engine | nobody: its [`Room`] is used again |

use kernel::{
    prelude::*,
    sync::Arc, //
};

use super::gate::Pass;
use super::mapper::Held;
use super::pool::Room;
use super::ring::Answer;
use super::worker::Worker;
use crate::disk::Disk;
use crate::logic::abi::Status;
use crate::logic::request::Extent;
use crate::logic::request::Operation;
use crate::logic::request::Request;
use crate::sys::bdev::BlockDevice;
use crate::sys::bio::Direction;
use crate::sys::bio::Io;
use crate::sys::bio::Piece;

/// A request that was checked, in the room of its job.
pub(crate) type Checked = Request<KVec<Extent>>;

/// One admitted transfer.
pub(crate) struct Job {
    worker: Arc<Worker>,
    disk: Arc<Disk>,
    answer: Answer,
    request: Checked,
    held: KVec<Held>,
    _pass: Pass,
}

impl Job {
    /// Puts a checked request into `room`, from which its own room was taken. `answer`
    /// is what the guest is told if it does not get to the disk.
    pub(crate) fn new(
        room: Room,
        pass: Pass,
        worker: Arc<Worker>,
        disk: Arc<Disk>,
        answer: Answer,
        request: Checked,
    ) -> KBox<Self> {
        KBox::write(
            room.job,
            Self {
                worker,
                disk,
                answer,
                request,
                held: room.held,
                _pass: pass,
            },
        )
    }

    /// What it does.
    pub(crate) fn operation(&self) -> Operation {
        self.request.operation()
    }

    /// What the guest is told.
    pub(crate) fn answer(&self) -> Answer {
        self.answer
    }

    /// Does it write to the guest's memory?
    pub(super) fn writes_to_guest(&self) -> bool {
        self.operation() == Operation::Read
    }

    /// Frames that it needs.
    pub(super) fn frame_count(&self) -> u16 {
        self.request.extent_count()
    }

    /// What it needs, and where the frames for that go.
    pub(super) fn frames(&mut self) -> (impl Iterator<Item = &Extent>, &mut KVec<Held>) {
        (self.request.extents(), &mut self.held)
    }

    /// Has it all frames that it needs?
    pub(super) fn is_mapped(&self) -> bool {
        self.held.len() == usize::from(self.frame_count())
            && self.held.iter().all(|held| held.page().is_some())
    }

    /// Does anybody still look at a page that is to be unmapped?
    pub(super) fn is_used(&self) -> bool {
        self.held.iter().any(Held::is_used)
    }

    /// Gives the room back. Only when it was released.
    pub(super) fn recycle(mut self: KBox<Self>) -> Room {
        let held = core::mem::take(&mut self.held);
        let extents = self.request.take_room();
        Room {
            job: KBox::drop_contents(self),
            extents,
            held,
        }
    }
}

impl Io for Job {
    fn device(&self) -> &BlockDevice {
        self.disk.device()
    }

    fn direction(&self) -> Direction {
        match self.operation() {
            Operation::Read => Direction::Read,
            Operation::Write => Direction::Write,
            Operation::Flush => Direction::FlushThenWrite,
            Operation::Barrier => Direction::FlushThenWriteThrough,
        }
    }

    fn sector(&self) -> u64 {
        self.request.sector()
    }

    fn piece_count(&self) -> u16 {
        self.request.extent_count()
    }

    fn pieces(&self) -> impl Iterator<Item = Piece<'_>> {
        let pages = self.held.iter().filter_map(Held::page);
        pages
            .zip(self.request.extents())
            .map(|(page, extent)| Piece {
                page,
                offset: extent.offset(),
                len: extent.bytes(),
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
