// SPDX-License-Identifier: GPL-2.0

//! Any bytes in a slot are a valid request or are refused. This file tests requests whose
//! segments are in the slot. Indirect requests and discards are in `indirect.rs`.
//!
//! The requests are checked against a second implementation of the rules. It uses the raw
//! bytes, wide numbers, and the offsets that a C compiler computes for `blkif.h`.

mod host;

use host::cases;
use proptest::collection::vec;
use proptest::prelude::*;
use rblkback_logic::protocol::abi::Abi;
use rblkback_logic::protocol::abi::Slot;
use rblkback_logic::protocol::abi::Status;
use rblkback_logic::protocol::abi::SEGMENTS_MAX;
use rblkback_logic::protocol::abi::SLOT_MAX;
use rblkback_logic::protocol::disk_view::DiskView;
use rblkback_logic::protocol::disk_view::Refusal;
use rblkback_logic::protocol::request::parse;
use rblkback_logic::protocol::request::Extent;
use rblkback_logic::protocol::request::Operation;
use rblkback_logic::protocol::request::Parsed;
use rblkback_logic::protocol::request::Request;

/// Parses the slot, then checks it with its segments, as the module does. The slot must not be
/// a discard or an indirect request.
fn check(slot: &Slot, abi: Abi, disk: &DiskView) -> Result<Request<Vec<Extent>>, Refusal> {
    match parse(slot, abi)? {
        Parsed::Transfer(transfer) => {
            assert_eq!(transfer.frame(), None);
            let extents = vec![Extent::default(); SEGMENTS_MAX];
            transfer
                .check(disk, slot.segments(abi, transfer.count()), extents)
                .map_err(|(refusal, _)| refusal)
        }
        Parsed::Discard(_) => panic!("a discard"),
    }
}

/// Whether `operation` is a discard or an indirect request.
fn is_elsewhere(operation: u8) -> bool {
    operation == 5 || operation == 6
}

/// `offsetof` id, sector_number and seg in `struct blkif_request_rw`.
fn offsets(abi: Abi) -> (usize, usize, usize) {
    match abi {
        Abi::X86_64 => (8, 16, 24),
        Abi::X86_32 => (4, 12, 20),
    }
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}

/// A request, independent of the ABI.
#[derive(Clone, Debug, PartialEq)]
struct Logical {
    operation: u8,
    count: u8,
    id: u64,
    sector: u64,
    /// Grant reference of the frame, first sector, last sector.
    segments: Vec<(u32, u8, u8)>,
}

impl Logical {
    /// The slot that a guest of `abi` writes, over bytes of value `dirt`.
    fn encode(&self, abi: Abi, dirt: u8) -> Slot {
        let mut bytes = [dirt; SLOT_MAX];
        let (id, sector, segments) = offsets(abi);
        bytes[0] = self.operation;
        bytes[1] = self.count;
        bytes[id..id + 8].copy_from_slice(&self.id.to_le_bytes());
        bytes[sector..sector + 8].copy_from_slice(&self.sector.to_le_bytes());
        for (index, (frame, first, last)) in self.segments.iter().enumerate() {
            let at = segments + 8 * index;
            bytes[at..at + 4].copy_from_slice(&frame.to_le_bytes());
            bytes[at + 4] = *first;
            bytes[at + 5] = *last;
        }
        Slot(bytes)
    }

    fn decode(bytes: &[u8; SLOT_MAX], abi: Abi) -> Self {
        let (id, sector, segments) = offsets(abi);
        let segment = |index| {
            let s = &bytes[segments + 8 * index..];
            (u32::from_le_bytes([s[0], s[1], s[2], s[3]]), s[4], s[5])
        };
        let count = bytes[1];
        Self {
            operation: bytes[0],
            count,
            id: u64_at(bytes, id),
            sector: u64_at(bytes, sector),
            segments: (0..usize::from(count).min(11)).map(segment).collect(),
        }
    }

    fn is_valid(&self, (_, first, last): &(u32, u8, u8)) -> bool {
        first <= last && *last < 8
    }

    /// The number of sectors, if all segments are valid.
    fn length(&self) -> u128 {
        self.segments
            .iter()
            .map(|(_, first, last)| u128::from(last - first) + 1)
            .sum()
    }

