// SPDX-License-Identifier: GPL-2.0

//! Any discard: the pieces cover exactly the range of the slot, and are within the disk.

use rblkback_logic::protocol::abi::SLOT_MAX;
use rblkback_logic::protocol::abi::Slot;
use rblkback_logic::protocol::discard::Granule;
use rblkback_logic::protocol::disk_view::Refusal;
use rblkback_logic::protocol::request::Parsed;
use rblkback_logic::protocol::request::parse;

use crate::disk::abi;
use crate::disk::disk;
use crate::disk::is_within;
use crate::disk::offsets;
use crate::input::Input;

/// The largest number of pieces that the test checks.
const PIECES: u32 = 300;

pub fn run(data: &[u8]) -> bool {
    let mut input = Input::new(data);
    let (abi, disk) = (abi(&mut input), disk(&mut input));
    let (flags, sector) = (input.u8(), input.near(disk.sectors));
    let sectors = input.near(disk.sectors.wrapping_sub(sector));
    let most = input.near(sectors / 4);
    let mut bytes = [input.u8(); SLOT_MAX];
    let at = offsets(abi).sector;
    (bytes[0], bytes[1]) = (5, flags);
    bytes[at..at + 8].copy_from_slice(&sector.to_le_bytes());
    bytes[at + 8..at + 16].copy_from_slice(&sectors.to_le_bytes());

    let Ok(Parsed::Discard(discard)) = parse(&Slot(bytes), abi) else {
        panic!("no discard");
    };
    let is_valid = disk.discard && !disk.read_only && is_within(&disk, sector, u128::from(sectors));
    let mut discard = match discard.check(&disk) {
        Ok(discard) => discard,
        Err(refusal) => {
            assert!(!is_valid, "{refusal:?}");
            assert_eq!(refusal == Refusal::Operation, !disk.discard);
            return false;
        }
    };
    assert!(is_valid, "{discard:?}");
    assert_eq!(discard.is_secure(), flags & 1 != 0 && disk.secure);
    let granule = Granule {
        sectors: u64::from(flags) % 24,
        first: sector % 5,
    };
    let (mut at, end) = (sector, sector + sectors);
    for _ in 0..PIECES {
        let Some((first, length)) = discard.next_piece(most, granule) else {
            assert_eq!(at, end, "a part of the range is missing");
            assert_eq!(discard.next_piece(most, granule), None);
            return sectors > 0;
        };
        assert_eq!(first, at, "a gap, or an overlap");
        // A granule at least: a device discards nothing of a part of one.
        let longest = most.max(granule.sectors).max(1);
        assert!((1..=longest).contains(&length), "{length} of {longest}");
        at += length;
        assert!(at <= end, "past the end");
    }
    true
}
