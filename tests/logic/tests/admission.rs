// SPDX-License-Identifier: GPL-2.0

//! Examples of admission: which ring is served, which ring waits, and how long.

use rblkback_logic::tokens::admission::Admission;
use rblkback_logic::tokens::admission::Change;
use rblkback_logic::tokens::admission::Take;
use rblkback_logic::tokens::cap::Cap;
use rblkback_logic::tokens::limits::Limit;
use rblkback_logic::tokens::limits::Setting;
use rblkback_logic::tokens::timer_action::TimerAction;
use rblkback_logic::tokens::view::LimitState;

const SECOND: u64 = 1_000_000_000;
const MS: u64 = 1_000_000;

fn limited(refill: u32, max: u32) -> Setting {
    Setting::Limited(Limit::new(refill, max).unwrap())
}

fn started(setting: Setting) -> Admission {
    let mut a = Admission::unlimited();
    a.start(setting, None, 0);
    a
}

#[test]
fn without_a_limit_no_token_is_needed_and_no_timer_runs() {
    let mut a = started(Setting::Unlimited);
    assert!(!a.is_gated());
    assert_eq!(a.take(None, 0, 32, 0), Take::Free);
    assert_eq!(a.next(0), TimerAction::Stop);
    assert_eq!(a.view(0).state, LimitState::Unlimited);
    assert_eq!(a.spent(), 0);
}

#[test]
fn a_ring_waits_for_the_next_token() {
    let mut a = started(limited(10, 2));
    assert_eq!(a.view(0).state, LimitState::Idle);
    assert_eq!(a.take(None, 0, 5, 0), Take::Tokens(2));
    assert_eq!(a.view(0).state, LimitState::Bursting);
    assert_eq!(a.take(None, 0, 3, 0), Take::Wait);
    assert_eq!(a.view(0).state, LimitState::Throttled);
    assert_eq!(a.next(0), TimerAction::ArmAt(100 * MS));
    assert_eq!(a.next(100 * MS), TimerAction::Wake(0));
    assert_eq!(a.take(None, 0, 3, 100 * MS), Take::Tokens(1));
    assert_eq!(a.take(None, 0, 2, 100 * MS), Take::Wait);
    let view = a.view(150 * MS);
    assert_eq!((a.spent(), view.meter.nr_throttled), (3, 3));
    assert_eq!((view.throttled, view.meter.wait_max), (150 * MS, 100 * MS));
}

#[test]
fn no_ring_overtakes_a_ring_that_waits() {
    let mut a = started(limited(10, 1));
    assert_eq!(a.take(None, 0, 1, 0), Take::Tokens(1));
    assert_eq!(a.take(None, 0, 1, 0), Take::Wait);
    assert_eq!(a.take(None, 1, 1, 100 * MS), Take::Wait);
    assert_eq!(a.next(100 * MS), TimerAction::Wake(0));
    assert_eq!(a.take(None, 0, 1, 100 * MS), Take::Tokens(1));
    assert_eq!(a.take(None, 0, 1, 100 * MS), Take::Wait);
    assert_eq!(a.next(200 * MS), TimerAction::Wake(1));
    assert_eq!(a.take(None, 1, 1, 200 * MS), Take::Tokens(1));
    assert_eq!(a.next(300 * MS), TimerAction::Wake(0));
}

#[test]
fn the_next_ring_is_served_when_a_ring_leaves() {
    let mut a = started(limited(10, 1));
    a.take(None, 0, 1, 0);
    a.take(None, 0, 1, 0);
    a.take(None, 1, 1, 0);
    a.leave(0, 50 * MS);
    assert_eq!(a.next(100 * MS), TimerAction::Wake(1));
    a.leave(1, 100 * MS);
    assert_eq!(a.next(100 * MS), TimerAction::Stop);
    assert_eq!(a.view(SECOND).throttled, 100 * MS);
}

#[test]
fn leave_idle_has_the_effect_of_leave() {
    let mut a = started(limited(10, 2));
    assert_eq!(a.take(None, 0, 1, 0), Take::Tokens(1));
    let mut other = a.clone();
    other.leave(0, 50 * MS);
    assert!(a.leave_idle(0));
    assert_eq!(format!("{a:?}"), format!("{other:?}"));
    assert!(a.is_idle());
    assert_eq!(a.next(50 * MS), TimerAction::Stop);
}