    /// All reasons to refuse the request on `disk`.
    fn faults(&self, disk: &DiskView) -> Vec<Refusal> {
        let flush = self.operation == 3 || self.operation == 2;
        let valid = self.segments.iter().all(|segment| self.is_valid(segment));
        let mut faults = Vec::new();
        let mut fault = |is: bool, refusal| {
            if is {
                faults.push(refusal);
            }
        };
        fault(![0, 1, 2, 3].contains(&self.operation), Refusal::Operation);
        fault(
            self.count > 11 || (self.count == 0 && !flush),
            Refusal::SegmentCount,
        );
        fault(self.operation != 0 && disk.read_only, Refusal::ReadOnly);
        fault(!valid, Refusal::Segment);
        let block = u64::from(disk.block);
        let mut pieces = self
            .segments
            .iter()
            .filter(|segment| self.is_valid(segment));
        let uneven = pieces.any(|(_, first, last)| u64::from(last - first + 1) % block != 0);
        // Only a request with valid segments has a range.
        let has_range = self.count > 0 && valid;
        let end = if has_range {
            u128::from(self.sector) + self.length()
        } else {
            0
        };
        fault(end > u128::from(disk.sectors), Refusal::Range);
        fault(
            uneven || (has_range && self.sector % block != 0),
            Refusal::Alignment,
        );
        faults
    }
}

/// Compares the result of `check` with [`Logical::faults`].
fn compare(slot: &Slot, abi: Abi, disk: &DiskView) -> Result<(), TestCaseError> {
    let logical = Logical::decode(&slot.0, abi);
    let faults = logical.faults(disk);
    let request = match check(slot, abi, disk) {
        Err(refusal) => {
            prop_assert!(
                faults.contains(&refusal),
                "{refusal:?} of {logical:?} has {faults:?}"
            );
            let status = if refusal == Refusal::Operation {
                Status::Unsupported
            } else {
                Status::Error
            };
            prop_assert_eq!(refusal.status(), status);
            return Ok(());
        }
        Ok(request) => request,
    };
    prop_assert_eq!(faults, vec![], "not refused: {:?}", logical);
    let operation = match logical.operation {
        0 => Operation::Read,
        1 => Operation::Write,
        2 => Operation::Barrier,
        _ => Operation::Flush,
    };
    prop_assert_eq!(request.operation(), operation);
    prop_assert_eq!(u128::from(request.sectors()), logical.length());
    let sector = if logical.count == 0 {
        0
    } else {
        logical.sector
    };
    prop_assert_eq!(request.sector(), sector);
    let extents: Vec<_> = request
        .extents()
        .iter()
        .map(|e| (e.gref(), e.offset(), e.bytes()))
        .collect();
    let bytes = |(frame, first, last): &(u32, u8, u8)| {
        (
            *frame,
            u32::from(*first) * 512,
            u32::from(last - first + 1) * 512,
        )
    };
    let expected: Vec<_> = logical.segments.iter().map(bytes).collect();
    prop_assert!(expected
        .iter()
        .all(|(_, offset, len)| *len > 0 && offset + len <= 4096));
    prop_assert_eq!(extents, expected);
    prop_assert_eq!(request.extent_count(), u16::from(logical.count));
    Ok(())
}

fn abis() -> impl Strategy<Value = Abi> {
    prop_oneof![Just(Abi::X86_64), Just(Abi::X86_32)]
}

fn disks() -> impl Strategy<Value = DiskView> {
    let sectors = prop_oneof![
        1 => Just(0),
        4 => 1..200u64,
        4 => Just(1 << 32),
        1 => Just(u64::MAX),
        1 => any::<u64>(),
    ];
    let block = prop_oneof![5 => Just(1u32), 3 => Just(8), 1 => Just(2), 1 => Just(16)];
    let read_only = prop::bool::weighted(0.2);
    (sectors, block, read_only).prop_map(|(sectors, block, read_only)| DiskView {
        sectors,
        block,
        read_only,
        discard: true,
        secure: false,
    })
}

/// Sectors of the disk, near its end, and near the largest number.
fn sectors(disk: DiskView) -> impl Strategy<Value = u64> {
    prop_oneof![
        3 => 0..64u64,
        6 => (0..16u64).prop_map(|block| block * 8),
        3 => (0..120u64).prop_map(move |back| disk.sectors.wrapping_sub(back)),
        1 => (0..120u64).prop_map(|back| u64::MAX - back),
        1 => Just(1 << 55),
        1 => any::<u64>(),
    ]
}

fn segments() -> impl Strategy<Value = (u32, u8, u8)> {
    let range = prop_oneof![
        20 => Just((0u8, 7u8)),
        10 => (0..8u8).prop_flat_map(|first| (Just(first), first..8)),
        1 => (0..10u8, 0..10u8),
        1 => any::<(u8, u8)>(),
    ];
    (any::<u32>(), range).prop_map(|(frame, (first, last))| (frame, first, last))
}

