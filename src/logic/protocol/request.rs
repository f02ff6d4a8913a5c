// SPDX-License-Identifier: GPL-2.0

//! Parsing of a slot, and checking of reads, writes, flushes and barriers.
//!
//! ```text
//! Slot --parse--> Transfer --check (with its segments)--> Request
//!            \--> Discard  --check--> CheckedDiscard
//! ```
//!
//! [`Slot`] is a private copy of what the guest wrote. [`parse`] reads the fields of the
//! slot, among them the number of segments and the grant reference of a frame of
//! segments. [`Transfer::check`] checks the transfer with all its segments. Only `check`
//! makes a [`Request`] or a [`CheckedDiscard`], so a request of which any part is wrong
//! is refused as a whole.
//!
//! The layout of slots is in [`super::abi`], discards are in [`super::discard`].
//!
//! Source of the rules: `xen/interface/io/blkif.h`.

use core::ops::Deref;
use core::ops::DerefMut;

use super::abi::Abi;
use super::abi::Segment;
use super::abi::Slot;
use super::abi::INDIRECT_MAX;
use super::abi::SECTORS_PER_PAGE;
use super::abi::SECTOR_SIZE;
use super::abi::SEGMENTS_MAX;
use super::abi::SLOT_FIRST;
use super::discard::Discard;
use super::disk_view::within;
use super::disk_view::DiskView;
use super::disk_view::Refusal;

/// `BLKIF_OP_READ`.
pub const OP_READ: u8 = 0;
/// `BLKIF_OP_WRITE`.
pub const OP_WRITE: u8 = 1;
/// `BLKIF_OP_WRITE_BARRIER`.
pub const OP_BARRIER: u8 = 2;
/// `BLKIF_OP_FLUSH_DISKCACHE`.
pub const OP_FLUSH: u8 = 3;
/// `BLKIF_OP_DISCARD`.
pub const OP_DISCARD: u8 = 5;
/// `BLKIF_OP_INDIRECT`.
pub const OP_INDIRECT: u8 = 6;

/// The operation of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// From the disk to the guest.
    Read,
    /// From the guest to the disk.
    Write,
    /// Makes all completed writes durable, then writes the data of the request, if any.
    Flush,
    /// A flush whose own data is durable when the response is written. It comes after
    /// every request consumed earlier from any ring of the disk, and before every request
    /// consumed later.
    Barrier,
}

/// The location of the data of one segment in its granted frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    gref: u32,
    first: u8,
    sectors: u8,
}

impl Extent {
    /// The grant reference of the frame.
    pub fn gref(&self) -> u32 {
        self.gref
    }

    /// The offset of the first byte within the frame: 0 to 3584.
    pub fn offset(&self) -> u32 {
        u32::from(self.first).saturating_mul(SECTOR_SIZE)
    }

    /// The length in bytes: a multiple of 512, not 0, and not beyond the end of the frame.
    pub fn bytes(&self) -> u32 {
        u32::from(self.sectors).saturating_mul(SECTOR_SIZE)
    }
}

/// A parsed slot, unchecked.
#[derive(Clone, Copy, Debug)]
pub enum Parsed {
    /// A read, write, flush or barrier.
    Transfer(Transfer),
    /// A discard.
    Discard(Discard),
}

/// A transfer whose segments are unchecked.
#[derive(Clone, Copy, Debug)]
pub struct Transfer {
    operation: Operation,
    sector: u64,
    count: u16,
    frame: Option<u32>,
}

/// Parses `slot`.
///
/// # Errors
///
/// The first [`Refusal`] found.
pub fn parse(slot: &Slot, abi: Abi) -> Result<Parsed, Refusal> {
    let operation = match slot.operation() {
        OP_READ => Operation::Read,
        OP_WRITE => Operation::Write,
        OP_BARRIER => Operation::Barrier,
        OP_FLUSH => Operation::Flush,
        OP_DISCARD => return Ok(Parsed::Discard(Discard::parse(slot, abi))),
        OP_INDIRECT => return indirect(slot, abi),
        _ => return Err(Refusal::Operation),
    };
    let count = u16::from(slot.segment_count());
    let may_be_empty = matches!(operation, Operation::Flush | Operation::Barrier);
    if usize::from(count) > SEGMENTS_MAX || (count == 0 && !may_be_empty) {
        return Err(Refusal::SegmentCount);
    }
    Ok(Parsed::Transfer(Transfer {
        operation,
        // The sector of a flush without data has no meaning.
        sector: if count == 0 { 0 } else { slot.sector(abi) },
        count,
        frame: None,
    }))
}

fn indirect(slot: &Slot, abi: Abi) -> Result<Parsed, Refusal> {
    let operation = match slot.indirect_operation() {
        OP_READ => Operation::Read,
        OP_WRITE => Operation::Write,
        _ => return Err(Refusal::IndirectOperation),
    };
    let count = slot.indirect_count();
    if count == 0 || count > INDIRECT_MAX {
        return Err(Refusal::SegmentCount);
    }
    Ok(Parsed::Transfer(Transfer {
        operation,
        sector: slot.sector(abi),
        count,
        frame: Some(slot.indirect_frame(abi)),
    }))
}

