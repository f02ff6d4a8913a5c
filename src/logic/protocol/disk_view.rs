// SPDX-License-Identifier: GPL-2.0

//! What requests are checked against, and why one is refused.
//!
//! A view is taken before requests are looked at; the device may change afterwards, and then
//! the device itself refuses what does not fit it any more.

use super::abi::Status;

/// What is known of the disk when a request is checked.
#[derive(Clone, Copy, Debug)]
pub struct DiskView {
    /// Its size now, in sectors of 512 bytes.
    pub sectors: u64,
    /// Sectors of 512 bytes per logical block; a power of two.
    pub block: u32,
    /// No write reaches it.
    pub read_only: bool,
    /// Discards were offered.
    pub discard: bool,
    /// Secure discards were offered.
    pub secure: bool,
}

/// Why a request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// An operation that is not offered.
    Operation,
    /// An indirect request that does something other than read or write.
    IndirectOperation,
    /// A segment count that the operation cannot have.
    SegmentCount,
    /// A segment that does not lie within its frame, or is missing.
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
            Self::IndirectOperation
            | Self::SegmentCount
            | Self::Segment
            | Self::Range
            | Self::Alignment
            | Self::ReadOnly => Status::Error,
        }
    }
}

/// Do `sectors` sectors from `sector` on lie on the disk, in whole blocks?
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
