// SPDX-License-Identifier: GPL-2.0

//! The layout of a ring slot.
//!
//! The layout is that of the guest's compiler: a 32-bit x86 guest aligns 64-bit fields
//! to 4 bytes, a 64-bit guest to 8. One table of offsets describes each layout, and one
//! parser serves both. All numbers are little-endian; all sectors have 512 bytes.
//!
//! | field | all kinds | direct | indirect | discard |
//! |---|---|---|---|---|
//! | byte 0 | operation | | 6 | 5 |
//! | byte 1 | | number of segments | inner operation | flag |
//! | bytes 2, 3 | | | number of segments | |
//! | `id` | the id that the response echoes | | | |
//! | `sector` | first sector | | | |
//! | `sector` + 8 | | | | number of sectors |
//! | `segments` | | segments | | |
//! | `segments` + 4 | | | frames of segments | |
//!
//! Source: `xen/interface/io/blkif.h` (`struct blkif_request_rw`,
//! `blkif_request_indirect`, `blkif_request_discard`, `blkif_response`),
//! `xen/interface/io/ring.h` (`DEFINE_RING_TYPES`),
//! `xen/interface/io/protocols.h` (the names).

/// Bytes of a sector, the unit of the protocol.
pub const SECTOR_SIZE: u32 = 512;
/// Bytes of a granted frame.
pub const PAGE_SIZE: u32 = 4096;
/// Sectors of a granted frame.
pub const SECTORS_PER_PAGE: u8 = 8;
/// The largest number of segments of a direct request.
pub const SEGMENTS_MAX: usize = 11;
/// The largest number of segments of an indirect request, as offered in xenstore.
pub const INDIRECT_MAX: u16 = 256;
/// Bytes of a segment, both in a slot and in a frame of segments.
pub const SEGMENT_SIZE: usize = 8;
/// The largest slot of any ABI, in bytes: that of `x86_64-abi`.
pub const SLOT_MAX: usize = 112;
/// The part of a slot of `x86_64-abi`, in bytes, that is all of a request of one segment, of an indirect one,
/// whose first frame of segments is the only one that is used, and of a discard.
pub const SLOT_FIRST: usize = 32;
/// A slot of `x86_32-abi`, in bytes.
pub const SLOT_X86_32: usize = 108;

/// Byte offsets of the shared ring's header.
pub mod ring_header {
    /// The frontend's request producer index.
    pub const REQ_PROD: usize = 0;
    /// The backend asks for an event when `req_prod` passes this index.
    pub const REQ_EVENT: usize = 4;
    /// The backend's response producer index.
    pub const RSP_PROD: usize = 8;
    /// The frontend asks for an event when `rsp_prod` passes this index.
    pub const RSP_EVENT: usize = 12;
    /// The first slot.
    pub const SLOTS: usize = 64;
}

/// Words of 4 bytes of a response. They are at the beginning of its slot, in every ABI.
pub const RESPONSE_WORDS: usize = 3;

/// A response as it is on the ring: `id`, `operation`, a byte of padding, and `status`
/// ([`Status::code`]).
pub fn response_words(id: u64, operation: u8, status: i16) -> [u32; RESPONSE_WORDS] {
    let [s0, s1] = status.to_le_bytes();
    let last = u32::from_le_bytes([operation, 0, s0, s1]);
    [id as u32, (id >> 32) as u32, last]
}

/// The ABI of a guest, which determines the layout of its ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Abi {
    /// `x86_64-abi`. The native ABI of a 64-bit backend.
    X86_64,
    /// `x86_32-abi`. Also the ABI of a frontend that writes no `protocol` key.
    X86_32,
}

struct Layout {
    slot: usize,
    id: usize,
    sector: usize,
    segments: usize,
}

/// A segment as the guest wrote it, unchecked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The grant reference of the frame.
    pub gref: u32,
    /// The first sector within the frame.
    pub first: u8,
    /// The last sector within the frame, inclusive.
    pub last: u8,
}

impl Segment {
    /// Parses the bytes of a segment. The last two are padding.
    pub fn parse(bytes: [u8; SEGMENT_SIZE]) -> Self {
        let [g0, g1, g2, g3, first, last, _, _] = bytes;
        Self {
            gref: u32::from_le_bytes([g0, g1, g2, g3]),
            first,
            last,
        }
    }

    /// The first `count` segments in `bytes`, a private copy of a frame of segments.
    pub fn list(bytes: &[u8], count: u16) -> impl Iterator<Item = Self> + '_ {
        bytes
            .chunks_exact(SEGMENT_SIZE)
            .filter_map(|chunk| chunk.first_chunk())
            .map(|chunk| Self::parse(*chunk))
            .take(usize::from(count))
    }
}

