// SPDX-License-Identifier: GPL-2.0

//! The effects of a change of the keys.
//!
//! The rules are those of the table in `src/logic/tokens/admission.rs`.

mod host;

use host::batch;
use host::cases;
use host::script::gaps;
use host::script::limits;
use host::script::on_one_clock;
use host::script::play;
use host::script::settings;
use host::script::under_any_limit;
use host::script::under_one_limit;
use host::script::Script;
use host::Host;
use host::MS;
use host::SECOND;
use proptest::prelude::*;
use rblkback_logic::tokens::admission::Admission;
use rblkback_logic::tokens::admission::Change;
use rblkback_logic::tokens::bucket::Bucket;
use rblkback_logic::tokens::limits::Limit;
use rblkback_logic::tokens::limits::Setting;
use rblkback_logic::tokens::limits::VALUE_MAX;

const RINGS: usize = 3;

/// A host after `script`. Its timer is punctual. With a late timer, a ring that asks before
/// the timer fires would be served earlier, which has nothing to do with the limit.
fn host_after(setting: Setting, script: &Script) -> Host {
    let mut host = Host::new(setting, RINGS, 0, 0);
    play(&mut host, script);
    host
}

/// The behaviour of a host under `script`. Two hosts with equal results have the same state.
fn future(mut host: Host, script: &Script) -> String {
    host.ledger.entries.clear();
    // A time in the past would reveal the latest time that the limit has seen.
    play(&mut host, &on_one_clock(script.clone()));
    let view = host.look();
    format!(
        "{:?} {:?} {:?} {:?}",
        host.ledger.entries, view.limit, view.tokens, host.timer
    )
}

/// The setting that is in force.
fn in_force(host: &mut Host, last: Setting) -> Setting {
    match host.look().limit {
        Some(limit) => Setting::Limited(limit),
        None => last,
    }
}

fn last_valid(first: Setting, script: &Script) -> Setting {
    let mut last = if first == Setting::Invalid {
        Setting::Unlimited
    } else {
        first
    };
    for (_, event) in script {
        match event {
            host::script::Event::Set(setting) if *setting != Setting::Invalid => last = *setting,
            _ => {}
        }
    }
    last
}

fn tokens(admission: &mut Admission, now: u64) -> i64 {
    admission.view(now).tokens
}

fn tenth(limit: Limit) -> i64 {
    i64::from(limit.refill() / 10).min(i64::from(limit.max()))
}

