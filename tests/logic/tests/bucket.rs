// SPDX-License-Identifier: GPL-2.0

//! The arithmetic of one bucket is exact, however often the bucket is refilled.

mod host;

use host::batch;
use host::cases;
use host::limit;
use host::script::gaps;
use host::script::limits;
use host::SECOND;
use proptest::collection::vec;
use proptest::prelude::*;
use rblkback_logic::tokens::bucket::Bucket;
use rblkback_logic::tokens::limits::Limit;

/// An empty bucket.
fn empty(limit: Limit) -> Bucket {
    let mut bucket = Bucket::full(limit, 0);
    bucket.take(u32::MAX);
    bucket
}

/// The visible state of a bucket, exact to the nano-token: its whole tokens, and the nanosecond at
/// which the next batch is complete.
fn visible(bucket: &Bucket) -> (i64, u64, bool) {
    (bucket.tokens(), bucket.ready_at(), bucket.is_full())
}

/// A bucket with any level, from debt to above `max`.
fn some_bucket() -> impl Strategy<Value = Bucket> {
    (limits(), gaps(), any::<bool>(), 0..5000u32, 0..100u32).prop_map(
        |(limit, gap, waiting, taken, charged)| {
            let mut bucket = Bucket::full(limit, 0);
            bucket.take(taken);
            bucket.accrue(gap, waiting);
            bucket.charge(charged);
            bucket
        },
    )
}

proptest! {
    #![proptest_config(cases(4000))]

    #[test]
    fn refills_in_between_change_nothing(
        start in some_bucket(),
        at in 0..2_000_000 * SECOND,
        mut cuts in vec(0..=1_000_000u64, 0..20),
        near in any::<bool>(),
        waiting: bool,
    ) {
        let time = if near { at % SECOND } else { at };
        let from = 1_000_000 * SECOND;
        let (mut whole, mut pieces) = (start, start);
        whole.accrue(from, waiting);
        pieces.accrue(from, waiting);
        cuts.sort_unstable();
        for cut in cuts {
            pieces.accrue(from + time / 1_000_000 * cut, waiting);
        }
        whole.accrue(from + time, waiting);
        pieces.accrue(from + time, waiting);
        prop_assert_eq!(visible(&whole), visible(&pieces));
    }

    #[test]
    fn an_older_time_changes_nothing(
        start in some_bucket(),
        now in 0..u64::MAX,
        back in 0..=100_000u64,
        waiting: bool,
    ) {
        let mut bucket = start;
        bucket.accrue(now, waiting);
        let mut again = bucket;
        again.accrue(now.saturating_sub(back), waiting);
        prop_assert_eq!(visible(&bucket), visible(&again));
    }

    #[test]
    fn a_batch_is_ready_at_the_first_nanosecond_that_completes_it(limit in limits()) {
        let bucket = empty(limit);
        let ready = bucket.ready_at();
        let batch = i64::from(batch(limit));
        let (mut before, mut then) = (bucket, bucket);
        before.accrue(ready - 1, true);
        then.accrue(ready, true);
        prop_assert!(before.tokens() < batch, "{} a nanosecond early", before.tokens());
        prop_assert!(then.tokens() >= batch, "only {} at {ready}", then.tokens());
        prop_assert_eq!(then.ready_at(), ready);
    }

    #[test]
    fn every_second_brings_exactly_the_refill(
        refill in 1..=1_000_000u32,
        seconds in 1..1000u64,
    ) {
        let mut bucket = empty(limit(refill, 1_000_000_000));
        bucket.accrue(seconds * SECOND, false);
        let brought = i64::from(refill) * seconds as i64;
        prop_assert_eq!(bucket.tokens(), brought);
        bucket.accrue(seconds * SECOND + SECOND - 1, false);
        prop_assert!(bucket.tokens() < brought + i64::from(refill));
    }

    #[test]
    fn a_level_stays_between_its_bounds(
        start in some_bucket(),
        gap in gaps(),
        waiting: bool,
        other in limits(),
        given in 0..=u32::MAX,
    ) {
        let most = |limit: Limit| i64::from(limit.max()) + i64::from(limit.refill().div_ceil(100));
        let mut bucket = start;
        bucket.accrue(gap, waiting);
        prop_assert!(bucket.tokens() <= most(bucket.limit()));
        bucket.set_limit(other, gap, waiting);
        prop_assert!(bucket.tokens() <= most(other));
        bucket.give_back(given);
        prop_assert!(bucket.tokens() <= most(other));
        bucket.accrue(gap, false);
        prop_assert!(bucket.tokens() <= i64::from(other.max()));
    }

    #[test]
    fn take_give_back_and_charge_conserve_tokens(
        start in some_bucket(),
        steps in vec((0..100u32, 0..100u32, 0..20u32), 1..20),
    ) {
        let mut bucket = start;
        let mut tokens = bucket.tokens();
        for (want, unused, charged) in steps {
            let got = bucket.take(want);
            prop_assert!(got <= want && i64::from(got) <= tokens.max(0));
            prop_assert!(got == want || tokens - i64::from(got) < 1, "{tokens} but only {got}");
            let unused = unused.min(got);
            bucket.give_back(unused);
            bucket.charge(charged);
            tokens += i64::from(unused) - i64::from(got) - i64::from(charged);
            prop_assert_eq!(bucket.tokens(), tokens);
        }
    }

    #[test]
    fn no_number_overflows(
        limit in limits(),
        start: u64,
        steps in vec((any::<u64>(), any::<u32>(), any::<bool>()), 1..20),
    ) {
        let mut bucket = Bucket::full(limit, start);
        for (now, count, waiting) in steps {
            bucket.accrue(now, waiting);
            bucket.take(count);
            bucket.ready_at();
            bucket.give_back(count);
            bucket.charge(count);
            prop_assert!(bucket.tokens() >= -1_000_000_000, "unlimited debt");
        }
    }
}
