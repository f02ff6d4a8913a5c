// SPDX-License-Identifier: GPL-2.0

//! Any slot of either ABI whose segments are in the slot.

use rblkback_logic::protocol::abi::Abi;
use rblkback_logic::protocol::abi::SEGMENTS_MAX;
use rblkback_logic::protocol::abi::SLOT_MAX;
use rblkback_logic::protocol::abi::Slot;
use rblkback_logic::protocol::disk_view::DiskView;
use rblkback_logic::protocol::disk_view::Refusal;
use rblkback_logic::protocol::request::Extent;
use rblkback_logic::protocol::request::Operation;
use rblkback_logic::protocol::request::Parsed;
use rblkback_logic::protocol::request::Request;
use rblkback_logic::protocol::request::parse;
use rblkback_logic::protocol::request::response_operation;

use crate::disk::Offsets;
use crate::disk::abi;
use crate::disk::disk;
use crate::disk::is_within;
use crate::disk::offsets;
use crate::disk::u32_at;
use crate::disk::u64_at;
use crate::input::Input;

/// A segment in the slot: grant reference of the frame, first and last sector.
pub type Raw = (u32, u8, u8);

type Outcome = Result<Request<Vec<Extent>>, (Refusal, Vec<Extent>)>;

pub fn run(data: &[u8]) -> bool {
    let mut input = Input::new(data);
    let (abi, disk) = (abi(&mut input), disk(&mut input));
    let slot = draw(&mut input, abi, &disk);
    assert_eq!(slot.id(abi), u64_at(&slot.0, offsets(abi).id));
    let transfer = match parse(&slot, abi) {
        Ok(Parsed::Transfer(transfer)) if transfer.frame().is_none() => transfer,
        Ok(_) => {
            assert!(matches!(slot.0[0], 5 | 6));
            return false;
        }
        Err(_) => {
            assert!(slot.0[0] == 6 || !is_valid(&slot, abi, &disk));
            return false;
        }
    };
    assert_eq!(response_operation(&slot), slot.0[0]);
    let count = transfer.count();
    let check = |extents| transfer.check(&disk, slot.segments(abi, count), extents);
    // The old contents of the extents have no effect.
    let outcome = check(vec![earlier(&slot, abi); SEGMENTS_MAX]);
    let other = check(vec![Extent::default(); SEGMENTS_MAX]);
    assert_eq!(summary(&outcome), summary(&other));
    assert_eq!(outcome.is_ok(), is_valid(&slot, abi, &disk), "{outcome:?}");
    match outcome {
        Ok(request) => check_request(&request, &slot.0, abi, &disk),
        Err((refusal, _)) => {
            assert_ne!(refusal, Refusal::Operation);
            return false;
        }
    }
    let short = check(vec![
        Extent::default();
        usize::from(count).saturating_sub(1)
    ]);
    assert_eq!(short.is_err(), count > 0, "more segments than extents");
    true
}

/// A slot of the fuzzer's bytes, mostly with fields that are nearly valid.
fn draw(input: &mut Input<'_>, abi: Abi, disk: &DiskView) -> Slot {
    let Offsets {
        sector, segments, ..
    } = offsets(abi);
    let (operation, count, nearly_valid) = (input.u8(), input.u8(), input.flag());
    let near = input.near(disk.sectors);
    let mut bytes = [0; SLOT_MAX];
    input.fill(&mut bytes);
    (bytes[0], bytes[1]) = (operation, count);
    if nearly_valid {
        (bytes[0], bytes[1]) = (operation % 4, count % 13);
        bytes[sector..sector + 8].copy_from_slice(&near.to_le_bytes());
        // Most segments are valid. One in eight ends just beyond its frame.
        for at in (segments..segments + 8 * SEGMENTS_MAX).step_by(8) {
            let (first, last) = (bytes[at + 4] % 8, bytes[at + 5]);
            bytes[at + 4] = first;
            bytes[at + 5] = match last % 8 {
                0 => last / 8,
                1 => 8,
                _ => 7,
            };
        }
    }
    Slot(bytes)
}

