// SPDX-License-Identifier: GPL-2.0

//! Where the fields of a request and a response lie, for each layout a frontend can have.
//!
//! A 64-bit frontend aligns 64-bit fields to 8 bytes, a 32-bit one to 4: that is all the
//! difference there is. Source: `xen/interface/io/blkif.h`, `ring.h` and `protocols.h`.

/// Bytes of the longest slot.
pub const SLOT_MAX: usize = 112;
/// Segments that fit into a slot.
pub const DIRECT_SEGMENTS: usize = 11;
/// References to pages of segments that fit into a slot.
pub const INDIRECT_PAGES: usize = 8;

/// Offsets in the first page of a ring.
pub const REQ_PROD: usize = 0;
pub const REQ_EVENT: usize = 4;
pub const RSP_PROD: usize = 8;
pub const RSP_EVENT: usize = 12;
pub const SLOTS: usize = 64;

/// Offsets that all layouts share: in a request ...
pub const OPERATION: usize = 0;
pub const COUNT: usize = 1;
pub const HANDLE: usize = 2;
pub const INDIRECT_COUNT: usize = 2;
/// ... and in a response.
pub const RSP_ID: usize = 0;
pub const RSP_OPERATION: usize = 8;
pub const RSP_STATUS: usize = 10;

/// One layout.
#[derive(Debug, PartialEq, Eq)]
pub struct Layout {
    /// How this program and its user call it.
    pub name: &'static str,
    /// What the key `protocol` says; `None` leaves it out.
    pub protocol: Option<&'static str>,
    /// Bytes of a slot.
    pub slot: usize,
    /// Bytes of a response.
    pub response: usize,
    pub id: usize,
    pub sector: usize,
    /// Segments of a direct request, sectors of a discard, `handle` of an indirect request.
    pub tail: usize,
    pub indirect_grefs: usize,
}

pub const ALL: [Layout; 3] = [
    Layout {
        name: "x86_64-abi",
        protocol: Some("x86_64-abi"),
        slot: 112,
        response: 16,
        id: 8,
        sector: 16,
        tail: 24,
        indirect_grefs: 28,
    },
    Layout {
        name: "x86_32-abi",
        protocol: Some("x86_32-abi"),
        ..UNSAID
    },
    UNSAID,
];

/// A frontend that does not say is taken for a 32-bit one on x86.
const UNSAID: Layout = Layout {
    name: "unsaid",
    protocol: None,
    slot: 108,
    response: 12,
    id: 4,
    sector: 12,
    tail: 20,
    indirect_grefs: 24,
};

impl Layout {
    pub fn by_name(name: &str) -> Option<&'static Layout> {
        ALL.iter().find(|layout| layout.name == name)
    }

    /// Slots of a ring of `1 << order` pages: as many as fit, rounded down to a power of two.
    pub fn entries(&self, order: u32) -> u32 {
        let fit = ((crate::sys::PAGE << order) - SLOTS) / self.slot;
        1 << fit.ilog2()
    }

    /// Where slot `index` of the ring begins.
    pub fn place(&self, index: u32, entries: u32) -> usize {
        SLOTS + (index % entries) as usize * self.slot
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rings_have_the_sizes_of_the_protocol() {
        for layout in &ALL {
            let entries: Vec<u32> = (0..5).map(|order| layout.entries(order)).collect();
            assert_eq!(entries, [32, 64, 128, 256, 512], "{}", layout.name);
        }
    }

    #[test]
    fn requests_fill_their_slots() {
        for layout in &ALL {
            assert_eq!(layout.slot, layout.tail + 8 * DIRECT_SEGMENTS);
            assert_eq!(layout.tail, layout.sector + 8);
            assert_eq!(layout.sector, layout.id + 8);
            assert_eq!(layout.indirect_grefs, layout.tail + 4);
        }
    }
}
