// SPDX-License-Identifier: GPL-2.0

//! Requests whose cost depends on their size: `tokens-size` and `bytes-refill`.
//!
//! Two rings have requests of random sizes, under random limits. The tests check that every
//! window exceeds its bound by the cost of one request at most, that no token is lost while
//! a ring waits, and that no request waits for a level that its bucket never reaches.

mod host;

use host::cases;
use host::limit;
use host::Dice;
use host::MS;
use host::NANO;
use host::SECOND;
use proptest::prelude::*;
use rblkback_logic::tokens::admission::Admission;
use rblkback_logic::tokens::admission::SavedLevels;
use rblkback_logic::tokens::admission::Take;
use rblkback_logic::tokens::limits::tokens_for;
use rblkback_logic::tokens::limits::Limit;
use rblkback_logic::tokens::limits::Setting;
use rblkback_logic::tokens::limits::Terms;
use rblkback_logic::tokens::timer_action::TimerAction;

/// The largest request, in bytes.
const LARGEST: u32 = 1 << 20;

struct World {
    admission: Admission,
    terms: Terms,
    now: u64,
    dice: Dice,
    /// The time, tokens and bytes of each admitted request.
    admitted: Vec<(u64, u64, u64)>,
}

impl World {
    fn new(terms: Terms, seed: u64) -> Self {
        let mut admission = Admission::unlimited();
        admission.start(terms, SavedLevels::default(), 0);
        World {
            admission,
            terms,
            now: 0,
            dice: Dice(seed),
            admitted: Vec::new(),
        }
    }

    /// A ring that always has requests asks until it has to wait. Returns the number of admitted
    /// requests.
    fn work(&mut self, ring: u8) -> u64 {
        let mut got = 0;
        while let Take::Tokens(count) = self.admission.take(None, ring, 64, self.now) {
            assert_eq!(count, 1, "sizes are unknown before a request is consumed");
            let bytes = 512 * (1 + self.dice.up_to(u64::from(LARGEST / 512) - 1) as u32);
            self.admission.price(bytes, self.now);
            let tokens = tokens_for(bytes, self.terms.size);
            self.admitted
                .push((self.now, u64::from(tokens), u64::from(bytes)));
            got += 1;
        }
        got
    }

    fn run(&mut self, then: u64) {
        for ring in 0..2 {
            self.work(ring);
        }
        loop {
            match self.admission.next(self.now) {
                TimerAction::ArmAt(at) if at > then => break,
                TimerAction::ArmAt(at) => self.now = at,
                TimerAction::Wake(ring) => assert!(self.work(ring) > 0, "woken without effect"),
                TimerAction::Stop => panic!("two rings wait"),
            }
        }
        self.now = then;
    }

    fn check(
        &self,
        limit: Limit,
        what: impl Fn(&(u64, u64, u64)) -> u64,
        largest: u32,
        until: u64,
    ) {
        let refill = i128::from(limit.refill());
        let slack = refill * i128::from(10 * MS) + NANO + i128::from(largest) * NANO;
        let full = i128::from(limit.max()) * NANO;
        let (mut level, mut last, mut all) = (full, 0, 0);
        for entry in &self.admitted {
            level = full.min(level + i128::from(entry.0 - last) * refill);
            last = entry.0;
            level -= i128::from(what(entry)) * NANO;
            all += i128::from(what(entry));
            assert!(level >= -slack, "more than the bound at {}", entry.0);
        }
        // The unspent rest is less than the batch of one wakeup.
        let due = full + i128::from(until) * refill;
        let batch = i128::from(host::batch(limit)) * NANO;
        assert!(all * NANO >= due - batch, "{all} of {due}");
    }
}

fn limits() -> impl Strategy<Value = Limit> {
    (1u32..5000, 1u32..2000).prop_map(|(refill, max)| limit(refill, max))
}

fn bytes_limits() -> impl Strategy<Value = Limit> {
    (100_000u32..500_000_000, 1u32..50_000_000).prop_map(|(refill, max)| limit(refill, max))
}

proptest! {
    #![proptest_config(cases(200))]

    #[test]
    fn the_bound_in_tokens_of_a_size_holds(limit in limits(), size in 512u32..LARGEST, seed: u64) {
        let terms = Terms { tokens: Setting::Limited(limit), size, bytes: None };
        let mut world = World::new(terms, seed);
        world.run(20 * SECOND);
        world.check(limit, |entry| entry.1, tokens_for(LARGEST, size), 20 * SECOND);
    }

    #[test]
    fn the_bound_in_bytes_holds(limit in bytes_limits(), seed: u64) {
        let terms = Terms { tokens: Setting::Unlimited, size: 0, bytes: Some(limit) };
        let mut world = World::new(terms, seed);
        world.run(2 * SECOND);
        world.check(limit, |entry| entry.2, LARGEST, 2 * SECOND);
    }

    #[test]
    fn both_bounds_hold_at_once(tokens in limits(), bytes in bytes_limits(), seed: u64) {
        let terms = Terms {
            tokens: Setting::Limited(tokens),
            size: 0,
            bytes: Some(bytes),
        };
        let mut world = World::new(terms, seed);
        world.run(2 * SECOND);
        let sum = |what: fn(&(u64, u64, u64)) -> u64| world.admitted.iter().map(what).sum::<u64>();
        let most = |limit: Limit, largest: u32| {
            u64::from(limit.max()) + 2 * u64::from(limit.refill()) + u64::from(limit.refill()) / 100
                + u64::from(largest) + 1
        };
        prop_assert!(sum(|entry| entry.1) <= most(tokens, 1));
        prop_assert!(sum(|entry| entry.2) <= most(bytes, LARGEST));
    }
}

#[test]
fn a_request_dearer_than_the_bucket_goes_and_leaves_a_debt() {
    let terms = Terms {
        tokens: Setting::Limited(limit(10, 2)),
        size: 4096,
        bytes: None,
    };
    let mut admission = Admission::unlimited();
    admission.start(terms, SavedLevels::default(), 0);
    assert_eq!(admission.take(None, 0, 5, 0), Take::Tokens(1));
    admission.price(LARGEST, 0);
    assert_eq!(admission.view(0).tokens, 2 - 256);
    assert_eq!(admission.spent(), 256);
    assert_eq!(admission.take(None, 0, 4, 0), Take::Wait);
    assert_eq!(admission.next(0), TimerAction::ArmAt(255 * SECOND / 10));
}

#[test]
fn a_request_without_data_costs_no_bytes() {
    let terms = Terms {
        tokens: Setting::Unlimited,
        size: 0,
        bytes: Some(limit(1000, 1000)),
    };
    let mut admission = Admission::unlimited();
    admission.start(terms, SavedLevels::default(), 0);
    for _ in 0..100 {
        assert_eq!(admission.take(None, 0, 1, 0), Take::Tokens(1));
        admission.price(0, 0);
    }
    assert_eq!(admission.view(0).bytes, 1000);
}
