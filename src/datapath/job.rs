// SPDX-License-Identifier: GPL-2.0

//! One admitted transfer on its way to the disk and back.
//!
//! | stage | made by | owned by |
//! |---|---|---|
//! | room, with nothing in it | [`Room::new`] | the pool |
//! | checked, nothing mapped | [`Job::new`], from a [`Pass`] | the engine |
//! | staged, mapped | `Mapper::stage`, `Mapper::map_staged` | the mapper |
//! | in flight | [`bio::submit`] | the bio, until the disk has answered |
//! | finished | end of I/O | the worker's inbox |
//! | released | `Mapper::release` | the engine |
//! | answered | the engine | nobody: its [`Room`] is used again |

use kernel::{
    alloc::Flags,
    prelude::*,
    sync::Arc, //
};

use super::gate::Pass;
use super::held::Held;
use super::ring::Answer;
use super::worker::Worker;
use crate::disk::Disk;
use crate::logic::abi::Status;
use crate::logic::request::Extent;
use crate::logic::request::Operation;
use crate::logic::request::Request;
use crate::sys::bdev::BlockDevice;
use crate::sys::bio;
use crate::sys::bio::BioRoom;
use crate::sys::bio::Direction;
use crate::sys::bio::Io;
use crate::sys::bio::Piece;
use crate::sys::post::Letter;

/// What a checked request asks for, without its pieces of guest memory.
pub(crate) type Checked = Request<()>;

/// Where all that a job needs lies, from its first use to its last.
///
/// # Invariants
///
/// The first [`Request::extent_count`] of `extents` are those of the admitted request.
pub(crate) struct Core {
    bio: BioRoom,
    worker: Arc<Worker>,
    disk: Arc<Disk>,
    extents: KVec<Extent>,
    held: KVec<Held>,
    answer: Answer,
    alone: bool,
    /// Some of the frames may be mapped for this job alone.
    owns: bool,
    /// Of a job; in an empty room there is none.
    admitted: Option<(Checked, Pass)>,
}

/// Memory for one job.
pub(crate) struct Room(KBox<Letter<Core>>);

impl Room {
    /// Room for a job of a ring and a disk, of `segments` segments at most.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(
        worker: Arc<Worker>,
        disk: Arc<Disk>,
        segments: usize,
        flags: Flags,
    ) -> Result<Self> {
        let core = Core {
            bio: BioRoom::new(segments, flags)?,
            worker,
            disk,
            extents: KVec::from_elem(Extent::default(), segments, flags)?,
            held: KVec::with_capacity(segments, flags)?,
            answer: Answer::NONE,
            alone: false,
            owns: false,
            admitted: None,
        };
        Ok(Self(KBox::new(Letter::new(core), flags)?))
    }

    /// How many segments it is for.
    pub(crate) fn segments(&self) -> usize {
        self.0.extents.len()
    }

    /// Fills it with what `check` makes of its room for extents.
    ///
    /// # Errors
    ///
    /// What `check` says, and the room.
    pub(crate) fn check<E>(
        mut self,
        check: impl FnOnce(&mut [Extent]) -> Result<Request<&mut [Extent]>, (E, &mut [Extent])>,
    ) -> Result<Filled, (E, Self)> {
        match check(&mut self.0.extents) {
            Ok(request) => Ok(Filled {
                request: request.without_room(),
                letter: self.0,
            }),
            Err((refusal, _)) => Err((refusal, self)),
        }
    }
}

/// Room with a checked request in it.
pub(crate) struct Filled {
    letter: KBox<Letter<Core>>,
    request: Checked,
}

impl Filled {
    /// The request.
    pub(crate) fn request(&self) -> &Checked {
        &self.request
    }
}

/// One admitted transfer.
pub(crate) struct Job(KBox<Letter<Core>>);

impl Job {
    /// A job of a checked request and the right to do it. `answer` is what the guest is
    /// told if it does not get to the disk.
    pub(crate) fn new(filled: Filled, pass: Pass, answer: Answer) -> Self {
        let Filled {
            mut letter,
            request,
        } = filled;
        letter.answer = answer;
        // INVARIANT: Its extents are in there already, see `Room::check`.
        letter.admitted = Some((request, pass));
        Self(letter)
    }

