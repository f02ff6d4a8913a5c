// SPDX-License-Identifier: GPL-2.0

//! What a seeded run asks: drawn from the seed and from what the backend offers, and nothing else.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use crate::arena::SECTORS;
use crate::disk::Traits;
use crate::layout::DIRECT_SEGMENTS;
use crate::pool::PAGE_SECTORS;
use crate::request::BARRIER;
use crate::request::ERROR;
use crate::request::FLUSH;
use crate::request::OKAY;
use crate::request::READ;
use crate::request::Request;
use crate::request::SECURE;
use crate::request::Segment;
use crate::request::UNSUPPORTED;
use crate::request::WRITE;

/// A request without its pages.
#[derive(Clone, Debug)]
pub enum Plan {
    /// Nothing is transferred, and nothing changes.
    Bare {
        request: Request,
        statuses: &'static [i16],
    },
    Discard {
        sector: u64,
        sectors: u64,
        flags: u8,
    },
    Transfer {
        operation: u8,
        sector: u64,
        /// The first and last sector of each segment in its page.
        parts: Vec<(u8, u8)>,
        indirect: bool,
    },
    /// One thing is wrong, of this one-segment request; its page must not change.
    Malformed {
        request: Request,
        statuses: &'static [i16],
    },
}

impl Plan {
    /// The sectors of the arena that it uses, and whether it changes them.
    pub fn sectors(&self) -> (u64, u64, bool) {
        match self {
            Plan::Bare { .. } | Plan::Malformed { .. } => (0, 0, false),
            Plan::Discard {
                sector, sectors, ..
            } => (*sector, *sectors, true),
            Plan::Transfer {
                operation,
                sector,
                parts,
                ..
            } => (*sector, total(parts), *operation != READ),
        }
    }

    /// The pages that it needs.
    pub fn pages(&self) -> usize {
        match self {
            Plan::Bare { .. } | Plan::Discard { .. } => 0,
            Plan::Malformed { .. } => 1,
            Plan::Transfer {
                parts, indirect, ..
            } => parts.len() + usize::from(*indirect),
        }
    }
}

fn total(parts: &[(u8, u8)]) -> u64 {
    parts
        .iter()
        .map(|(first, last)| u64::from(last - first) + 1)
        .sum()
}

/// Draws the next request. `segments` is how many an indirect one may have.
pub fn draw(random: &mut ChaCha8Rng, traits: &Traits, segments: u16) -> Plan {
    match random.random_range(0..100) {
        // A flush succeeds even where there is no cache: then there is nothing to do.
        0..6 => bare(random, FLUSH, &[OKAY]),
        6..8 if traits.barrier => bare(random, BARRIER, &[OKAY]),
        6..8 => bare(random, BARRIER, &[OKAY, UNSUPPORTED]),
        8..11 => discard(random, traits),
        11..15 => malformed(random, traits.sectors),
        15..18 => transfer(random, traits, 0, FLUSH),
        18..20 if traits.barrier => transfer(random, traits, 0, BARRIER),
        18..60 => transfer(random, traits, segments, READ),
        _ => transfer(random, traits, segments, WRITE),
    }
}

/// A request without data names no place: whatever stands there is ignored.
fn bare(random: &mut ChaCha8Rng, operation: u8, statuses: &'static [i16]) -> Plan {
    Plan::Bare {
        request: Request::direct(operation, random.random(), &[]),
        statuses,
    }
}

fn discard(random: &mut ChaCha8Rng, traits: &Traits) -> Plan {
    let flags = if random.random() { SECURE } else { 0 };
    if !traits.discard {
        return Plan::Bare {
            request: Request::discard(0, 8, flags),
            statuses: &[UNSUPPORTED],
        };
    }
    let block = traits.block.max(u64::from(PAGE_SECTORS));
    let sectors = random.random_range(1..=16) * block;
    Plan::Discard {
        sector: place(random, block, sectors),
        sectors,
        // Where secure discards are not offered the flag is ignored.
        flags: if traits.secure { 0 } else { flags },
    }
}

fn place(random: &mut ChaCha8Rng, block: u64, sectors: u64) -> u64 {
    random.random_range(0..=(SECTORS - sectors) / block) * block
}

fn transfer(random: &mut ChaCha8Rng, traits: &Traits, segments: u16, operation: u8) -> Plan {
    let indirect = segments > 0 && random.random_ratio(1, 5);
    let most = match (indirect, random.random_ratio(1, 8)) {
        (true, true) => usize::from(segments),
        (true, false) => usize::from(segments).min(32),
        (false, _) => DIRECT_SEGMENTS,
    };
    let count = random.random_range(1..=most);
    let parts: Vec<(u8, u8)> = (0..count).map(|_| part(random, traits.block)).collect();
    Plan::Transfer {
        operation,
        sector: place(random, traits.block, total(&parts)),
        parts,
        indirect,
    }
}

/// A part of a page, in whole blocks.
fn part(random: &mut ChaCha8Rng, block: u64) -> (u8, u8) {
    let block = (block as u8).min(PAGE_SECTORS);
    let blocks = PAGE_SECTORS / block;
    let first = random.random_range(0..blocks);
    let last = random.random_range(first..blocks);
    // Whole pages are most of what real frontends send.
    match random.random_ratio(1, 2) {
        true => (0, PAGE_SECTORS - 1),
        false => (first * block, last * block + block - 1),
    }
}

fn malformed(random: &mut ChaCha8Rng, end: u64) -> Plan {
    let good = Segment {
        gref: 0,
        first: 0,
        last: PAGE_SECTORS - 1,
    };
    let operation = if random.random() { READ } else { WRITE };
    let one = |sector, segment| Request::direct(operation, sector, &[segment]);
    let (first, last) = match random.random_range(0..3) {
        0 => (5, 4),
        1 => (8, 8),
        _ => (0, random.random_range(8..=255)),
    };
    let request = match random.random_range(0..6) {
        0 => one(0, good).claiming(0),
        1 => one(0, good).claiming(random.random_range(12..=255)),
        2 => one(
            0,
            Segment {
                first,
                last,
                ..good
            },
        ),
        3 => one(end - 7, good),
        4 => one(u64::MAX - random.random_range(0..8), good),
        _ => Request {
            operation: random.random_range(7..=255),
            ..one(0, good)
        },
    };
    let statuses = if request.operation > WRITE {
        &[UNSUPPORTED]
    } else {
        &[ERROR]
    };
    Plan::Malformed { request, statuses }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    fn plans(seed: u64, block: u64) -> Vec<Plan> {
        let traits = Traits {
            sectors: 1 << 20,
            block,
            read_only: false,
            barrier: true,
            discard: true,
            secure: false,
        };
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        (0..2000).map(|_| draw(&mut random, &traits, 256)).collect()
    }

    #[test]
    fn a_seed_always_draws_the_same() {
        let text = |seed| format!("{:?}", plans(seed, 1));
        assert_eq!(text(1), text(1));
        assert_ne!(text(1), text(2));
    }

    #[test]
    fn plans_stay_in_the_arena_and_on_blocks() {
        for block in [1, 8] {
            for plan in plans(3, block) {
                let (sector, sectors, _) = plan.sectors();
                assert!(sector + sectors <= SECTORS, "{plan:?}");
                assert_eq!((sector % block, sectors % block), (0, 0), "{plan:?}");
            }
        }
    }
}
