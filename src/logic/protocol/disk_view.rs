// SPDX-License-Identifier: GPL-2.0

//! What requests are checked against, and the reasons to refuse a request.
//!
//! A view is a copy, made before a batch of requests is checked. The device may change after the
//! copy. Then the block layer refuses the requests that no longer fit the device.

use super::abi::Status;

/// The properties of a disk at the time of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskView {
    /// The size of the disk in sectors of 512 bytes.
    pub sectors: u64,
    /// The logical block size in sectors of 512 bytes; a power of two.
    pub block: u32,
    /// The disk accepts no writes.
    pub read_only: bool,
    /// Discards were offered to the frontend.
    pub discard: bool,
    /// Secure discards were offered to the frontend.
    pub secure: bool,
}

/// The reason to refuse a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The operation is not offered.
    Operation,
    /// The inner operation of an indirect request is neither read nor write.
    IndirectOperation,
    /// The number of segments is not valid for the operation.
    SegmentCount,
    /// A segment exceeds its frame, or is missing.
    Segment,
    /// The range exceeds the disk.
    Range,
    /// The range is not aligned to logical blocks.
    Alignment,
    /// The request writes to a read-only disk.
    ReadOnly,
}

impl Refusal {
    /// The status of the response.
    pub const fn status(self) -> Status {
        match self {
            Self::Operation => Status::Unsupported,
            Self::IndirectOperation
            | Self::SegmentCount
            | Self::Segment
            | Self::Range
            | Self::Alignment
            | Self::ReadOnly => Status::Error,
        }
    }
}

/// Checks that the `sectors` sectors from `sector` on are within the disk and aligned to logical
/// blocks.
pub fn within(disk: &DiskView, sector: u64, sectors: u64) -> Result<(), Refusal> {
    let end = sector.checked_add(sectors).ok_or(Refusal::Range)?;
    if end > disk.sectors {
        return Err(Refusal::Range);
    }
    let unaligned = (sector | end) & u64::from(disk.block.saturating_sub(1));
    if unaligned != 0 {
        return Err(Refusal::Alignment);
    }
    Ok(())
}