/// An extent of an earlier request.
fn earlier(slot: &Slot, abi: Abi) -> Extent {
    let mut bytes = slot.0;
    let at = offsets(abi).segments;
    (bytes[0], bytes[1]) = (0, 1);
    bytes[at + 4..at + 6].copy_from_slice(&[0, 7]);
    let slot = Slot(bytes);
    let disk = DiskView {
        sectors: u64::MAX,
        block: 1,
        read_only: false,
        discard: false,
        secure: false,
    };
    let Ok(Parsed::Transfer(transfer)) = parse(&slot, abi) else {
        panic!("no read");
    };
    match transfer.check(&disk, slot.segments(abi, 1), vec![Extent::default()]) {
        Ok(request) => request.extents().first().copied().expect("an extent"),
        // The range would exceed the largest number.
        Err(_) => Extent::default(),
    }
}

fn raw_segments(bytes: &[u8; SLOT_MAX], abi: Abi) -> Vec<Raw> {
    let start = offsets(abi).segments;
    (0..usize::from(bytes[1]).min(SEGMENTS_MAX))
        .map(|index| start + 8 * index)
        .map(|at| (u32_at(bytes, at), bytes[at + 4], bytes[at + 5]))
        .collect()
}

/// Whether the request is valid, by the rules of blkif.h, from the raw bytes.
fn is_valid(slot: &Slot, abi: Abi, disk: &DiskView) -> bool {
    let bytes = &slot.0;
    let (operation, count) = (bytes[0], bytes[1]);
    let segments = raw_segments(bytes, abi);
    // The sector of a flush without data has no meaning.
    let sector = match count {
        0 => 0,
        _ => u64_at(bytes, offsets(abi).sector),
    };
    operation < 4
        && count <= 11
        && (count > 0 || operation >= 2)
        && (operation == 0 || !disk.read_only)
        && are_valid(&segments, disk)
        && is_within(disk, sector, length(&segments))
}

/// Whether every segment is within its frame, in whole blocks of the disk.
pub fn are_valid(segments: &[Raw], disk: &DiskView) -> bool {
    segments.iter().all(|(_, first, last)| {
        first <= last && *last < 8 && (u32::from(last - first) + 1) % disk.block == 0
    })
}

/// The number of sectors of all segments.
pub fn length(segments: &[Raw]) -> u128 {
    let sectors = |(_, first, last): &Raw| u128::from(last - first) + 1;
    segments.iter().map(sectors).sum()
}

/// The result, without the memory beyond the extents.
fn summary(outcome: &Outcome) -> Result<(Operation, u64, u32, Vec<Extent>), Refusal> {
    match outcome {
        Ok(request) => Ok((
            request.operation(),
            request.sector(),
            request.sectors(),
            request.extents().to_vec(),
        )),
        Err((refusal, _)) => Err(*refusal),
    }
}

/// Checks that the request is what the slot says, and safe.
fn check_request(
    request: &Request<Vec<Extent>>,
    bytes: &[u8; SLOT_MAX],
    abi: Abi,
    disk: &DiskView,
) {
    let operation = match bytes[0] {
        0 => Operation::Read,
        1 => Operation::Write,
        2 => Operation::Barrier,
        _ => Operation::Flush,
    };
    assert_eq!(request.operation(), operation);
    if bytes[1] > 0 {
        assert_eq!(request.sector(), u64_at(bytes, offsets(abi).sector));
    }
    check_extents(request, &raw_segments(bytes, abi), disk);
}

/// Checks that the extents are these segments, are within their frames, and have the length of the
/// request.
pub fn check_extents(request: &Request<Vec<Extent>>, segments: &[Raw], disk: &DiskView) {
    let sectors = u128::from(request.sectors());
    assert!(is_within(disk, request.sector(), sectors), "{request:?}");
    assert_eq!(usize::from(request.extent_count()), segments.len());
    assert_eq!(request.extents().len(), segments.len());
    let mut bytes = 0;
    for (extent, (gref, first, last)) in request.extents().iter().zip(segments) {
        let end = extent.offset() + extent.bytes();
        assert!(extent.bytes() > 0 && end <= 4096);
        assert_eq!(extent.gref(), *gref);
        assert_eq!(extent.offset(), u32::from(*first) * 512);
        assert_eq!(end, (u32::from(*last) + 1) * 512);
        bytes += u128::from(extent.bytes());
    }
    assert_eq!(bytes, sectors * 512);
}
