// SPDX-License-Identifier: GPL-2.0

//! Rings that always have requests get the whole rate, in equal parts.
//!
//! The tests allow one token less than the refill. Above 1000 tokens per second, the timer
//! waits for a batch of tokens, the refill of one millisecond. Then the tests allow one
//! batch less, and a wakeup may be late by nine milliseconds instead of ten.

mod host;

use host::batch;
use host::cases;
use host::ledger::Entry;
use host::limit;
use host::Dice;
use host::Host;
use host::MS;
use host::NANO;
use host::US;
use proptest::prelude::*;
use rblkback_logic::tokens::limits::Limit;
use rblkback_logic::tokens::limits::Setting;
use rblkback_logic::tokens::token_queue::QUANTUM_MAX;

/// More requests than any of these tests can admit.
const ENDLESS: u32 = 1 << 30;
/// The number of timers that fire in one case.
const TIMERS: u32 = 120;

/// Limits with a small bucket.
fn small_limits() -> impl Strategy<Value = Limit> {
    let refill = prop_oneof![1..=20u32, 990..=3000u32, 3000..=1_000_000u32];
    let max = prop_oneof![1..=4u32, 1..=100u32, 100..=2000u32];
    (refill, max).prop_map(|(refill, max)| limit(refill, max))
}

/// A host with an empty bucket and `rings` rings that always have requests.
fn backlogged(limit: Limit, rings: u8, late: u64, seed: u64) -> Host {
    let mut host = Host::new(Setting::Limited(limit), usize::from(rings), late, seed);
    for ring in 0..rings {
        host.arrive(ring, ENDLESS);
    }
    host.ledger.entries.clear();
    host
}

/// Checks that every window admits its refill, except for that of `late` nanoseconds, of one
/// nanosecond of rounding, and of the incomplete batch.
fn check_nothing_is_lost(entries: &[Entry], limit: Limit, late: u64) {
    let refill = i128::from(limit.refill());
    let slack = i128::from(batch(limit)) * NANO + refill * i128::from(late + 1);
    let mut spent: i128 = 0;
    // The smallest difference between refill and spent tokens at the start of a window.
    let mut ahead: Option<i128> = None;
    for entry in entries {
        let brought = refill * i128::from(entry.at);
        if let Some(ahead) = ahead {
            let missing = brought - spent - ahead;
            assert!(
                missing <= slack,
                "{} nano-tokens lost before {entry:?}",
                missing - slack
            );
        }
        spent += i128::from(entry.count) * NANO;
        ahead = Some(ahead.map_or(brought - spent, |ahead| ahead.min(brought - spent)));
    }
}

fn check_equal_parts(entries: &[Entry], rings: u8, quantum: u32) {
    let mut served = vec![0u64; usize::from(rings)];
    for entry in entries {
        served[usize::from(entry.ring)] += u64::from(entry.count);
        let most = served.iter().max().expect("a ring");
        let least = served.iter().min().expect("a ring");
        assert!(
            most - least <= u64::from(quantum),
            "{served:?} after {entry:?}"
        );
    }
}

/// The quantum of a ring, with `rings` active rings.
fn quantum(limit: Limit, rings: u8) -> u32 {
    (limit.refill() / 1000 / u32::from(rings)).clamp(1, QUANTUM_MAX)
}

proptest! {
    #![proptest_config(cases(1500))]

    #[test]
    fn wakeups_up_to_nine_milliseconds_late_lose_no_token(
        limit in small_limits(),
        rings in 1..=4u8,
        late in 0..=9 * MS,
        seed: u64,
    ) {
        let mut host = backlogged(limit, rings, late, seed);
        (0..TIMERS).for_each(|_| assert!(host.fire()));
        check_nothing_is_lost(&host.ledger.entries, limit, late);
    }

    #[test]
    fn backlogged_rings_never_differ_by_more_than_a_quantum(
        limit in small_limits(),
        rings in 2..=8u8,
        seed: u64,
    ) {
        let mut host = backlogged(limit, rings, 0, seed);
        (0..TIMERS).for_each(|_| assert!(host.fire()));
        check_equal_parts(&host.ledger.entries, rings, quantum(limit, rings));
    }

    #[test]
    fn late_timers_keep_the_parts_equal(
        limit in small_limits(),
        rings in 2..=8u8,
        late in 0..200 * US,
        seed: u64,
    ) {
        let mut host = backlogged(limit, rings, late, seed);
        (0..TIMERS).for_each(|_| assert!(host.fire()));
        check_equal_parts(&host.ledger.entries, rings, quantum(limit, rings));
    }

    #[test]
    fn a_ring_that_asks_more_often_gets_neither_more_nor_less(
        limit in small_limits(),
        rings in 2..=8u8,
        seed: u64,
    ) {
        let mut host = backlogged(limit, rings, 0, seed);
        let mut dice = Dice(seed);
        // A worker also runs, and asks for tokens, when a request completes.
        for _ in 0..TIMERS {
            let (_, fires) = host.timer.expect("all rings wait");
            let then = host.now + dice.up_to(fires - host.now);
            host.run_until(then);
            host.ask(dice.up_to(u64::from(rings) - 1) as u8, then);
        }
        check_equal_parts(&host.ledger.entries, rings, quantum(limit, rings));
    }
}
