// SPDX-License-Identifier: GPL-2.0

//! Requests, well-formed or not, and the bytes they are in a slot.

use crate::layout::COUNT;
use crate::layout::DIRECT_SEGMENTS;
use crate::layout::HANDLE;
use crate::layout::INDIRECT_COUNT;
use crate::layout::INDIRECT_PAGES;
use crate::layout::Layout;
use crate::layout::OPERATION;
use crate::layout::SLOT_MAX;

pub const READ: u8 = 0;
pub const WRITE: u8 = 1;
pub const BARRIER: u8 = 2;
pub const FLUSH: u8 = 3;
pub const DISCARD: u8 = 5;
pub const INDIRECT: u8 = 6;

pub const OKAY: i16 = 0;
pub const ERROR: i16 = -1;
pub const UNSUPPORTED: i16 = -2;

/// The flag of a discard that also wants all copies gone.
pub const SECURE: u8 = 1;

/// What a slot holds where a request says nothing: a backend has no business with it.
pub const FILLER: u8 = 0x5a;

pub type Slot = [u8; SLOT_MAX];

/// Part of a granted page, in sectors of 512 bytes, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    pub gref: u32,
    pub first: u8,
    pub last: u8,
}

impl Segment {
    /// As it is in a slot and in a page of segments.
    pub fn bytes(&self) -> [u8; 8] {
        let g = self.gref.to_le_bytes();
        [
            g[0], g[1], g[2], g[3], self.first, self.last, FILLER, FILLER,
        ]
    }
}

/// What comes after the sector number.
#[derive(Clone, Debug)]
pub enum Body {
    /// `count` is what the request claims to have.
    Direct {
        count: u8,
        segments: Vec<Segment>,
    },
    /// The segments are in the pages.
    Indirect {
        operation: u8,
        count: u16,
        pages: [u32; INDIRECT_PAGES],
    },
    Discard {
        flags: u8,
        sectors: u64,
    },
}

/// One request. Nothing in it has to be true.
#[derive(Clone, Debug)]
pub struct Request {
    pub operation: u8,
    pub id: u64,
    pub handle: u16,
    pub sector: u64,
    pub body: Body,
}

impl Request {
    pub fn direct(operation: u8, sector: u64, segments: &[Segment]) -> Self {
        let count = u8::try_from(segments.len()).unwrap_or(u8::MAX);
        let segments = segments.to_vec();
        Request {
            operation,
            id: 0,
            handle: 0,
            sector,
            body: Body::Direct { count, segments },
        }
    }

    /// A request that claims `count` segments, whatever it has.
    pub fn claiming(self, claimed: u8) -> Self {
        let body = match self.body {
            Body::Direct { segments, .. } => Body::Direct {
                count: claimed,
                segments,
            },
            other => other,
        };
        Request { body, ..self }
    }

    /// The same with all segments in one page.
    pub fn granting(mut self, page: u32) -> Self {
        if let Body::Direct { segments, .. } = &mut self.body {
            segments.iter_mut().for_each(|s| s.gref = page);
        }
        self
    }

    /// `count` segments that are in the page granted as `page`.
    pub fn indirect(operation: u8, sector: u64, count: u16, page: u32) -> Self {
        let mut pages = [u32::MAX; INDIRECT_PAGES];
        pages[0] = page;
        Request {
            operation: INDIRECT,
            id: 0,
            handle: 0,
            sector,
            body: Body::Indirect {
                operation,
                count,
                pages,
            },
        }
    }

    pub fn discard(sector: u64, sectors: u64, flags: u8) -> Self {
        Request {
            operation: DISCARD,
            id: 0,
            handle: 0,
            sector,
            body: Body::Discard { flags, sectors },
        }
    }

    /// Whether an answer may carry `operation`. The protocol says that it is copied from the
    /// request, but Linux's own frontend takes an indirect request for one of its inner operation,
    /// and gives up on a disk that answers otherwise. Only who does not offer indirect requests
    /// need not know what is in them.
    pub fn is_echoed_as(&self, operation: u8, status: i16) -> bool {
        match self.body {
            Body::Indirect {
                operation: inner, ..
            } => operation == inner || (operation == self.operation && status == UNSUPPORTED),
            _ => operation == self.operation,
        }
    }

    /// The request as `layout` has it in a slot.
    pub fn encode(&self, layout: &Layout) -> Slot {
        let mut slot = [FILLER; SLOT_MAX];
        let mut put = |at: usize, bytes: &[u8]| {
            // A claim of more segments than a slot has is all that reaches the backend of them.
            if at + bytes.len() <= layout.slot {
                slot[at..at + bytes.len()].copy_from_slice(bytes);
            }
        };
        put(OPERATION, &[self.operation]);
        put(layout.id, &self.id.to_le_bytes());
        put(layout.sector, &self.sector.to_le_bytes());
        match &self.body {
            Body::Direct { count, segments } => {
                put(COUNT, &[*count]);
                put(HANDLE, &self.handle.to_le_bytes());
                for (i, segment) in segments.iter().take(DIRECT_SEGMENTS).enumerate() {
                    put(layout.tail + 8 * i, &segment.bytes());
                }
            }
            Body::Indirect {
                operation,
                count,
                pages,
            } => {
                put(COUNT, &[*operation]);
                put(INDIRECT_COUNT, &count.to_le_bytes());
                put(layout.tail, &self.handle.to_le_bytes());
                for (i, page) in pages.iter().enumerate() {
                    put(layout.indirect_grefs + 4 * i, &page.to_le_bytes());
                }
            }
            Body::Discard { flags, sectors } => {
                put(COUNT, &[*flags]);
                put(HANDLE, &self.handle.to_le_bytes());
                put(layout.tail, &sectors.to_le_bytes());
            }
        }
        slot
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(name: &str) -> &'static Layout {
        Layout::by_name(name).unwrap()
    }

    #[test]
    fn a_32_bit_slot_is_a_64_bit_one_without_the_gap() {
        let segments = [
            Segment {
                gref: 0x0403_0201,
                first: 5,
                last: 6,
            },
            Segment {
                gref: 9,
                first: 0,
                last: 7,
            },
        ];
        for request in [
            Request::direct(WRITE, 0x1122, &segments),
            Request::indirect(READ, 77, 200, 12),
            Request::discard(5, 1 << 40, SECURE),
        ] {
            let (wide, narrow) = (
                request.encode(layout("x86_64-abi")),
                request.encode(layout("x86_32-abi")),
            );
            assert_eq!(wide[..4], narrow[..4]);
            assert_eq!(wide[4..8], [FILLER; 4]);
            assert_eq!(wide[8..112], narrow[4..108]);
        }
    }

    #[test]
    fn fields_are_where_the_protocol_has_them() {
        let segment = Segment {
            gref: 0x0403_0201,
            first: 5,
            last: 6,
        };
        let slot = Request::direct(FLUSH, 0x0807_0605_0403_0201, &[segment])
            .claiming(255)
            .encode(layout("x86_32-abi"));
        assert_eq!(slot[..4], [FLUSH, 255, 0, 0]);
        assert_eq!(slot[12..20], [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(slot[20..26], [1, 2, 3, 4, 5, 6]);
        let slot = Request::indirect(WRITE, 0, 0x1234, 7).encode(layout("x86_64-abi"));
        assert_eq!(slot[..4], [INDIRECT, WRITE, 0x34, 0x12]);
        assert_eq!(slot[28..36], [7, 0, 0, 0, 255, 255, 255, 255]);
    }
}