#[test]
fn leave_idle_does_nothing_while_a_ring_waits() {
    let mut a = started(limited(10, 1));
    a.take(None, 0, 1, 0);
    a.take(None, 1, 1, 0);
    let before = format!("{a:?}");
    assert!(!a.leave_idle(0) && !a.leave_idle(1));
    assert_eq!(format!("{a:?}"), before);
}

#[test]
fn removing_the_limit_releases_one_ring_after_the_other() {
    let mut a = started(limited(1, 1));
    a.take(None, 0, 1, 0);
    a.take(None, 0, 1, 0);
    a.take(None, 1, 1, 0);
    assert_eq!(a.configure(Setting::Unlimited, MS), Change::Applied);
    assert!(a.is_gated());
    assert_eq!(a.next(MS), TimerAction::Wake(0));
    assert_eq!(a.take(None, 0, 1, MS), Take::Free);
    assert_eq!(a.next(MS), TimerAction::Wake(1));
    assert_eq!(a.take(None, 1, 1, MS), Take::Free);
    assert_eq!(a.next(MS), TimerAction::Stop);
    assert!(!a.is_gated());
}

#[test]
fn a_higher_rate_sets_the_timer_again_at_once() {
    let mut a = started(limited(1, 1));
    a.take(None, 0, 1, 0);
    a.take(None, 0, 1, 0);
    assert_eq!(a.next(0), TimerAction::ArmAt(SECOND));
    a.configure(limited(1000, 100), MS);
    assert_eq!(a.next(MS), TimerAction::ArmAt(MS + 999_000));
}

#[test]
fn a_saved_bucket_is_not_filled_up() {
    let tokens = |saved| {
        let mut a = Admission::unlimited();
        a.start(limited(10, 100), Some(saved), 0);
        a.view(0).tokens
    };
    assert_eq!(tokens(0), 0);
    assert_eq!(tokens(7), 7);
    assert_eq!(tokens(5000), 100);
}

#[test]
fn a_saved_debt_is_paid_off_first() {
    let mut a = Admission::unlimited();
    a.start(limited(10, 100), Some(-20), 0);
    assert_eq!(a.view(0).tokens, -20);
    assert_eq!(a.view(2 * SECOND).tokens, 0);
    assert_eq!(a.view(3 * SECOND).tokens, 10);
}

#[test]
fn switching_a_limit_off_and_on_causes_no_burst() {
    let mut a = started(limited(1000, 1000));
    a.configure(Setting::Unlimited, 0);
    a.configure(limited(1000, 1000), 60 * SECOND);
    assert_eq!(a.view(60 * SECOND).tokens, 100);
}

#[test]
fn an_invalid_pair_changes_nothing_but_the_state() {
    let mut a = started(limited(10, 2));
    a.take(None, 0, 2, 0);
    assert_eq!(
        a.configure(Setting::Invalid, 0),
        Change::Refused { first: true }
    );
    let view = a.view(100 * MS);
    assert_eq!(
        (view.state, view.tokens, view.meter.errors),
        (LimitState::Invalid, 1, 1)
    );
    assert_eq!(view.limit, Limit::new(10, 2));
    assert_eq!(a.configure(limited(10, 2), 0), Change::Same);
    assert_eq!(a.view(100 * MS).state, LimitState::Bursting);
    assert_eq!(a.view(0).meter.changes, 0);
}

#[test]
fn invalid_keys_at_the_start_are_unlimited_and_invalid() {
    let mut a = Admission::unlimited();
    assert_eq!(
        a.start(Setting::Invalid, None, 0),
        Change::Refused { first: true }
    );
    assert_eq!(a.view(0).state, LimitState::Invalid);
    assert_eq!(a.take(None, 0, 1, 0), Take::Free);
}

#[test]
fn a_bucket_size_alone_is_incomplete() {
    let mut a = started(Setting::Incomplete);
    assert_eq!(a.view(0).state, LimitState::Incomplete);
    assert_eq!(a.take(None, 0, 1, 0), Take::Free);
    assert_eq!(a.configure(Setting::Unlimited, 0), Change::Applied);
    assert_eq!(a.view(0).state, LimitState::Unlimited);
}

#[test]
fn requests_of_a_detach_are_charged() {
    let mut a = started(limited(10, 1));
    assert!(a.charge(&mut None, 32, 0).is_some());
    assert_eq!(a.view(0).tokens, -31);
    assert_eq!(a.take(None, 0, 1, 0), Take::Wait);
    assert_eq!(a.next(0), TimerAction::ArmAt(3200 * MS));
}

