// SPDX-License-Identifier: GPL-2.0

//! A disk, the check of a range in wide numbers, and the offsets of a slot.

use rblkback_logic::protocol::abi::Abi;
use rblkback_logic::protocol::disk_view::DiskView;

use crate::input::Input;

pub fn abi(input: &mut Input<'_>) -> Abi {
    input.pick([Abi::X86_64, Abi::X86_32])
}

pub fn disk(input: &mut Input<'_>) -> DiskView {
    let flags = input.u8();
    let sectors = match input.up_to(4) {
        0 => u64::from(input.u8()),
        1 => u64::from(input.u16()),
        2 => 1 << 32,
        3 => u64::MAX,
        _ => input.u64(),
    };
    DiskView {
        sectors,
        block: input.pick([1, 2, 4, 8, 16, 64]),
        read_only: flags & 3 == 3,
        discard: flags & 4 == 0,
        secure: flags & 8 == 0,
    }
}

/// Whether the range is within the disk, in whole blocks.
pub fn is_within(disk: &DiskView, sector: u64, sectors: u128) -> bool {
    let (first, block) = (u128::from(sector), u128::from(disk.block));
    first + sectors <= u128::from(disk.sectors) && first % block == 0 && sectors % block == 0
}

/// The `offsetof` of fields of `struct blkif_request_rw`, as a C compiler computes them.
pub struct Offsets {
    pub id: usize,
    pub sector: usize,
    pub segments: usize,
}

pub fn offsets(abi: Abi) -> Offsets {
    match abi {
        Abi::X86_64 => Offsets {
            id: 8,
            sector: 16,
            segments: 24,
        },
        Abi::X86_32 => Offsets {
            id: 4,
            sector: 12,
            segments: 20,
        },
    }
}

pub fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}

pub fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"))
}
