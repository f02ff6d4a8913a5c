// SPDX-License-Identifier: GPL-2.0

//! Any indirect request, and any frame of segments.

use rblkback_logic::protocol::abi::Abi;
use rblkback_logic::protocol::abi::SLOT_MAX;
use rblkback_logic::protocol::abi::Segment;
use rblkback_logic::protocol::abi::Slot;
use rblkback_logic::protocol::disk_view::DiskView;
use rblkback_logic::protocol::disk_view::Refusal;
use rblkback_logic::protocol::request::Extent;
use rblkback_logic::protocol::request::Operation;
use rblkback_logic::protocol::request::Parsed;
use rblkback_logic::protocol::request::parse;
use rblkback_logic::protocol::request::response_operation;

use crate::disk::abi;
use crate::disk::disk;
use crate::disk::is_within;
use crate::disk::offsets;
use crate::disk::u32_at;
use crate::disk::u64_at;
use crate::input::Input;
use crate::slot::Raw;
use crate::slot::are_valid;
use crate::slot::check_extents;
use crate::slot::length;

/// The number of segments that are offered. A frame has space for more.
const OFFERED: u16 = 256;

pub fn run(data: &[u8]) -> bool {
    let mut input = Input::new(data);
    let (abi, disk) = (abi(&mut input), disk(&mut input));
    let slot = draw(&mut input, abi, &disk);
    let (inner, count) = (slot.0[1], u16::from_le_bytes([slot.0[2], slot.0[3]]));
    assert_eq!(response_operation(&slot), inner);
    let transfer = match parse(&slot, abi) {
        Ok(Parsed::Transfer(transfer)) => transfer,
        Ok(Parsed::Discard(_)) => panic!("a discard"),
        Err(refusal) => {
            assert!(inner > 1 || count == 0 || count > OFFERED, "{refusal:?}");
            assert_ne!(refusal, Refusal::Operation);
            return false;
        }
    };
    assert!(inner <= 1 && (1..=OFFERED).contains(&count));
    assert_eq!(transfer.count(), count);
    let frame_at = offsets(abi).segments + 4;
    assert_eq!(transfer.frame(), Some(u32_at(&slot.0, frame_at)));

    let frame = draw_frame(&mut input);
    let segments = raw_segments(&frame, count);
    let listed: Vec<Raw> = Segment::list(&frame, count)
        .map(|segment| (segment.gref, segment.first, segment.last))
        .collect();
    assert_eq!(listed, segments);
    let extents = vec![Extent::default(); usize::from(OFFERED)];
    let outcome = transfer.check(&disk, Segment::list(&frame, count), extents);
    let sector = u64_at(&slot.0, offsets(abi).sector);
    let is_valid = segments.len() == usize::from(count)
        && (inner == 0 || !disk.read_only)
        && are_valid(&segments, &disk)
        && is_within(&disk, sector, length(&segments));
    assert_eq!(outcome.is_ok(), is_valid, "{outcome:?}");
    let Ok(request) = outcome else {
        return false;
    };
    let operation = [Operation::Read, Operation::Write][usize::from(inner)];
    assert_eq!(request.operation(), operation);
    assert_eq!(request.sector(), sector);
    check_extents(&request, &segments, &disk);
    true
}

fn draw(input: &mut Input<'_>, abi: Abi, disk: &DiskView) -> Slot {
    let (inner, sector) = (input.u8(), offsets(abi).sector);
    let count = match input.flag() {
        true => u16::from(input.u8()) + 1,
        false => input.u16(),
    };
    let mut bytes = [0; SLOT_MAX];
    bytes[0] = 6;
    bytes[1] = if inner < 240 { inner % 2 } else { inner };
    bytes[2..4].copy_from_slice(&count.to_le_bytes());
    let near = input.near(disk.sectors);
    bytes[sector..sector + 8].copy_from_slice(&near.to_le_bytes());
    let frame = offsets(abi).segments + 4;
    bytes[frame..frame + 4].copy_from_slice(&input.bytes::<4>());
    Slot(bytes)
}

/// A frame of segments, sometimes a short one: a few segments of the fuzzer, repeated.
fn draw_frame(input: &mut Input<'_>) -> Vec<u8> {
    let size = match input.u8() {
        0..=239 => 4096,
        _ => usize::from(input.u16() % 4097),
    };
    let kinds: usize = input.pick([1, 2, 3, 8, 256]);
    let mut few = Vec::new();
    for _ in 0..kinds {
        let mut segment = input.bytes::<8>();
        match segment[7] {
            0..=175 => (segment[4], segment[5]) = (segment[4] % 8, 7),
            // Just beyond the end of its frame.
            176..=235 => (segment[4], segment[5]) = (segment[4] % 8, 8),
            _ => {}
        }
        few.extend(segment);
        if input.is_empty() {
            break;
        }
    }
    few.into_iter().cycle().take(size).collect()
}

fn raw_segments(frame: &[u8], count: u16) -> Vec<Raw> {
    (0..usize::from(count))
        .map(|index| 8 * index)
        .take_while(|at| at + 8 <= frame.len())
        .map(|at| (u32_at(frame, at), frame[at + 4], frame[at + 5]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_module_offers_as_many_segments_as_this_target_expects() {
        assert_eq!(rblkback_logic::protocol::abi::INDIRECT_MAX, OFFERED);
    }
}
