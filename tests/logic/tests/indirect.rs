// SPDX-License-Identifier: GPL-2.0

//! Indirect requests and discards are checked against a second implementation of the
//! rules. It uses the raw bytes, wide numbers, and the offsets that a C compiler computes
//! for `blkif.h`.

mod host;

use host::cases;
use proptest::collection::vec;
use proptest::prelude::*;
use rblkback_logic::protocol::abi::Abi;
use rblkback_logic::protocol::abi::Segment;
use rblkback_logic::protocol::abi::Slot;
use rblkback_logic::protocol::abi::SLOT_MAX;
use rblkback_logic::protocol::discard::Granule;
use rblkback_logic::protocol::disk_view::DiskView;
use rblkback_logic::protocol::request::parse;
use rblkback_logic::protocol::request::Extent;
use rblkback_logic::protocol::request::Operation;
use rblkback_logic::protocol::request::Parsed;

/// `offsetof` id, sector_number, indirect_grefs in `struct blkif_request_indirect`.
fn offsets(abi: Abi) -> (usize, usize, usize) {
    match abi {
        Abi::X86_64 => (8, 16, 28),
        Abi::X86_32 => (4, 12, 24),
    }
}

fn abis() -> impl Strategy<Value = Abi> {
    prop_oneof![Just(Abi::X86_64), Just(Abi::X86_32)]
}

fn disks() -> impl Strategy<Value = DiskView> {
    let sectors = prop_oneof![1..4096u64, Just(u64::MAX), any::<u64>()];
    (
        sectors,
        prop_oneof![Just(1u32), Just(8)],
        any::<[bool; 3]>(),
    )
        .prop_map(|(sectors, block, [read_only, discard, secure])| DiskView {
            sectors,
            block,
            read_only,
            discard,
            secure,
        })
}

fn sectors(disk: DiskView) -> impl Strategy<Value = u64> {
    prop_oneof![
        (0..64u64).prop_map(|block| block * 8),
        (0..3000u64).prop_map(move |back| disk.sectors.wrapping_sub(back)),
        any::<u64>(),
    ]
}

/// Segments, mostly whole frames, so that some requests are valid.
fn descriptors() -> impl Strategy<Value = (u32, u8, u8)> {
    let range = prop_oneof![
        200 => Just((0u8, 7u8)),
        1 => (0..10u8, 0..10u8),
    ];
    (any::<u32>(), range).prop_map(|(frame, (first, last))| (frame, first, last))
}

fn indirect(abi: Abi, inner: u8, count: u16, sector: u64, frame: u32) -> Slot {
    let mut bytes = [0xa5; SLOT_MAX];
    let (_, sector_at, frames_at) = offsets(abi);
    bytes[0] = 6;
    bytes[1] = inner;
    bytes[2..4].copy_from_slice(&count.to_le_bytes());
    bytes[sector_at..sector_at + 8].copy_from_slice(&sector.to_le_bytes());
    bytes[frames_at..frames_at + 4].copy_from_slice(&frame.to_le_bytes());
    Slot(bytes)
}

fn discard(abi: Abi, flags: u8, sector: u64, sectors: u64) -> Slot {
    let mut bytes = [0xa5; SLOT_MAX];
    let (_, at, _) = offsets(abi);
    bytes[0] = 5;
    bytes[1] = flags;
    bytes[at..at + 8].copy_from_slice(&sector.to_le_bytes());
    bytes[at + 8..at + 16].copy_from_slice(&sectors.to_le_bytes());
    Slot(bytes)
}

