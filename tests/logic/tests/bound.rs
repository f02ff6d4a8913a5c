// SPDX-License-Identifier: GPL-2.0

//! No window of time admits more than the limit, and every ring that waits is served.
//!
//! [`host::ledger`] states the bound and asserts it at every admission.

mod host;

use host::cases;
use host::ledger::Ledger;
use host::script::gaps;
use host::script::limits;
use host::script::play;
use host::script::settings;
use host::script::under_any_limit;
use host::script::under_one_limit;
use host::started;
use host::Host;
use host::MS;
use host::NANO;
use proptest::collection::vec;
use proptest::prelude::*;
use rblkback_logic::tokens::admission::Take;
use rblkback_logic::tokens::limits::Limit;
use rblkback_logic::tokens::limits::Setting;

const RINGS: usize = 4;

/// Checks all windows one by one, to confirm the incremental check of the ledger.
fn check_every_window(host: &Host, limit: Limit) {
    let entries = &host.ledger.entries[..host.ledger.entries.len().min(600)];
    for (i, first) in entries.iter().enumerate() {
        let mut admitted: i128 = 0;
        for last in &entries[i..] {
            admitted += i128::from(last.count);
            let time = i128::from(last.at - first.at) + i128::from(10 * MS);
            let most = i128::from(limit.max()) * NANO + i128::from(limit.refill()) * time;
            assert!(
                admitted * NANO <= most + NANO,
                "{first:?} to {last:?}: {admitted}"
            );
        }
    }
}

/// Lets the timer fire until no request waits.
fn drain(host: &mut Host, deadline: u64) {
    while host.fire() {
        assert!(
            host.now <= deadline,
            "still {:?} at {}",
            host.backlog,
            host.now
        );
    }
    assert_eq!(host.waiting(), 0);
}

proptest! {
    #![proptest_config(cases(3000))]

    #[test]
    fn no_window_of_time_admits_more_than_the_bucket_and_its_refill(
        limit in limits(),
        script in under_one_limit(RINGS as u8),
        late in 0..15 * MS,
        seed: u64,
    ) {
        let mut host = Host::new(Setting::Limited(limit), RINGS, late, seed);
        play(&mut host, &script);
        check_every_window(&host, limit);
    }

    #[test]
    fn no_window_admits_more_when_the_limit_changes_within_it(
        setting in settings(),
        script in under_any_limit(RINGS as u8),
        late in 0..15 * MS,
        seed: u64,
    ) {
        let mut host = Host::new(setting, RINGS, late, seed);
        play(&mut host, &script);
    }

    #[test]
    fn a_ring_that_waits_is_served_when_there_are_tokens(
        setting in settings(),
        script in under_any_limit(RINGS as u8),
        seed: u64,
    ) {
        let mut host = Host::new(setting, RINGS, 0, seed);
        play(&mut host, &script);
        let deadline = host.now + host.ledger.time_for(host.waiting()) + MS;
        drain(&mut host, deadline);
    }

    #[test]
    fn a_ring_that_waits_is_served_even_if_every_timer_is_late(
        setting in settings(),
        script in under_any_limit(RINGS as u8),
        late in 0..100 * MS,
        seed: u64,
    ) {
        let mut host = Host::new(setting, RINGS, late, seed);
        play(&mut host, &script);
        // Every wakeup admits at least one request.
        let left = host.waiting();
        let deadline = host.now + host.ledger.time_for(left) + (left + 1) * (late + MS);
        drain(&mut host, deadline);
    }

    #[test]
    fn tokens_given_back_are_neither_lost_nor_spent_twice(
        limit in limits(),
        steps in vec((gaps(), 1..64u32, 0..32u32), 1..60),
    ) {
        let mut admission = started(Setting::Limited(limit));
        let mut ledger = Ledger::new(Some(limit));
        let mut now = 0;
        for (gap, wanted, unused) in steps {
            now += gap;
            let charge = admission.payers(&None);
            if let Take::Tokens(got) = admission.take(None, 0, wanted, now) {
                let before = admission.view(now).tokens;
                let unused = unused.min(got);
                admission.give_back(None, unused, charge);
                prop_assert_eq!(admission.view(now).tokens, before + i64::from(unused));
                ledger.admit(0, got - unused, now);
            }
            admission.leave(0, now);
        }
        prop_assert_eq!(admission.spent(), ledger.spent());
    }
}
