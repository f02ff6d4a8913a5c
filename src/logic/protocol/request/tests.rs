// SPDX-License-Identifier: GPL-2.0

//! Unit tests of parsing and checking.

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
fn extents_have_the_order_of_the_segments() {
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
fn a_segment_beyond_its_frame_is_refused() {
    for (first, last) in [(1, 0), (0, 8), (0, 255), (8, 8), (255, 0), (7, 6)] {
        assert_eq!(
            refusal(&slot(0, 0, &[(0, 7), (first, last)]), &DISK),
            Some(Refusal::Segment),
            "{first}..={last}"
        );
    }
}

#[test]
fn a_range_beyond_the_disk_is_refused() {
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
fn requests_must_be_aligned_to_logical_blocks() {
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
fn a_read_only_disk_refuses_writes_and_flushes() {
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
fn a_flush_may_be_with_or_without_data() {
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
fn an_indirect_request_has_a_frame_and_reads_or_writes() {
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
fn the_response_to_an_indirect_request_has_the_inner_operation() {
    assert_eq!(response_operation(&indirect(OP_WRITE, 20)), OP_WRITE);
    assert_eq!(response_operation(&slot(OP_FLUSH, 0, &[])), OP_FLUSH);
}

#[test]
fn an_indirect_request_needs_all_its_segments_and_extents() {
    let Ok(Parsed::Transfer(transfer)) = parse(&indirect(OP_READ, 20), Abi::X86_64) else {
        panic!("refused");
    };
    let segment = Segment {
        gref: 5,
        first: 0,
        last: 7,
    };
    let check = |segments: usize, extents: usize| {
        transfer
            .check(
                &DISK,
                core::iter::repeat_n(segment, segments),
                vec![Extent::default(); extents],
            )
            .map_err(|(refusal, _)| refusal)
    };
    assert_eq!(check(20, 32).unwrap().sectors(), 160);
    assert_eq!(check(20, 32).unwrap().extents().len(), 20);
    assert_eq!(check(19, 32).unwrap_err(), Refusal::Segment);
    assert_eq!(check(20, 19).unwrap_err(), Refusal::SegmentCount);
}

#[test]
fn the_first_part_of_a_slot_is_all_of_a_request_that_does_not_need_the_rest() {
    for (operation, second) in (0..=255u8).flat_map(|op| (0..=255u8).map(move |n| (op, n))) {
        let mut whole = Slot([0x5a; SLOT_MAX]);
        whole.0[0] = operation;
        whole.0[1] = second;
        whole.0[2..4].copy_from_slice(&20u16.to_le_bytes());
        let (first, rest) = whole.0.split_first_chunk::<SLOT_FIRST>().unwrap();
        if needs_rest(first) {
            continue;
        }
        let mut part = Slot([0; SLOT_MAX]);
        part.0[..SLOT_FIRST].copy_from_slice(first);
        assert_ne!(rest, &part.0[SLOT_FIRST..]);
        let seen = |slot: &Slot| {
            let parsed = parse(slot, Abi::X86_64);
            let in_slot = match &parsed {
                Ok(Parsed::Transfer(transfer)) if transfer.frame().is_none() => transfer.count(),
                _ => 0,
            };
            let segments: Vec<_> = slot.segments(Abi::X86_64, in_slot).collect();
            let id = slot.id(Abi::X86_64);
            format!("{parsed:?} {segments:?} {id} {}", response_operation(slot))
        };
        assert_eq!(seen(&part), seen(&whole), "operation {operation}, {second}");
    }
}
