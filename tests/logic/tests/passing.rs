// SPDX-License-Identifier: GPL-2.0

//! Tokens in passing: a member that gets them has what it would have had in the queue.

use proptest::prelude::*;
use rblkback_logic::tokens::bucket::Bucket;
use rblkback_logic::tokens::limits::Limit;
use rblkback_logic::tokens::token_queue::bit_of;
use rblkback_logic::tokens::token_queue::quantum;
use rblkback_logic::tokens::token_queue::TokenQueue;

const MEMBERS: u8 = 3;
/// Members from this number on are never served in passing.
const ALWAYS_QUEUED: u8 = 64;

type Queue = TokenQueue<128>;

/// As `Admission::take` without a cap and without prices.
fn take(queue: &mut Queue, member: u8, wanted: u32, now: u64) -> u32 {
    if queue.pass(member, wanted, now) {
        return wanted;
    }
    queue.enter(member);
    let quantum = quantum(queue.limit().unwrap(), queue.active());
    let offer = queue.offer(member, wanted, quantum, now);
    let got = offer.tokens;
    if got == 0 {
        queue.refuse(member, wanted, now);
    } else {
        queue.serve(member, offer, got, wanted, now);
    }
    got
}

/// As the gate does: one that got tokens in passing needs no queue to leave.
fn leave(queue: &mut Queue, member: u8, now: u64) {
    let passing = queue.passing();
    if passing & bit_of(member) != 0 {
        queue.set_passing(passing & !bit_of(member));
    } else {
        queue.leave(member, now);
    }
}

#[derive(Clone, Debug)]
enum Step {
    Take(u8, u32),
    Leave(u8),
    GiveBack(u32),
    Charge(u32),
    Limit(u32, u32),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..MEMBERS, 1..40_u32).prop_map(|(member, wanted)| Step::Take(member, wanted)),
        3 => (0..MEMBERS).prop_map(Step::Leave),
        1 => (0..5_u32).prop_map(Step::GiveBack),
        1 => (0..50_u32).prop_map(Step::Charge),
        1 => (1..200_000_u32, 1..200_u32).prop_map(|(refill, max)| Step::Limit(refill, max)),
    ]
}

proptest! {
    #[test]
    fn a_member_has_what_it_would_have_in_the_queue(
        steps in prop::collection::vec((step(), 0..2_000_000_u64), 1..200),
        refill in 1..200_000_u32,
        max in 1..200_u32,
    ) {
        let limit = Limit::new(refill, max).unwrap();
        let mut passing = Queue::new();
        passing.start(Some(Bucket::full(limit, 0)));
        let mut queued = passing.clone();
        let mut now = 0;
        for (step, later) in steps {
            now += later;
            match step {
                Step::Take(member, wanted) => {
                    let got = take(&mut passing, member, wanted, now);
                    prop_assert_eq!(got, take(&mut queued, ALWAYS_QUEUED + member, wanted, now));
                }
                Step::Leave(member) => {
                    leave(&mut passing, member, now);
                    leave(&mut queued, ALWAYS_QUEUED + member, now);
                }
                Step::GiveBack(tokens) => {
                    passing.give_back(tokens, passing.generation());
                    queued.give_back(tokens, queued.generation());
                }
                Step::Charge(tokens) => {
                    passing.charge(tokens, now);
                    queued.charge(tokens, now);
                }
                Step::Limit(refill, max) => {
                    let limit = Limit::new(refill, max).unwrap();
                    passing.set_limit(Some(limit), now);
                    queued.set_limit(Some(limit), now);
                }
            }
            prop_assert_eq!(passing.active(), queued.active());
            prop_assert_eq!(
                passing.head(),
                queued.head().map(|member| member - ALWAYS_QUEUED)
            );
            prop_assert_eq!(passing.tokens(now), queued.tokens(now));
            prop_assert_eq!(passing.ready_at(now), queued.ready_at(now));
        }
        prop_assert_eq!(queued.passing(), 0);
    }
}

#[test]
fn a_single_member_passes_until_tokens_are_missing() {
    let mut queue = Queue::new();
    queue.start(Some(Bucket::full(Limit::new(1, 40).unwrap(), 0)));
    assert!(queue.pass(0, 32, 0));
    assert_eq!(queue.passing(), 1);
    // The quantum is 32, and 8 tokens are left.
    assert!(!queue.pass(0, 33, 0));
    assert!(!queue.pass(0, 9, 0));
    assert!(queue.pass(0, 8, 0));
    assert_eq!(take(&mut queue, 0, 1, 0), 0);
    assert_eq!((queue.passing(), queue.head()), (0, Some(0)));
    // Nobody passes one who waits.
    assert!(!queue.pass(1, 1, 2_000_000_000));
}