/// Does the request have segments after the first part of its slot?
pub fn needs_rest(first: &[u8; SLOT_FIRST]) -> bool {
    let [operation, segments, ..] = *first;
    segments > 1 && !matches!(operation, OP_DISCARD | OP_INDIRECT)
}

/// The operation code of the response to `slot`. That of an indirect request is its inner
/// operation: Linux's frontend shuts the disk down if it gets any other code.
pub fn response_operation(slot: &Slot) -> u8 {
    match slot.operation() {
        OP_INDIRECT => slot.indirect_operation(),
        operation => operation,
    }
}

impl Transfer {
    /// The number of segments: at most [`SEGMENTS_MAX`] in the slot, at most
    /// [`INDIRECT_MAX`] in a frame.
    pub fn count(&self) -> u16 {
        self.count
    }

    /// The grant reference of the frame of segments; `None` if the segments are in the
    /// slot.
    pub fn frame(&self) -> Option<u32> {
        self.frame
    }

    /// Checks the transfer and all its `segments` against `disk`. `extents` is
    /// overwritten; it must have at least one element per segment.
    ///
    /// # Errors
    ///
    /// The first [`Refusal`] found, and `extents`.
    pub fn check<S: DerefMut<Target = [Extent]>>(
        self,
        disk: &DiskView,
        segments: impl Iterator<Item = Segment>,
        mut extents: S,
    ) -> Result<Request<S>, (Refusal, S)> {
        match self.fill(disk, segments, &mut extents) {
            // INVARIANT: `fill` checked every extent and the range.
            Ok(sectors) => Ok(Request {
                operation: self.operation,
                sector: self.sector,
                sectors,
                count: self.count,
                extents,
            }),
            Err(refusal) => Err((refusal, extents)),
        }
    }

    /// Writes the checked extents and returns the number of sectors.
    fn fill(
        &self,
        disk: &DiskView,
        mut segments: impl Iterator<Item = Segment>,
        extents: &mut [Extent],
    ) -> Result<u32, Refusal> {
        if self.operation != Operation::Read && disk.read_only {
            return Err(Refusal::ReadOnly);
        }
        let extents = extents
            .get_mut(..usize::from(self.count))
            .ok_or(Refusal::SegmentCount)?;
        let mut sectors: u32 = 0;
        for extent in extents {
            let segment = segments.next().ok_or(Refusal::Segment)?;
            *extent = extent_of(segment, disk.block)?;
            sectors = sectors.saturating_add(u32::from(extent.sectors));
        }
        within(disk, self.sector, u64::from(sectors))?;
        Ok(sectors)
    }
}

fn extent_of(segment: Segment, block: u32) -> Result<Extent, Refusal> {
    if segment.first > segment.last || segment.last >= SECTORS_PER_PAGE {
        return Err(Refusal::Segment);
    }
    let sectors = segment.last.saturating_sub(segment.first).saturating_add(1);
    if u32::from(sectors) & block.saturating_sub(1) != 0 {
        return Err(Refusal::Alignment);
    }
    Ok(Extent {
        gref: segment.gref,
        first: segment.first,
        sectors,
    })
}

/// A checked transfer. `S` is the memory of its extents.
///
/// # Invariants
///
/// There are `count` extents. Every extent is within one frame and is a whole number of
/// sectors. The first sector and the length of each extent are aligned to logical blocks.
/// The range was within the disk at the time of the check. A read or write has at least
/// one extent.
#[derive(Debug)]
pub struct Request<S> {
    operation: Operation,
    sector: u64,
    sectors: u32,
    count: u16,
    extents: S,
}

impl<S> Request<S> {
    /// The operation.
    pub fn operation(&self) -> Operation {
        self.operation
    }

    /// The first sector, in units of 512 bytes.
    pub fn sector(&self) -> u64 {
        self.sector
    }

    /// The number of sectors of 512 bytes.
    pub fn sectors(&self) -> u32 {
        self.sectors
    }

    /// The length in bytes: at most 1 MiB.
    pub fn bytes(&self) -> u32 {
        self.sectors.saturating_mul(512)
    }

    /// The number of extents: at most [`INDIRECT_MAX`].
    pub fn extent_count(&self) -> u16 {
        self.count
    }
}

impl Request<()> {
    /// What memory for a request holds while no request is in it: a read without an extent, of which nothing
    /// is made.
    pub const NOTHING: Self = Self {
        operation: Operation::Read,
        sector: 0,
        sectors: 0,
        count: 0,
        extents: (),
    };
}

impl<S: Deref<Target = [Extent]>> Request<S> {
    /// The same request without the memory of its extents, for a caller that stores this
    /// memory beside the request. The first [`Request::extent_count`] elements there are
    /// the extents.
    pub fn without_extents(self) -> Request<()> {
        // Counted in the memory itself, so that the count is right without the memory.
        Request {
            operation: self.operation,
            sector: self.sector,
            sectors: self.sectors,
            count: u16::try_from(self.extents().len()).unwrap_or(0),
            extents: (),
        }
    }

    /// The extents, in the order of the segments.
    pub fn extents(&self) -> &[Extent] {
        // By the type invariant there are never fewer.
        self.extents.get(..usize::from(self.count)).unwrap_or(&[])
    }
}

#[cfg(test)]
mod tests;