/// A private copy of a ring slot. The fields are unchecked, but the guest can no longer change
/// them.
#[derive(Clone, Copy)]
pub struct Slot(pub [u8; SLOT_MAX]);

/// The status of a response (`BLKIF_RSP_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// `BLKIF_RSP_OKAY`: the request succeeded.
    Okay,
    /// `BLKIF_RSP_ERROR`: the request was refused or failed.
    Error,
    /// `BLKIF_RSP_EOPNOTSUPP`: the operation is not offered.
    Unsupported,
}

impl Status {
    /// The value on the ring.
    pub const fn code(self) -> i16 {
        match self {
            Self::Okay => 0,
            Self::Error => -1,
            Self::Unsupported => -2,
        }
    }
}

impl Abi {
    /// The ABI named by the frontend's `protocol` key. A missing key (`None`) means
    /// `x86_32-abi`, because frontends older than the key use that.
    pub fn from_protocol(protocol: Option<&[u8]>) -> Option<Self> {
        match protocol {
            Some(b"x86_64-abi") => Some(Self::X86_64),
            None | Some(b"x86_32-abi") => Some(Self::X86_32),
            Some(_) => None,
        }
    }

    const fn layout(self) -> Layout {
        match self {
            Self::X86_64 => Layout {
                slot: SLOT_MAX,
                id: 8,
                sector: 16,
                segments: 24,
            },
            Self::X86_32 => Layout {
                slot: SLOT_X86_32,
                id: 4,
                sector: 12,
                segments: 20,
            },
        }
    }

    /// Bytes of a slot.
    pub const fn slot_size(self) -> usize {
        self.layout().slot
    }

    /// The number of slots of a ring of `pages` pages, rounded down to a power of two.
    /// 0 for no pages.
    pub fn ring_entries(self, pages: u32) -> u32 {
        let bytes = pages.saturating_mul(PAGE_SIZE);
        let bytes_for_slots = bytes.saturating_sub(ring_header::SLOTS as u32);
        match bytes_for_slots.checked_div(self.slot_size() as u32) {
            Some(fit) if fit > 0 => 1u32.checked_shl(fit.ilog2()).unwrap_or(0),
            _ => 0,
        }
    }

    /// The byte offset of slot `index` within the ring, or `None` on overflow.
    pub fn slot_offset(self, index: u32) -> Option<usize> {
        (index as usize)
            .checked_mul(self.slot_size())?
            .checked_add(ring_header::SLOTS)
    }
}

impl Slot {
    /// A slot of zeroes, to be overwritten by a copy.
    pub const EMPTY: Self = Self([0; SLOT_MAX]);

    fn field<const N: usize>(&self, at: usize) -> [u8; N] {
        // An offset beyond the slot would be a bug of this file, not of the guest. Such a
        // field reads as zeroes, which the tests below detect.
        match self.0.get(at..).and_then(|tail| tail.first_chunk::<N>()) {
            Some(bytes) => *bytes,
            None => [0; N],
        }
    }

    /// The operation code.
    pub fn operation(&self) -> u8 {
        u8::from_le_bytes(self.field(0))
    }

    /// The number of segments of a direct request, as the guest claims.
    pub fn segment_count(&self) -> u8 {
        u8::from_le_bytes(self.field(1))
    }

    /// The inner operation code of an indirect request.
    pub fn indirect_operation(&self) -> u8 {
        u8::from_le_bytes(self.field(1))
    }

    /// The number of segments of an indirect request, as the guest claims.
    pub fn indirect_count(&self) -> u16 {
        u16::from_le_bytes(self.field(2))
    }

    /// The grant reference of the first frame of segments of an indirect request. A frame
    /// has 512 segments, more than [`INDIRECT_MAX`], so further frames are never used.
    pub fn indirect_frame(&self, abi: Abi) -> u32 {
        u32::from_le_bytes(self.field(abi.layout().segments.saturating_add(4)))
    }

    /// The flags of a discard.
    pub fn discard_flags(&self) -> u8 {
        u8::from_le_bytes(self.field(1))
    }

    /// The number of sectors of a discard.
    pub fn discard_sectors(&self, abi: Abi) -> u64 {
        u64::from_le_bytes(self.field(abi.layout().sector.saturating_add(8)))
    }

    /// The id of the request. It has the same offset for every operation.
    pub fn id(&self, abi: Abi) -> u64 {
        u64::from_le_bytes(self.field(abi.layout().id))
    }

    /// The first sector of a read, write, discard or indirect request, or of a flush or
    /// barrier with data.
    pub fn sector(&self, abi: Abi) -> u64 {
        u64::from_le_bytes(self.field(abi.layout().sector))
    }