#[test]
fn tokens_given_back_are_available_again() {
    let mut a = started(limited(10, 10));
    let charge = a.payers(&None);
    assert_eq!(a.take(None, 0, 10, 0), Take::Tokens(10));
    a.give_back(None, 4, charge);
    assert_eq!(a.view(0).tokens, 4);
    assert_eq!(a.spent(), 6);
}

#[test]
fn only_the_charged_bucket_gets_tokens_back() {
    let mut a = started(limited(10, 10));
    let charge = a.payers(&None);
    assert_eq!(a.take(None, 0, 10, 0), Take::Tokens(10));
    a.configure(Setting::Unlimited, 0);
    a.configure(limited(10, 10), 0);
    a.give_back(None, 4, charge);
    assert_eq!(a.view(0).tokens, 1);
}

#[test]
fn only_the_charged_cap_gets_tokens_back() {
    let cap_tokens = |capped_before: bool| {
        let mut a = started(limited(10, 10));
        let mut cap = Cap::new();
        if capped_before {
            cap.request(0, Limit::new(100, 100), 0);
        }
        let charge = a.payers(&Some((&mut cap, 0)));
        assert_eq!(a.take(Some((&mut cap, 0)), 0, 10, 0), Take::Tokens(10));
        cap.request(0, Limit::new(100, 90), 0);
        a.give_back(Some((&mut cap, 0)), 4, charge);
        cap.tokens(0)
    };
    assert_eq!(cap_tokens(true), 4);
    assert_eq!(cap_tokens(false), 10);
}

#[test]
fn a_busy_ring_does_not_block_the_cap() {
    // If a third ring waits, the ring that is served in part stays next.
    for (rings, next) in [(2, TimerAction::Stop), (3, TimerAction::Wake(1))] {
        let mut a = started(Setting::Unlimited);
        let mut cap = Cap::new();
        cap.request(0, Limit::new(20_000, 3), 0);
        for ring in 0..rings {
            assert_ne!(a.take(Some((&mut cap, 0)), ring, 3, 0), Take::Free);
        }
        let later = 100_000;
        assert!(a.release_from_cap(true, later));
        assert_eq!(a.take(Some((&mut cap, 0)), 1, 9, later), Take::Tokens(2));
        assert_eq!(a.next(later), next);
        // The ring may be busy for long. Other disks can use the cap until it asks again.
        assert!(!a.release_from_cap(true, later));
        assert_eq!(a.take(Some((&mut cap, 0)), 1, 7, later), Take::Wait);
        assert!(a.release_from_cap(true, later));
    }
}

#[test]
fn no_ring_stays_busy_when_the_last_limit_is_removed() {
    let mut a = started(Setting::Unlimited);
    let mut cap = Cap::new();
    cap.request(0, Limit::new(10, 10), 0);
    assert_eq!(a.take(Some((&mut cap, 0)), 0, 1, 0), Take::Tokens(1));
    assert!(!a.is_idle());
    a.release_from_cap(false, 0);
    assert!(a.is_idle());
}

#[test]
fn a_ring_that_asks_without_a_cap_is_not_blocked_by_one() {
    let mut a = started(limited(10, 1));
    let mut cap = Cap::new();
    cap.request(0, Limit::new(1, 1), 0);
    cap.charge(1, 0);
    assert_eq!(a.take(Some((&mut cap, 0)), 1, 1, 0), Take::Wait);
    a.leave(1, 0);
    a.charge(&mut None, 1, 0);
    assert_eq!(a.take(None, 0, 1, 0), Take::Wait);
    assert_eq!(a.next(100 * MS), TimerAction::Wake(0));
}

#[test]
fn the_published_state_does_not_show_whether_a_ring_waits() {
    let mut a = started(limited(1, 1));
    a.take(None, 0, 1, 0);
    a.take(None, 0, 1, 0);
    assert_eq!(a.view(0).published, "limited");
    a.configure(Setting::Invalid, 0);
    assert_eq!(a.view(0).published, "invalid");
    // The ring that waited has not asked again yet.
    a.configure(Setting::Incomplete, 0);
    assert_eq!(
        (a.view(0).state, a.view(0).published),
        (LimitState::Throttled, "incomplete")
    );
    a.configure(Setting::Unlimited, 0);
    assert_eq!(
        (a.view(0).state, a.view(0).published),
        (LimitState::Throttled, "unlimited")
    );
}
