// SPDX-License-Identifier: GPL-2.0

//! Granted pages for data, and what is in them.
//!
//! Every sector that this program writes is known by its number and a generation; whatever it
//! reads can be told from that alone.

use anyhow::Result;
use anyhow::ensure;

use crate::grants::Pages;
use crate::request::Segment;
use crate::sys::PAGE;

const WORDS: usize = 512 / 8;
/// What a page holds where no data should arrive.
const CANARY: u64 = 0xc5c5_c5c5_c5c5_c5c5;

pub const PAGE_SECTORS: u8 = (PAGE / 512) as u8;

pub struct Pool {
    pub pages: Pages,
}

fn word(sector: u64, generation: u32, place: usize) -> u64 {
    let seed = (sector ^ (u64::from(generation) << 40)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    seed.wrapping_add((place as u64).wrapping_mul(0xd1b5_4a32_d192_ed03)) | 1
}

impl Pool {
    /// The segment of page `page` from sector `first` to `last`.
    pub fn segment(&self, page: usize, first: u8, last: u8) -> Segment {
        let gref = self.pages.grefs[page];
        Segment { gref, first, last }
    }

    /// All of page `page`.
    pub fn whole(&self, page: usize) -> Segment {
        self.segment(page, 0, PAGE_SECTORS - 1)
    }

    fn place(page: usize, slot: u8) -> usize {
        page * PAGE + usize::from(slot) * 512
    }

    /// Puts the content of `sector` into part `slot` of a page.
    pub fn fill(&self, page: usize, slot: u8, sector: u64, generation: u32) {
        let place = Self::place(page, slot);
        for i in 0..WORDS {
            self.pages
                .memory()
                .write(place + 8 * i, word(sector, generation, i));
        }
    }

    /// Fails unless part `slot` of a page holds the content of `sector`.
    pub fn check(&self, page: usize, slot: u8, sector: u64, generation: u32) -> Result<()> {
        let place = Self::place(page, slot);
        for i in 0..WORDS {
            let found: u64 = self.pages.memory().read(place + 8 * i);
            let wanted = word(sector, generation, i);
            ensure!(
                found == wanted,
                "sector {sector}: byte {} is {found:#x}, not {wanted:#x} (generation {generation})",
                8 * i
            );
        }
        Ok(())
    }

    pub fn holds(&self, page: usize, slot: u8, sector: u64, generation: u32) -> bool {
        self.check(page, slot, sector, generation).is_ok()
    }

    /// Marks a page, so that anything that arrives is seen.
    pub fn mark(&self, page: usize) {
        for i in 0..PAGE / 8 {
            self.pages.memory().write(page * PAGE + 8 * i, CANARY);
        }
    }

    /// Whether nothing has arrived in part `slot` of a marked page.
    pub fn is_marked(&self, page: usize, slot: u8) -> bool {
        let place = Self::place(page, slot);
        (0..WORDS).all(|i| self.pages.memory().read::<u64>(place + 8 * i) == CANARY)
    }

    pub fn is_all_marked(&self, page: usize) -> bool {
        (0..PAGE_SECTORS).all(|slot| self.is_marked(page, slot))
    }

    /// Writes segments into a page, for an indirect request. There may be fewer than it claims.
    pub fn describe(&self, page: usize, segments: &[Segment]) {
        for (i, segment) in segments.iter().take(PAGE / 8).enumerate() {
            let bytes = segment.bytes();
            self.pages
                .memory()
                .write(page * PAGE + 8 * i, u64::from_le_bytes(bytes));
        }
    }
}