    /// Segment `index` of a direct request; `None` from [`SEGMENTS_MAX`] on.
    pub fn segment(&self, abi: Abi, index: usize) -> Option<Segment> {
        if index >= SEGMENTS_MAX {
            return None;
        }
        let at = index
            .checked_mul(SEGMENT_SIZE)?
            .checked_add(abi.layout().segments)?;
        Some(Segment::parse(self.field(at)))
    }

    /// The first `count` segments of a direct request, at most [`SEGMENTS_MAX`].
    pub fn segments(&self, abi: Abi, count: u16) -> impl Iterator<Item = Segment> + '_ {
        (0..usize::from(count)).map_while(move |index| self.segment(abi, index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_page_holds_32_slots_in_both_layouts() {
        assert_eq!(Abi::X86_64.ring_entries(1), 32);
        assert_eq!(Abi::X86_32.ring_entries(1), 32);
    }

    #[test]
    fn the_largest_ring_holds_512_slots() {
        // 16 pages: (65536 - 64) / 112 = 584.6, rounded down to a power of two.
        assert_eq!(Abi::X86_64.ring_entries(16), 512);
        assert_eq!(Abi::X86_32.ring_entries(16), 512);
    }

    #[test]
    fn a_ring_of_no_pages_holds_nothing() {
        assert_eq!(Abi::X86_64.ring_entries(0), 0);
    }

    #[test]
    fn the_last_segment_ends_with_the_slot() {
        for abi in [Abi::X86_64, Abi::X86_32] {
            assert_eq!(abi.layout().segments + 8 * SEGMENTS_MAX, abi.slot_size());
            assert!(abi.slot_size() <= SLOT_MAX);
        }
    }

    #[test]
    fn fields_are_read_where_blkif_h_puts_them() {
        let mut bytes = [0u8; SLOT_MAX];
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = at as u8;
        }
        let slot = Slot(bytes);
        assert_eq!(slot.operation(), 0);
        assert_eq!(slot.segment_count(), 1);
        assert_eq!(slot.id(Abi::X86_64), 0x0f0e_0d0c_0b0a_0908);
        assert_eq!(slot.id(Abi::X86_32), 0x0b0a_0908_0706_0504);
        assert_eq!(slot.sector(Abi::X86_64), 0x1716_1514_1312_1110);
        assert_eq!(slot.sector(Abi::X86_32), 0x1312_1110_0f0e_0d0c);
        let last = slot.segment(Abi::X86_64, 10).unwrap();
        assert_eq!(
            (last.gref, last.first, last.last),
            (0x6b6a_6968, 0x6c, 0x6d)
        );
        let first = slot.segment(Abi::X86_32, 0).unwrap();
        assert_eq!((first.gref, first.first, first.last), (0x1716_1514, 24, 25));
        assert!(slot.segment(Abi::X86_64, SEGMENTS_MAX).is_none());
    }

    #[test]
    fn indirect_and_discard_fields_are_read_where_blkif_h_puts_them() {
        let mut bytes = [0u8; SLOT_MAX];
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = at as u8;
        }
        let slot = Slot(bytes);
        assert_eq!(slot.indirect_operation(), 1);
        assert_eq!(slot.indirect_count(), 0x0302);
        // The field `handle` and its padding are between sector and frames.
        assert_eq!(slot.indirect_frame(Abi::X86_64), 0x1f1e_1d1c);
        assert_eq!(slot.indirect_frame(Abi::X86_32), 0x1b1a_1918);
        assert_eq!(slot.discard_flags(), 1);
        assert_eq!(slot.discard_sectors(Abi::X86_64), 0x1f1e_1d1c_1b1a_1918);
        assert_eq!(slot.discard_sectors(Abi::X86_32), 0x1b1a_1918_1716_1514);
    }

    #[test]
    fn a_list_of_segments_ends_with_its_count_or_its_bytes() {
        let bytes = [7u8; 24];
        assert_eq!(Segment::list(&bytes, 2).count(), 2);
        assert_eq!(Segment::list(&bytes, 9).count(), 3);
        assert_eq!(Segment::list(&bytes[..23], 9).count(), 2);
    }

    #[test]
    fn a_response_is_written_where_blkif_h_puts_it() {
        let words = response_words(0x0706_0504_0302_0100, 8, Status::Unsupported.code());
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        assert_eq!(bytes, [0, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0xfe, 0xff]);
    }

    #[test]
    fn protocols_have_the_names_of_protocols_h() {
        assert_eq!(Abi::from_protocol(Some(b"x86_64-abi")), Some(Abi::X86_64));
        assert_eq!(Abi::from_protocol(Some(b"x86_32-abi")), Some(Abi::X86_32));
        assert_eq!(Abi::from_protocol(None), Some(Abi::X86_32));
        for junk in [&b""[..], b"x86_64-abi ", b"arm-abi", b"%s%n", &[0xff; 64]] {
            assert_eq!(Abi::from_protocol(Some(junk)), None);
        }
    }
}
