// SPDX-License-Identifier: GPL-2.0

//! Parsing and checking of discards: ranges of sectors that a guest no longer needs.
//!
//! Source of the rules: `xen/interface/io/blkif.h` (`struct blkif_request_discard`).

use super::abi::Abi;
use super::abi::Slot;
use super::disk_view::within;
use super::disk_view::DiskView;
use super::disk_view::Refusal;

/// `BLKIF_DISCARD_SECURE`.
const SECURE: u8 = 1;

/// A discard as the guest wrote it, unchecked.
#[derive(Clone, Copy, Debug)]
pub struct Discard {
    sector: u64,
    sectors: u64,
    secure: bool,
}

impl Discard {
    pub(super) fn parse(slot: &Slot, abi: Abi) -> Self {
        Self {
            sector: slot.sector(abi),
            sectors: slot.discard_sectors(abi),
            secure: slot.discard_flags() & SECURE != 0,
        }
    }

    /// Checks the discard against `disk`. The secure flag is ignored if the disk does not
    /// offer secure discards, as blkif.h says.
    ///
    /// # Errors
    ///
    /// The first [`Refusal`] found.
    pub fn check(self, disk: &DiskView) -> Result<CheckedDiscard, Refusal> {
        if !disk.discard {
            return Err(Refusal::Operation);
        }
        if disk.read_only {
            return Err(Refusal::ReadOnly);
        }
        within(disk, self.sector, self.sectors)?;
        // INVARIANT: `within` checked the range.
        Ok(CheckedDiscard {
            sector: self.sector,
            sectors: self.sectors,
            secure: self.secure && disk.secure,
        })
    }
}

/// A checked discard.
///
/// # Invariants
///
/// At the time of the check, the range was within the disk and a multiple of logical blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckedDiscard {
    sector: u64,
    sectors: u64,
    secure: bool,
}

/// What a device discards as a whole. A device rounds a discard inwards to these.
#[derive(Clone, Copy, Debug, Default)]
pub struct Granule {
    /// Sectors of 512 bytes; 0: the device does not say.
    pub sectors: u64,
    /// Sectors from the beginning of the device to the first granule.
    pub first: u64,
}

impl Granule {
    /// The last end of a granule in `begin + 1..=end`, or `end` if there is none.
    fn last_end(&self, begin: u64, end: u64) -> u64 {
        let beyond = end.saturating_sub(self.first).checked_rem(self.sectors);
        let aligned = end.saturating_sub(beyond.unwrap_or(0));
        if aligned > begin {
            aligned
        } else {
            end
        }
    }
}

impl CheckedDiscard {
    /// Whether the discarded data must be unreadable afterwards.
    pub fn is_secure(&self) -> bool {
        self.secure
    }

    /// Are no sectors left?
    pub fn is_done(&self) -> bool {
        self.sectors == 0
    }

    /// Removes a piece of at most `most` sectors (at least 1) from the front. Returns its
    /// first sector and its length, or `None` if no sectors are left.
    ///
    /// Pieces end where a granule of the device ends, so that all pieces together discard as much
    /// as one call would. A granule larger than `most` is one piece: a device discards nothing of a part
    /// of one.
    pub fn next_piece(&mut self, most: u64, granule: Granule) -> Option<(u64, u64)> {
        if self.is_done() {
            return None;
        }
        let most = most.max(granule.sectors).max(1);
        let length = if self.sectors <= most {
            self.sectors
        } else {
            let end = granule.last_end(self.sector, self.sector.saturating_add(most));
            end.saturating_sub(self.sector)
        };
        let piece = (self.sector, length);
        self.sector = self.sector.saturating_add(length);
        self.sectors = self.sectors.saturating_sub(length);
        Some(piece)
    }
}

#[cfg(test)]
mod tests {
    use super::super::abi::SLOT_MAX;
    use super::super::request::parse;
    use super::super::request::Parsed;
    use super::super::request::OP_DISCARD;
    use super::*;

