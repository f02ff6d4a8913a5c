// SPDX-License-Identifier: GPL-2.0

//! Random schedules of events of a disk.

use super::limit;
use super::Host;
use super::MS;
use super::SECOND;
use proptest::collection::vec;
use proptest::prelude::*;
use rblkback_logic::tokens::limits::Limit;
use rblkback_logic::tokens::limits::Setting;
use rblkback_logic::tokens::limits::VALUE_MAX;

#[derive(Clone, Copy, Debug)]
pub enum Event {
    /// The guest puts requests on a ring.
    Arrive(u8, u32),
    /// The worker of a ring asks for tokens, with a time so many nanoseconds in the past.
    Ask(u8, u64),
    /// The guest disconnects a ring.
    Leave(u8),
    /// The guest disconnects all rings.
    LeaveAll,
    /// The administrator changes the keys.
    Set(Setting),
    /// A detach admits requests without tokens.
    Charge(u32),
    /// The administrator reads sysfs.
    Look,
}

/// Events, each after a delay in nanoseconds.
pub type Script = Vec<(u64, Event)>;

pub fn play(host: &mut Host, script: &Script) {
    for (gap, event) in script {
        host.run_until(host.now + gap);
        match *event {
            Event::Arrive(ring, count) => host.arrive(ring, count),
            Event::Ask(ring, ago) => host.ask(ring, host.now.saturating_sub(ago)),
            Event::Leave(ring) => host.leave(ring),
            Event::LeaveAll => host.leave_all(),
            Event::Charge(count) => host.charge(count),
            Event::Set(setting) => {
                host.set(setting);
            }
            Event::Look => {
                host.look();
            }
        }
    }
}

/// Any limit; extreme and usual limits more often.
pub fn limits() -> impl Strategy<Value = Limit> {
    let refill = prop_oneof![
        1..=10u32,
        900..=1100u32,
        prop::sample::select(vec![1, 100, 10_000, 100_000, 1_000_000, VALUE_MAX]),
        1..=VALUE_MAX,
    ];
    let max = prop_oneof![Just(0), Just(1), 1..=40u32, Just(VALUE_MAX), 1..=VALUE_MAX];
    (refill, max).prop_map(|(refill, max)| limit(refill, max))
}

pub fn settings() -> impl Strategy<Value = Setting> {
    prop_oneof![
        6 => limits().prop_map(Setting::Limited),
        2 => Just(Setting::Unlimited),
        1 => Just(Setting::Incomplete),
        1 => Just(Setting::Invalid),
    ]
}

/// Delays between two events in nanoseconds: none, and those typical of a thread, a timer, and an
/// administrator.
pub fn gaps() -> impl Strategy<Value = u64> {
    prop_oneof![
        3 => Just(0),
        3 => 0..2_000u64,
        4 => 0..2 * MS,
        4 => 0..300 * MS,
        3 => 0..5 * SECOND,
        1 => 0..1_000_000 * SECOND,
    ]
}

fn traffic(rings: u8) -> impl Strategy<Value = Event> {
    let ago = prop_oneof![Just(0), 0..50_000u64];
    prop_oneof![
        8 => (0..rings, 1..40u32).prop_map(|(ring, count)| Event::Arrive(ring, count)),
        3 => (0..rings, ago).prop_map(|(ring, ago)| Event::Ask(ring, ago)),
        1 => (0..rings).prop_map(Event::Leave),
        1 => Just(Event::Look),
    ]
}

/// Schedules of requests under a constant limit.
pub fn under_one_limit(rings: u8) -> impl Strategy<Value = Script> {
    vec((gaps(), traffic(rings)), 1..60)
}

/// Schedules of requests under limits that change.
pub fn under_any_limit(rings: u8) -> impl Strategy<Value = Script> {
    let event = prop_oneof![
        8 => traffic(rings),
        3 => settings().prop_map(Event::Set),
        1 => Just(Event::LeaveAll),
        1 => (1..600u32).prop_map(Event::Charge),
    ];
    vec((gaps(), event), 1..60)
}

/// The same schedule, without times in the past.
pub fn on_one_clock(mut script: Script) -> Script {
    for (_, event) in &mut script {
        if let Event::Ask(_, ago) = event {
            *ago = 0;
        }
    }
    script
}
