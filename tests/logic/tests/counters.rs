// SPDX-License-Identifier: GPL-2.0

//! The counters in sysfs, compared with an independent count.

mod host;

use host::cases;
use host::script::limits;
use host::script::on_one_clock;
use host::script::play;
use host::script::settings;
use host::script::under_any_limit;
use host::script::under_one_limit;
use host::Host;
use host::MS;
use host::SECOND;
use proptest::prelude::*;
use rblkback_logic::tokens::limits::Setting;

const RINGS: usize = 3;

proptest! {
    #![proptest_config(cases(1500))]

    #[test]
    fn the_time_during_which_a_ring_waits_is_counted(
        setting in settings(),
        script in under_any_limit(RINGS as u8),
        late in 0..10 * MS,
        seed: u64,
    ) {
        let mut host = Host::new(setting, RINGS, late, seed);
        play(&mut host, &on_one_clock(script));
        let view = host.look();
        prop_assert_eq!(view.throttled, host.observer.throttled(host.now));
        prop_assert_eq!(view.meter.wait_max, host.observer.longest);
    }

    #[test]
    fn each_request_that_waits_is_counted_once(
        setting in settings(),
        script in under_any_limit(RINGS as u8),
        late in 0..10 * MS,
        seed: u64,
    ) {
        let mut host = Host::new(setting, RINGS, late, seed);
        play(&mut host, &script);
        prop_assert_eq!(host.look().meter.nr_throttled, host.observer.nr_throttled);
    }

    #[test]
    fn the_rate_is_the_number_of_tokens_spent_in_the_last_full_second(
        limit in limits(),
        script in under_one_limit(RINGS as u8),
        seed: u64,
    ) {
        let mut host = Host::new(Setting::Limited(limit), RINGS, 0, seed);
        play(&mut host, &on_one_clock(script));
        let view = host.look();
        let second = host.now / SECOND;
        let entries = host.ledger.entries.iter();
        let last = entries.filter(|entry| entry.at / SECOND + 1 == second);
        let spent: u64 = last.map(|entry| u64::from(entry.count)).sum();
        prop_assert_eq!(view.rate, spent);
        prop_assert_eq!(host.admission.spent(), host.ledger.spent());
    }
}
