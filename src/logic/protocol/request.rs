// SPDX-License-Identifier: GPL-2.0

//! From a private copy of a slot to a request that may touch the disk.
//!
//! ```text
//! Slot --parse--> Transfer --check (with its segments)--> Request
//!            \--> Discard  --check--> CheckedDiscard
//! ```
//!
//! [`Slot`] is what the guest wrote. [`parse`] looks at what the slot itself says;
//! it tells how many segments there are, and whether they lie in a frame of their
//! own. [`Request`] and [`CheckedDiscard`] can only come from `check`, which looks at the
//! whole: nothing is done for a request of which any part is wrong.
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

/// What a served request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Disk to guest.
    Read,
    /// Guest to disk.
    Write,
    /// Make all finished writes durable, then write what it carries, if anything.
    Flush,
    /// As a flush, durable itself when it is answered, after everything that was
    /// taken before it from any ring of the disk, before everything taken later.
    Barrier,
}

/// Where one segment's bytes lie in its granted frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    gref: u32,
    first: u8,
    sectors: u8,
}

impl Extent {
    /// Grant reference of the frame.
    pub fn gref(&self) -> u32 {
        self.gref
    }

    /// First byte within the frame.
    pub fn offset(&self) -> u32 {
        u32::from(self.first).saturating_mul(SECTOR_SIZE)
    }

    /// Bytes; never 0, never past the frame's end.
    pub fn bytes(&self) -> u32 {
        u32::from(self.sectors).saturating_mul(SECTOR_SIZE)
    }
}

/// What a slot asks for, before anything outside of the slot was looked at.
#[derive(Clone, Copy, Debug)]
pub enum Parsed {
    /// Data to or from the disk, or a flush.
    Transfer(Transfer),
    /// Sectors that the guest no longer needs.
    Discard(Discard),
}

/// A transfer whose segments were not looked at.
#[derive(Clone, Copy, Debug)]
pub struct Transfer {
    operation: Operation,
    sector: u64,
    count: u16,
    frame: Option<u32>,
}

/// Reads what `slot` asks for.
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
        // A flush without data names no place.
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

/// The operation that the answer to `slot` names. That of an indirect request is its
/// inner one: Linux's frontend shuts the disk down if it is told anything else.
pub fn answered_operation(slot: &Slot) -> u8 {
    match slot.operation() {
        OP_INDIRECT => slot.indirect_operation(),
        operation => operation,
    }
}

impl Transfer {
    /// How many segments it has: at most [`SEGMENTS_MAX`] in the slot, at most
    /// [`INDIRECT_MAX`] in a frame.
    pub fn count(&self) -> u16 {
        self.count
    }

    /// Grant reference of the frame that holds its segments; `None` if they are in
    /// the slot.
    pub fn frame(&self) -> Option<u32> {
        self.frame
    }

    /// Checks the transfer with its `segments` as a whole against `disk`. `room` is
    /// overwritten; it must have an element per segment.
    ///
    /// # Errors
    ///
    /// The first [`Refusal`] found, and the room.
    pub fn check<S: DerefMut<Target = [Extent]>>(
        self,
        disk: &DiskView,
        segments: impl Iterator<Item = Segment>,
        mut room: S,
    ) -> Result<Request<S>, (Refusal, S)> {
        match self.fill(disk, segments, &mut room) {
            // INVARIANT: All was checked just now.
            Ok(sectors) => Ok(Request {
                operation: self.operation,
                sector: self.sector,
                sectors,
                count: self.count,
                extents: room,
            }),
            Err(refusal) => Err((refusal, room)),
        }
    }

