// SPDX-License-Identifier: GPL-2.0

//! Rings that always have requests: they get the whole rate, in equal parts.
//!
//! The rule allows for one token less than the refill. Above 1000 tokens per
//! second the timer gathers a batch of them, a millisecond's worth: then it is one
//! batch less, and that millisecond is one of the ten that a wake-up may be late.

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
/// Timers that fire in one case.
const TIMERS: u32 = 120;

/// Limits whose bucket can be emptied quickly.
fn small_limits() -> impl Strategy<Value = Limit> {
    let refill = prop_oneof![1..=20u32, 990..=3000u32, 3000..=1_000_000u32];
    let max = prop_oneof![1..=4u32, 1..=100u32, 100..=2000u32];
    (refill, max).prop_map(|(refill, max)| limit(refill, max))
}

/// A disk of which `rings` rings wait with endless requests and the bucket is empty.
fn backlogged(limit: Limit, rings: u8, late: u64, seed: u64) -> Host {
    let mut host = Host::new(Setting::Limited(limit), usize::from(rings), late, seed);
    for ring in 0..rings {
        host.arrive(ring, ENDLESS);
    }
    host.ledger.entries.clear();
    host
}

/// In no window is less admitted than its refill, but for `late` nanoseconds of
/// it, the batch that is being gathered and the nanosecond that rounding costs.
fn check_nothing_is_lost(entries: &[Entry], limit: Limit, late: u64) {
    let refill = i128::from(limit.refill());
    let slack = i128::from(batch(limit)) * NANO + refill * i128::from(late + 1);
    let mut spent: i128 = 0;
    // The most that refill brought more than was spent, at the start of a window.
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

fn check_equal_shares(entries: &[Entry], rings: u8, quantum: u32) {
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

/// What a ring gets at once when `rings` compete.
fn quantum(limit: Limit, rings: u8) -> u32 {
    (limit.refill() / 1000 / u32::from(rings)).clamp(1, QUANTUM_MAX)
}

proptest! {
    #![proptest_config(cases(1500))]

    #[test]
    fn a_backlog_loses_nothing_to_wake_ups_up_to_nine_milliseconds_late(
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
        check_equal_shares(&host.ledger.entries, rings, quantum(limit, rings));
    }

    #[test]
    fn late_timers_do_not_make_shares_unequal(
        limit in small_limits(),
        rings in 2..=8u8,
        late in 0..200 * US,
        seed: u64,
    ) {
        let mut host = backlogged(limit, rings, late, seed);
        (0..TIMERS).for_each(|_| assert!(host.fire()));
        check_equal_shares(&host.ledger.entries, rings, quantum(limit, rings));
    }

    #[test]
    fn a_ring_that_looks_again_and_again_gets_neither_more_nor_less(
        limit in small_limits(),
        rings in 2..=8u8,
        seed: u64,
    ) {
        let mut host = backlogged(limit, rings, 0, seed);
        let mut dice = Dice(seed);
        // A worker also runs when a request is done: it looks at its ring then.
        for _ in 0..TIMERS {
            let (_, fires) = host.timer.expect("somebody waits");
            let then = host.now + dice.up_to(fires - host.now);
            host.run_until(then);
            host.ask(dice.up_to(u64::from(rings) - 1) as u8, then);
        }
        check_equal_shares(&host.ledger.entries, rings, quantum(limit, rings));
    }
}