/// Bytes of an earlier request in the slot: valid segments, or any value.
fn dirt() -> impl Strategy<Value = u8> {
    prop_oneof![0..8u8, any::<u8>()]
}

/// Requests that are nearly valid, with a disk.
fn requests() -> impl Strategy<Value = (DiskView, Logical)> {
    disks().prop_flat_map(|disk| {
        let offered = prop::sample::select(vec![0, 1, 2, 3]);
        let operation = prop_oneof![8 => offered, 1 => 0..5u8, 1 => 7..=255u8];
        let parts = (
            operation,
            any::<u64>(),
            sectors(disk),
            vec(segments(), 0..=11),
            any::<u8>(),
        );
        parts.prop_map(move |(operation, id, sector, segments, count_choice)| {
            // One in ten has a wrong number of segments.
            let count = match count_choice {
                0..=19 => count_choice,
                20..=25 => count_choice.wrapping_mul(10),
                _ => segments.len() as u8,
            };
            (
                disk,
                Logical {
                    operation,
                    count,
                    id,
                    sector,
                    segments,
                },
            )
        })
    })
}

proptest! {
    #![proptest_config(cases(6000))]

    #[test]
    fn any_bytes_are_a_valid_request_or_refused(
        bytes in vec(any::<u8>(), SLOT_MAX),
        abi in abis(),
        disk in disks(),
    ) {
        let slot = Slot(bytes.try_into().expect("a slot"));
        prop_assume!(!is_elsewhere(slot.operation()));
        compare(&slot, abi, &disk)?;
    }

    #[test]
    fn nearly_valid_requests_are_valid_or_refused(
        (disk, logical) in requests(),
        abi in abis(),
        dirt in dirt(),
    ) {
        compare(&logical.encode(abi, dirt), abi, &disk)?;
    }

    #[test]
    fn both_abis_give_the_same_request(
        (disk, mut logical) in requests(),
        dirt in dirt(),
    ) {
        logical.count = logical.segments.len() as u8;
        let [wide, narrow] = [Abi::X86_64, Abi::X86_32].map(|abi| {
            let slot = logical.encode(abi, dirt);
            assert_eq!(slot.id(abi), logical.id);
            assert_eq!(Logical::decode(&slot.0, abi), logical);
            format!("{:?}", check(&slot, abi, &disk))
        });
        prop_assert_eq!(wide, narrow);
    }

    #[test]
    fn a_slot_of_the_32_bit_abi_ends_before_the_largest(
        (disk, logical) in requests(),
        rubbish: [u8; 4],
    ) {
        let slot = logical.encode(Abi::X86_32, 0);
        let mut other = slot;
        other.0[Abi::X86_32.slot_size()..].copy_from_slice(&rubbish);
        let outcome = |slot| format!("{:?}", check(slot, Abi::X86_32, &disk));
        prop_assert_eq!(outcome(&slot), outcome(&other));
    }

    #[test]
    fn slots_of_a_ring_lie_within_its_pages_and_do_not_overlap(
        abi in abis(),
        pages in 1..=64u32,
        index in 0..4096u32,
    ) {
        let entries = abi.ring_entries(pages);
        let fit = (4096 * pages as usize - 64) / abi.slot_size();
        prop_assert!(entries.is_power_of_two());
        prop_assert!(entries as usize <= fit && fit < 2 * entries as usize);
        let at = abi.slot_offset(index % entries).expect("no overflow");
        prop_assert_eq!(at, 64 + (index % entries) as usize * abi.slot_size());
        prop_assert!(at + abi.slot_size() <= 4096 * pages as usize);
    }
}

#[test]
fn enough_of_the_nearly_valid_requests_are_valid() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::new(cases(0));
    let mut valid = 0;
    for _ in 0..1000 {
        let (disk, logical) = requests()
            .new_tree(&mut runner)
            .expect("a request")
            .current();
        valid += u32::from(check(&logical.encode(Abi::X86_64, 0), Abi::X86_64, &disk).is_ok());
    }
    assert!(valid > 100, "only {valid} of 1000");
}

#[test]
fn sizes_in_an_abi_of_any_ring_do_not_overflow() {
    for abi in [Abi::X86_64, Abi::X86_32] {
        for pages in [0, 1, 31, 1 << 20, 1 << 31, u32::MAX] {
            let entries = abi.ring_entries(pages);
            assert!(entries == 0 || entries.is_power_of_two());
        }
        assert!(abi.slot_offset(u32::MAX).is_some());
    }
}
