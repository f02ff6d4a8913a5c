// SPDX-License-Identifier: GPL-2.0

//! From a private copy of a slot to a request that may touch the disk.
//!
//! [`Slot`] is what the guest wrote. [`Request`] can only come from [`check`],
//! which looks at the whole of it: nothing is done for a request of which any
//! part is wrong.
//!
//! Source of the rules: `xen/interface/io/blkif.h`.

use super::abi::Abi;
use super::abi::Slot;
use super::abi::Status;
use super::abi::SECTORS_PER_PAGE;
use super::abi::SECTOR_SIZE;
use super::abi::SEGMENTS_MAX;

/// `BLKIF_OP_READ`.
pub const OP_READ: u8 = 0;
/// `BLKIF_OP_WRITE`.
pub const OP_WRITE: u8 = 1;
/// `BLKIF_OP_FLUSH_DISKCACHE`.
pub const OP_FLUSH: u8 = 3;

/// What is known of the disk when a request is checked.
#[derive(Clone, Copy, Debug)]
pub struct Disk {
    /// Its size now, in sectors of 512 bytes.
    pub sectors: u64,
    /// Sectors of 512 bytes per logical block; a power of two.
    pub block: u32,
    /// No write reaches it.
    pub read_only: bool,
}

/// What a served request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Disk to guest.
    Read,
    /// Guest to disk.
    Write,
    /// Make all finished writes durable, then write what it carries, if anything.
    Flush,
}

/// Where one segment's bytes lie in its granted frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// Grant reference of the frame.
    pub gref: u32,
    /// First byte within the frame.
    pub offset: u32,
    /// Bytes; never 0, never past the frame's end.
    pub len: u32,
}

/// Why a request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// An operation that is not offered.
    Operation,
    /// A segment count that the operation cannot have.
    SegmentCount,
    /// A segment that does not lie within its frame.
    Segment,
    /// Beyond the end of the disk.
    Range,
    /// Not aligned to the disk's logical blocks.
    Alignment,
    /// A write to a read-only disk.
    ReadOnly,
}

impl Refusal {
    /// The answer the guest gets.
    pub const fn status(self) -> Status {
        match self {
            Self::Operation => Status::Unsupported,
            Self::SegmentCount | Self::Segment | Self::Range | Self::Alignment | Self::ReadOnly => {
                Status::Error
            }
        }
    }
}

/// A request that was checked as a whole.
///
/// # Invariants
///
/// Every extent lies within one frame and is a whole number of sectors; sector
/// and the length of each extent are aligned to the disk's logical blocks; the range lies on the
/// disk as it was when checked; a read or write has at least one extent.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    operation: Operation,
    sector: u64,
    sectors: u32,
    extents: [Extent; SEGMENTS_MAX],
    count: u8,
}

impl Request {
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

    /// How many pieces of guest memory there are, at most [`SEGMENTS_MAX`].
    pub fn extent_count(&self) -> u8 {
        self.count
    }

    /// The pieces of guest memory, in order.
    pub fn extents(&self) -> impl Iterator<Item = &Extent> {
        self.extents.iter().take(usize::from(self.count))
    }
}

/// Checks `slot` as a whole against `disk`.
///
/// # Errors
///
/// The first [`Refusal`] found; nothing of the request was acted upon.
pub fn check(slot: &Slot, abi: Abi, disk: &Disk) -> Result<Request, Refusal> {
    let operation = match slot.operation() {
        OP_READ => Operation::Read,
        OP_WRITE => Operation::Write,
        OP_FLUSH => Operation::Flush,
        _ => return Err(Refusal::Operation),
    };
    let count = slot.segment_count();
    if usize::from(count) > SEGMENTS_MAX || (count == 0 && operation != Operation::Flush) {
        return Err(Refusal::SegmentCount);
    }
    if operation != Operation::Read && disk.read_only {
        return Err(Refusal::ReadOnly);
    }
    let (extents, sectors) = extents(slot, abi, usize::from(count), disk.block)?;
    // A flush without data names no place.
    let sector = if count == 0 { 0 } else { slot.sector(abi) };
    within(disk, sector, sectors)?;
    Ok(Request {
        operation,
        sector,
        sectors,
        extents,
        count,
    })
}

fn extents(
    slot: &Slot,
    abi: Abi,
    count: usize,
    block: u32,
) -> Result<([Extent; SEGMENTS_MAX], u32), Refusal> {
    let mut extents = [Extent::default(); SEGMENTS_MAX];
    let mut sectors: u32 = 0;
    for (extent, index) in extents.iter_mut().zip(0..count) {
        let segment = slot.segment(abi, index).ok_or(Refusal::Segment)?;
        if segment.first > segment.last || segment.last >= SECTORS_PER_PAGE {
            return Err(Refusal::Segment);
        }
        let length = u32::from(segment.last.saturating_sub(segment.first)).saturating_add(1);
        if length & block.saturating_sub(1) != 0 {
            return Err(Refusal::Alignment);
        }
        sectors = sectors.saturating_add(length);
        *extent = Extent {
            gref: segment.gref,
            offset: u32::from(segment.first).saturating_mul(SECTOR_SIZE),
            len: length.saturating_mul(SECTOR_SIZE),
        };
    }
    Ok((extents, sectors))
}

fn within(disk: &Disk, sector: u64, sectors: u32) -> Result<(), Refusal> {
    let end = sector
        .checked_add(u64::from(sectors))
        .ok_or(Refusal::Range)?;
    if end > disk.sectors {
        return Err(Refusal::Range);
    }
    let unaligned = (sector | end) & u64::from(disk.block.saturating_sub(1));
    if unaligned != 0 {
        return Err(Refusal::Alignment);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::abi::SLOT_MAX;
    use super::*;

    const DISK: Disk = Disk {
        sectors: 1000,
        block: 1,
        read_only: false,
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

    fn refusal(slot: &Slot, disk: &Disk) -> Option<Refusal> {
        check(slot, Abi::X86_64, disk).err()
    }

    #[test]
    fn a_read_keeps_its_segments_in_order() {
        let request = check(&slot(0, 10, &[(0, 7), (2, 3)]), Abi::X86_64, &DISK).unwrap();
        assert_eq!(request.operation(), Operation::Read);
        assert_eq!((request.sector(), request.sectors()), (10, 10));
        let extents: Vec<_> = request.extents().copied().collect();
        assert_eq!(
            extents[0],
            Extent {
                gref: 100,
                offset: 0,
                len: 4096
            }
        );
        assert_eq!(
            extents[1],
            Extent {
                gref: 101,
                offset: 1024,
                len: 1024
            }
        );
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
        let disk = Disk { block: 8, ..DISK };
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
        let disk = Disk {
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
        let empty = check(&slot(3, u64::MAX, &[]), Abi::X86_64, &DISK).unwrap();
        assert_eq!((empty.operation(), empty.sectors()), (Operation::Flush, 0));
        assert_eq!(empty.extent_count(), 0);
        let data = check(&slot(3, 8, &[(0, 7)]), Abi::X86_64, &DISK).unwrap();
        assert_eq!((data.sector(), data.sectors()), (8, 8));
    }

    #[test]
    fn operations_that_are_not_offered_are_unsupported() {
        for operation in (0..=255u8).filter(|op| ![OP_READ, OP_WRITE, OP_FLUSH].contains(op)) {
            let refusal = refusal(&slot(operation, 0, &[(0, 7)]), &DISK).unwrap();
            assert_eq!(refusal.status(), Status::Unsupported, "op {operation}");
        }
    }
}