proptest! {
    #![proptest_config(cases(4000))]

    #[test]
    fn an_indirect_request_is_valid_or_refused(
        (disk, sector) in disks().prop_flat_map(|disk| (Just(disk), sectors(disk))),
        abi in abis(),
        inner in prop_oneof![8 => 0..2u8, 1 => any::<u8>()],
        descriptors in prop_oneof![vec(descriptors(), 1..16), vec(descriptors(), 256)],
        wrong_count in prop_oneof![8 => Just(None), 1 => any::<u16>().prop_map(Some)],
        frame: u32,
    ) {
        let count = wrong_count.unwrap_or(descriptors.len() as u16);
        let slot = indirect(abi, inner, count, sector, frame);
        let bytes: Vec<u8> = descriptors
            .iter()
            .flat_map(|(gref, first, last)| {
                let [a, b, c, d] = gref.to_le_bytes();
                [a, b, c, d, *first, *last, 0xff, 0xff]
            })
            .collect();
        let length: u128 = descriptors
            .iter()
            .map(|(_, first, last)| (u128::from(*last) + 1).saturating_sub(u128::from(*first)))
            .sum();
        let end = u128::from(sector) + length;
        let block = u128::from(disk.block);
        let valid = inner < 2
            && usize::from(count) == descriptors.len()
            && !(inner == 1 && disk.read_only)
            && descriptors.iter().all(|(_, first, last)| first <= last && *last < 8)
            && descriptors
                .iter()
                .all(|(_, first, last)| (u128::from(last - first) + 1) % block == 0)
            && end <= u128::from(disk.sectors)
            && u128::from(sector) % block == 0;
        let checked = match parse(&slot, abi) {
            Ok(Parsed::Transfer(transfer)) => {
                prop_assert_eq!(transfer.frame(), Some(frame));
                let extents = vec![Extent::default(); 256];
                transfer.check(&disk, Segment::list(&bytes, transfer.count()), extents).ok()
            }
            Ok(Parsed::Discard(_)) => panic!("a discard"),
            Err(_) => None,
        };
        // A count that is smaller than the list cannot be detected.
        if wrong_count.is_none() {
            prop_assert_eq!(checked.is_some(), valid, "{:?}", disk);
        }
        if let Some(request) = checked.filter(|_| wrong_count.is_none()) {
            let operation = if inner == 0 { Operation::Read } else { Operation::Write };
            prop_assert_eq!(request.operation(), operation);
            prop_assert_eq!((request.sector(), u128::from(request.sectors())), (sector, length));
            let extents: Vec<_> = request.extents().iter().map(|e| (e.gref(), e.offset(), e.bytes())).collect();
            let expected: Vec<_> = descriptors
                .iter()
                .map(|(gref, first, last)| {
                    (*gref, u32::from(*first) * 512, u32::from(last - first + 1) * 512)
                })
                .collect();
            prop_assert_eq!(extents, expected);
        }
    }

    #[test]
    fn a_discard_is_valid_or_refused(
        (disk, sector) in disks().prop_flat_map(|disk| (Just(disk), sectors(disk))),
        sectors in prop_oneof![(0..100u64).prop_map(|n| n * 8), any::<u64>()],
        flags: u8,
        abi in abis(),
        most in 1..5000u64,
    ) {
        let end = u128::from(sector) + u128::from(sectors);
        let block = u128::from(disk.block);
        let valid = disk.discard
            && !disk.read_only
            && end <= u128::from(disk.sectors)
            && u128::from(sector) % block == 0
            && u128::from(sectors) % block == 0;
        let Ok(Parsed::Discard(parsed)) = parse(&discard(abi, flags, sector, sectors), abi) else {
            panic!("no discard");
        };
        let discard = parsed.check(&disk);
        prop_assert_eq!(discard.is_ok(), valid);
        if let Ok(mut discard) = discard {
            prop_assert_eq!(discard.is_secure(), flags & 1 == 1 && disk.secure);
            // The pieces cover the range, in order, without gaps. Their number is limited.
            let most = most.max(sectors / 100);
            let granule = Granule {
                sectors: most / 3,
                first: sector % 7,
            };
            let mut at = sector;
            while let Some((from, length)) = discard.next_piece(most, granule) {
                prop_assert_eq!(from, at);
                prop_assert!(length > 0 && length <= most);
                at += length;
            }
            prop_assert_eq!(u128::from(at), end);
        }
    }
}