    fn fill(
        &self,
        disk: &DiskView,
        mut segments: impl Iterator<Item = Segment>,
        room: &mut [Extent],
    ) -> Result<u32, Refusal> {
        if self.operation != Operation::Read && disk.read_only {
            return Err(Refusal::ReadOnly);
        }
        let room = room
            .get_mut(..usize::from(self.count))
            .ok_or(Refusal::SegmentCount)?;
        let mut sectors: u32 = 0;
        for extent in room {
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

/// A transfer that was checked as a whole, in room `S` of its own.
///
/// # Invariants
///
/// There are `count` extents. Every extent lies within one frame and is a whole
/// number of sectors; sector and the length of each extent are aligned to the
/// disk's logical blocks; the range lies on the disk as it was when checked; a read
/// or write has at least one extent.
#[derive(Debug)]
pub struct Request<S> {
    operation: Operation,
    sector: u64,
    sectors: u32,
    count: u16,
    extents: S,
}

impl<S> Request<S> {
    /// What to do.
    pub fn operation(&self) -> Operation {
        self.operation
    }

    /// The first sector, of 512 bytes.
    pub fn sector(&self) -> u64 {
        self.sector
    }

    /// How many sectors of 512 bytes are moved.
    pub fn sectors(&self) -> u32 {
        self.sectors
    }

    /// The same in bytes: at most a mebibyte.
    pub fn bytes(&self) -> u32 {
        self.sectors.saturating_mul(512)
    }

    /// How many pieces of guest memory there are, at most [`INDIRECT_MAX`].
    pub fn extent_count(&self) -> u16 {
        self.count
    }
}

impl<S: Deref<Target = [Extent]>> Request<S> {
    /// The same without its pieces of guest memory, for whoever keeps the room and its
    /// first [`Request::extent_count`] extents beside it.
    pub fn without_extents(self) -> Request<()> {
        // Counted in the room itself, so that the count can be relied upon without it.
        Request {
            operation: self.operation,
            sector: self.sector,
            sectors: self.sectors,
            count: u16::try_from(self.extents().len()).unwrap_or(0),
            extents: (),
        }
    }

    /// The pieces of guest memory, in order.
    pub fn extents(&self) -> &[Extent] {
        // Never fewer, by the type invariant.
        self.extents.get(..usize::from(self.count)).unwrap_or(&[])
    }
}

#[cfg(test)]
mod tests {
    use super::super::abi::Status;
    use super::super::abi::SLOT_MAX;
    use super::*;

    const DISK: DiskView = DiskView {
        sectors: 1000,
        block: 1,
        read_only: false,
        discard: true,
        secure: false,
    };

    fn slot(operation: u8, sector: u64, segments: &[(u8, u8)]) -> Slot {
        let mut bytes = [0u8; SLOT_MAX];
        bytes[0] = operation;
        bytes[1] = segments.len() as u8;
        bytes[16..24].copy_from_slice(&sector.to_le_bytes());
        for (index, (first, last)) in segments.iter().take(SEGMENTS_MAX).enumerate() {
            let at = 24 + 8 * index;
            bytes[at..at + 4].copy_from_slice(&(index as u32 + 100).to_le_bytes());
            bytes[at + 4] = *first;
            bytes[at + 5] = *last;
        }
        Slot(bytes)
    }

    fn check(slot: &Slot, disk: &DiskView) -> Result<Request<Vec<Extent>>, Refusal> {
        match parse(slot, Abi::X86_64)? {
            Parsed::Transfer(transfer) => transfer
                .check(
                    disk,
                    slot.segments(Abi::X86_64, transfer.count()),
                    vec![Extent::default(); SEGMENTS_MAX],
                )
                .map_err(|(refusal, _)| refusal),
            Parsed::Discard(_) => panic!("not a transfer"),
        }
    }

    fn refusal(slot: &Slot, disk: &DiskView) -> Option<Refusal> {
        check(slot, disk).err()
    }

    fn indirect(inner: u8, count: u16) -> Slot {
        let mut slot = slot(OP_INDIRECT, 8, &[]);
        slot.0[1] = inner;
        slot.0[2..4].copy_from_slice(&count.to_le_bytes());
        slot.0[28..32].copy_from_slice(&77u32.to_le_bytes());
        slot
    }

    #[test]
    fn a_read_keeps_its_segments_in_order() {
        let request = check(&slot(0, 10, &[(0, 7), (2, 3)]), &DISK).unwrap();
        assert_eq!(request.operation(), Operation::Read);
        assert_eq!((request.sector(), request.sectors()), (10, 10));
        let extents: Vec<_> = request
            .extents()
            .iter()
            .map(|extent| (extent.gref(), extent.offset(), extent.bytes()))
            .collect();
        assert_eq!(extents, [(100, 0, 4096), (101, 1024, 1024)]);
    }

    #[test]
    fn segment_counts_from_1_to_11_are_legal() {
        for count in 0..=255usize {
            let mut slot = slot(1, 0, &[(0, 0); 11]);
            slot.0[1] = count as u8;
            let expected = (count == 0 || count > 11).then_some(Refusal::SegmentCount);
            assert_eq!(refusal(&slot, &DISK), expected, "{count} segments");
        }
    }

    #[test]
    fn a_segment_stays_in_its_frame() {
        for (first, last) in [(1, 0), (0, 8), (0, 255), (8, 8), (255, 0), (7, 6)] {
            assert_eq!(
                refusal(&slot(0, 0, &[(0, 7), (first, last)]), &DISK),
                Some(Refusal::Segment),
                "{first}..={last}"
            );
        }
    }

    #[test]
    fn the_end_of_the_disk_is_the_end() {
        assert_eq!(refusal(&slot(0, 999, &[(0, 0)]), &DISK), None);
        for (sector, segments) in [
            (1000, &[(0, 0)][..]),
            (999, &[(0, 1)]),
            (990, &[(0, 7), (0, 7)]),
            (1 << 55, &[(0, 0)]),
            (u64::MAX, &[(0, 0)]),
            (u64::MAX - 7, &[(0, 7)]),
        ] {
            assert_eq!(
                refusal(&slot(0, sector, segments), &DISK),
                Some(Refusal::Range)
            );
        }
    }

    #[test]
    fn requests_are_aligned_to_logical_blocks() {
        let disk = DiskView { block: 8, ..DISK };
        assert_eq!(refusal(&slot(0, 8, &[(0, 7)]), &disk), None);
        assert_eq!(
            refusal(&slot(0, 8, &[(0, 3), (4, 7)]), &disk),
            Some(Refusal::Alignment),
            "half a block each"
        );
        assert_eq!(
            refusal(&slot(0, 4, &[(0, 7)]), &disk),
            Some(Refusal::Alignment)
        );
        assert_eq!(
            refusal(&slot(0, 8, &[(0, 3)]), &disk),
            Some(Refusal::Alignment)
        );
    }

    #[test]
    fn a_read_only_disk_is_only_read() {
        let disk = DiskView {
            read_only: true,
            ..DISK
        };
        assert_eq!(refusal(&slot(0, 0, &[(0, 7)]), &disk), None);
        assert_eq!(
            refusal(&slot(1, 0, &[(0, 7)]), &disk),
            Some(Refusal::ReadOnly)
        );
        assert_eq!(
            refusal(&slot(3, 0, &[(0, 7)]), &disk),
            Some(Refusal::ReadOnly)
        );
    }

    #[test]
    fn a_flush_may_carry_data_or_nothing() {
        let empty = check(&slot(3, u64::MAX, &[]), &DISK).unwrap();
        assert_eq!((empty.operation(), empty.sectors()), (Operation::Flush, 0));
        assert_eq!(empty.extent_count(), 0);
        let data = check(&slot(3, 8, &[(0, 7)]), &DISK).unwrap();
        assert_eq!((data.sector(), data.sectors()), (8, 8));
    }

    #[test]
    fn operations_that_are_not_offered_are_unsupported() {
        for operation in [4].into_iter().chain(7..=255u8) {
            let refusal = refusal(&slot(operation, 0, &[(0, 7)]), &DISK).unwrap();
            assert_eq!(refusal.status(), Status::Unsupported, "op {operation}");
        }
    }

    #[test]
    fn an_indirect_request_names_its_frame_and_reads_or_writes() {
        let Ok(Parsed::Transfer(transfer)) = parse(&indirect(OP_WRITE, 256), Abi::X86_64) else {
            panic!("refused");
        };
        assert_eq!(transfer.operation, Operation::Write);
        assert_eq!((transfer.count(), transfer.frame()), (256, Some(77)));
        for count in [0, 257, 512, 65535] {
            assert_eq!(
                parse(&indirect(OP_READ, count), Abi::X86_64).err(),
                Some(Refusal::SegmentCount)
            );
        }
        for inner in (2..=255u8).filter(|inner| *inner != OP_WRITE) {
            let refusal = parse(&indirect(inner, 1), Abi::X86_64).err().unwrap();
            assert_eq!(refusal.status(), Status::Error, "inner operation {inner}");
        }
    }

    #[test]
    fn the_answer_to_an_indirect_request_names_what_it_did() {
        assert_eq!(answered_operation(&indirect(OP_WRITE, 20)), OP_WRITE);
        assert_eq!(answered_operation(&slot(OP_FLUSH, 0, &[])), OP_FLUSH);
    }

    #[test]
    fn indirect_segments_come_from_their_frame() {
        let Ok(Parsed::Transfer(transfer)) = parse(&indirect(OP_READ, 20), Abi::X86_64) else {
            panic!("refused");
        };
        let segment = Segment {
            gref: 5,
            first: 0,
            last: 7,
        };
        let check = |segments: usize, room: usize| {
            transfer
                .check(
                    &DISK,
                    core::iter::repeat_n(segment, segments),
                    vec![Extent::default(); room],
                )
                .map_err(|(refusal, _)| refusal)
        };
        assert_eq!(check(20, 32).unwrap().sectors(), 160);
        assert_eq!(check(20, 32).unwrap().extents().len(), 20);
        assert_eq!(check(19, 32).unwrap_err(), Refusal::Segment);
        assert_eq!(check(20, 19).unwrap_err(), Refusal::SegmentCount);
    }
}