    const DISK: DiskView = DiskView {
        sectors: 1000,
        block: 1,
        read_only: false,
        discard: true,
        secure: false,
    };

    fn discard(
        sector: u64,
        sectors: u64,
        flags: u8,
        disk: &DiskView,
    ) -> Result<CheckedDiscard, Refusal> {
        let mut slot = Slot([0; SLOT_MAX]);
        slot.0[0] = OP_DISCARD;
        slot.0[16..24].copy_from_slice(&sector.to_le_bytes());
        slot.0[1] = flags;
        slot.0[24..32].copy_from_slice(&sectors.to_le_bytes());
        match parse(&slot, Abi::X86_64)? {
            Parsed::Discard(discard) => discard.check(disk),
            Parsed::Transfer(_) => panic!("not a discard"),
        }
    }

    #[test]
    fn a_discard_needs_a_range_on_a_writable_disk() {
        assert!(discard(0, 1000, 0, &DISK).is_ok());
        assert!(discard(5, 0, 0, &DISK).is_ok());
        assert_eq!(discard(1, 1000, 0, &DISK), Err(Refusal::Range));
        assert_eq!(discard(8, u64::MAX - 3, 0, &DISK), Err(Refusal::Range));
        let read_only = DiskView {
            read_only: true,
            ..DISK
        };
        assert_eq!(discard(0, 8, 0, &read_only), Err(Refusal::ReadOnly));
        let none = DiskView {
            discard: false,
            ..DISK
        };
        assert_eq!(discard(0, 8, 0, &none), Err(Refusal::Operation));
        let blocks = DiskView { block: 8, ..DISK };
        assert_eq!(discard(4, 8, 0, &blocks), Err(Refusal::Alignment));
    }

    #[test]
    fn a_discard_is_secure_only_if_the_disk_offers_it() {
        assert!(!discard(0, 8, 1, &DISK).unwrap().is_secure());
        let secure = DiskView {
            secure: true,
            ..DISK
        };
        assert!(discard(0, 8, 1, &secure).unwrap().is_secure());
        assert!(!discard(0, 8, 0xfe, &secure).unwrap().is_secure());
    }

    #[test]
    fn a_discard_is_split_into_pieces() {
        let mut discard = discard(10, 25, 0, &DISK).unwrap();
        assert_eq!(discard.next_piece(10, Granule::default()), Some((10, 10)));
        assert_eq!(discard.next_piece(10, Granule::default()), Some((20, 10)));
        assert!(!discard.is_done());
        assert_eq!(discard.next_piece(10, Granule::default()), Some((30, 5)));
        assert!(discard.is_done());
        assert_eq!(discard.next_piece(10, Granule::default()), None);
    }

    #[test]
    fn pieces_end_with_granules() {
        let granule = |sectors, first| Granule { sectors, first };
        let pieces_of = |sectors, granule| {
            let mut discard = CheckedDiscard {
                sector: 10,
                sectors,
                secure: false,
            };
            let mut pieces = Vec::new();
            while let Some(piece) = discard.next_piece(12, granule) {
                pieces.push(piece);
            }
            pieces
        };
        let pieces = |granule| pieces_of(30, granule);
        assert_eq!(pieces(granule(8, 0)), [(10, 6), (16, 8), (24, 8), (32, 8)]);
        assert_eq!(pieces(granule(8, 3)), [(10, 9), (19, 8), (27, 8), (35, 5)]);
        assert_eq!(pieces(granule(12, 10)), [(10, 12), (22, 12), (34, 6)]);
        // A granule that is larger than a piece may be is not cut.
        assert_eq!(pieces(granule(64, 0)), [(10, 30)]);
        let whole = [(10, 54), (64, 64), (128, 64), (192, 8)];
        assert_eq!(pieces_of(190, granule(64, 0)), whole);
        assert_eq!(pieces(granule(0, 0)), [(10, 12), (22, 12), (34, 6)]);
    }
}