    /// The job that comes back in `letter`.
    pub(super) fn returned(letter: KBox<Letter<Core>>) -> Self {
        Self(letter)
    }

    /// Sends it to the disk. Whatever does not get there goes the same way back as what
    /// does, so that what was mapped of it is unmapped first. Sleeps.
    pub(super) fn submit(self) {
        // `bio::submit` notices a frame that did not come, but not one that was never asked for.
        let left = if self.0.held.len() == usize::from(self.frame_count()) {
            bio::submit(self.0).err()
        } else {
            Some(self.0)
        };
        if let Some(letter) = left {
            finish(letter);
        }
    }

    /// The sector that it begins with, of 512 bytes, and how many it moves.
    pub(super) fn range(&self) -> (u64, u32) {
        self.0
            .request()
            .map_or((0, 0), |request| (request.sector(), request.sectors()))
    }

    /// Need the device's queue not try to merge it with another?
    pub(super) fn set_alone(&mut self, alone: bool) {
        self.0.alone = alone;
    }

    /// May some of the frames be mapped for this job alone?
    pub(super) fn set_owns(&mut self, owns: bool) {
        self.0.owns = owns;
    }

    /// What it does.
    pub(super) fn operation(&self) -> Operation {
        self.0.operation()
    }

    /// What the guest is told.
    pub(super) fn answer(&self) -> Answer {
        self.0.answer
    }

    /// Did the disk do it?
    pub(super) fn is_good(&self) -> bool {
        self.0.answer.status == Status::Okay
    }

    /// The guest cannot be given what it asked for.
    pub(super) fn fail(&mut self) {
        self.0.answer.status = Status::Error;
    }

    /// Does it write to the guest's memory?
    pub(super) fn writes_to_guest(&self) -> bool {
        self.operation() == Operation::Read
    }

    /// Frames that it needs.
    pub(super) fn frame_count(&self) -> u16 {
        self.0.request().map_or(0, Request::extent_count)
    }

    /// What it needs, and where the frames for that go.
    pub(super) fn frames(&mut self) -> (&[Extent], &mut KVec<Held>) {
        let count = usize::from(self.frame_count());
        let Core { extents, held, .. } = &mut **self.0;
        (extents.get(..count).unwrap_or(&[]), held)
    }

    /// Does anybody still look at a page that is to be unmapped?
    pub(super) fn is_used(&self) -> bool {
        self.0.owns && self.0.held.iter().any(Held::is_used)
    }

    /// Gives the room back. Only when it was released.
    pub(super) fn recycle(mut self) -> Room {
        self.0.admitted = None;
        Room(self.0)
    }
}

impl Core {
    fn request(&self) -> Option<&Checked> {
        self.admitted.as_ref().map(|(request, _)| request)
    }

    fn operation(&self) -> Operation {
        self.request().map_or(Operation::Read, Request::operation)
    }
}

fn finish(letter: KBox<Letter<Core>>) {
    let worker = letter.worker.clone();
    worker.finished(letter);
}

impl Io for Letter<Core> {
    fn room(&self) -> &BioRoom {
        &self.bio
    }

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
        self.request().map_or(0, Request::sector)
    }

    fn is_alone(&self) -> bool {
        self.alone
    }

    fn pieces(&self) -> impl Iterator<Item = Option<Piece<'_>>> {
        // As many as there are frames, see `Job::submit`.
        self.held.iter().zip(&*self.extents).map(|(held, extent)| {
            Some(Piece {
                page: held.page()?,
                offset: extent.offset(),
                len: extent.bytes(),
            })
        })
    }

    fn end_io(mut this: KBox<Self>, outcome: Result) {
        this.answer.status = match outcome {
            Ok(()) => Status::Okay,
            Err(e) if e == EOPNOTSUPP => Status::Unsupported,
            Err(_) => Status::Error,
        };
        finish(this);
    }
}