proptest! {
    #![proptest_config(cases(1200))]

    #[test]
    fn the_limit_in_force_is_the_last_valid_one(
        first in settings(),
        script in under_any_limit(RINGS as u8),
    ) {
        let mut host = host_after(first, &script);
        let expected = match last_valid(first, &script) {
            Setting::Limited(limit) => Some(limit),
            _ => None,
        };
        prop_assert_eq!(host.look().limit, expected);
    }

    #[test]
    fn the_same_keys_again_change_nothing(
        first in settings(),
        before in under_any_limit(RINGS as u8),
        gap in gaps(),
        after in under_any_limit(RINGS as u8),
    ) {
        let run = |again: bool| {
            let mut host = host_after(first, &before);
            host.run_until(host.now + gap);
            let last = last_valid(first, &before);
            let setting = in_force(&mut host, last);
            if again {
                let changes = host.look().meter.changes;
                assert_eq!(host.set(setting), Change::Same);
                assert_eq!(host.look().meter.changes, changes);
            }
            future(host, &after)
        };
        prop_assert_eq!(run(false), run(true));
    }

    #[test]
    fn invalid_keys_change_neither_limit_nor_level(
        first in settings(),
        before in under_any_limit(RINGS as u8),
        gap in gaps(),
        after in under_one_limit(RINGS as u8),
    ) {
        let run = |junk: bool| {
            let mut host = host_after(first, &before);
            host.run_until(host.now + gap);
            if junk {
                let errors = host.look().meter.errors;
                assert!(matches!(host.set(Setting::Invalid), Change::Refused { .. }));
                let view = host.look();
                assert_eq!((view.state.name(), view.meter.errors), ("invalid", errors + 1));
            }
            future(host, &after)
        };
        prop_assert_eq!(run(false), run(true));
    }

    #[test]
    fn a_limit_after_none_starts_with_a_tenth_of_a_second(
        first in settings(),
        before in under_any_limit(RINGS as u8),
        gap in gaps(),
        limit in limits(),
        toggles in 1..20u32,
    ) {
        let mut host = host_after(first, &before);
        for _ in 0..toggles {
            host.set(Setting::Unlimited);
            host.run_until(host.now + gap);
            host.set(Setting::Limited(limit));
            let now = host.now;
            prop_assert_eq!(tokens(&mut host.admission, now), tenth(limit));
        }
    }

    #[test]
    fn a_disk_continues_with_the_tokens_of_another_driver(
        limit in limits(),
        saved in prop_oneof![-100..100i64, -i64::from(VALUE_MAX)..=i64::MAX],
        now in gaps(),
    ) {
        let mut admission = Admission::unlimited();
        admission.start(Setting::Limited(limit), Some(saved), now);
        let expected = saved.min(limit.max().into());
        prop_assert_eq!(tokens(&mut admission, now), expected);
        prop_assert_eq!(admission.view(now).meter.changes, 0);
    }

    #[test]
    fn a_change_adds_no_token(
        first in limits(),
        before in under_one_limit(RINGS as u8),
        gap in gaps(),
        second in limits(),
    ) {
        let mut host = host_after(Setting::Limited(first), &before);
        host.run_until(host.now + gap);
        let now = host.now;
        let old = tokens(&mut host.admission, now);
        host.admission.configure(Setting::Limited(second), now);
        let new = tokens(&mut host.admission, now);
        prop_assert!(new <= old, "tokens added: {old} to {new}");
        let spilled = old > i64::from(second.max());
        prop_assert!(spilled || new == old, "lost: {old} to {new}");
    }

    #[test]
    fn time_before_a_change_counts_at_the_old_rate(
        first in limits(),
        second in limits(),
        taken in 0..1000u32,
        gap in gaps(),
    ) {
        let mut changed = Bucket::full(first, 0);
        changed.take(taken);
        let mut unchanged = changed;
        changed.set_limit(second, gap, false);
        unchanged.accrue(gap, false);
        let brought = unchanged.tokens();
        prop_assert_eq!(changed.tokens(), brought.min(i64::from(second.max())));
    }

    #[test]
    fn a_larger_bucket_or_another_refill_leaves_a_waiting_level_as_it_is(
        first in limits(),
        refill in 1..=1_000_000_000u32,
        more in 0..1000u32,
        late in 0..10 * MS,
    ) {
        // At least the old refill, so that the allowed excess is not smaller.
        let refill = refill.max(first.refill());
        let max = first.max().saturating_add(more).min(1_000_000_000);
        let mut bucket = Bucket::full(first, 0);
        bucket.take(u32::MAX);
        let now = bucket.ready_at() + late;
        bucket.accrue(now, true);
        let before = bucket.tokens();
        bucket.set_limit(host::limit(refill, max), now, true);
        prop_assert_eq!(bucket.tokens(), before);
    }

    #[test]
    fn a_change_applies_to_waiting_rings_at_once(
        first in limits(),
        before in under_one_limit(RINGS as u8),
        gap in 0..10 * MS,
        second in limits(),
    ) {
        let mut host = host_after(Setting::Limited(first), &before);
        host.run_until(host.now + gap);
        host.set(Setting::Limited(second));
        if let Some((at, _)) = host.timer {
            let wait = u64::from(batch(second)) * SECOND / u64::from(second.refill()) + 1;
            prop_assert!(at <= host.now + wait, "timer of the old limit: {at}");
        }
    }

    #[test]
    fn removing_the_limit_releases_all_rings_at_once(
        first in settings(),
        before in under_any_limit(RINGS as u8),
        off in prop_oneof![Just(Setting::Unlimited), Just(Setting::Incomplete)],
    ) {
        let mut host = host_after(first, &before);
        host.set(off);
        prop_assert_eq!(host.backlog.iter().sum::<u32>(), 0);
        prop_assert_eq!(host.timer, None);
        prop_assert!(!host.admission.is_gated());
    }
}
