// SPDX-License-Identifier: GPL-2.0

//! Random sequences of frontend states: no ring is mapped twice, no ring is unmapped while
//! it is in use, and every sequence of steps ends.

mod host;

use host::cases;
use proptest::collection::vec;
use proptest::prelude::*;
use rblkback_logic::lifecycle::decide;
use rblkback_logic::lifecycle::Frontend;
use rblkback_logic::lifecycle::Phase;
use rblkback_logic::lifecycle::Seen;
use rblkback_logic::lifecycle::Step;

/// The largest number of steps after one event.
const STEPS_MAX: u32 = 4;

#[derive(Clone, Copy, Debug)]
enum Event {
    /// The frontend writes this number to its `state` key.
    State(u32),
    /// The frontend writes this text to its `state` key.
    Text(&'static str),
    /// The directory of the frontend is removed.
    Vanish,
    /// The backing device is opened, or lost.
    Disk(bool),
    /// The toolstack writes the key `online`.
    Online(bool),
    /// The driver is unbound.
    Unbind,
    /// The next attempts to connect fail, or succeed.
    Fail(bool),
    /// The backend consumes requests, if the ring is served.
    Take(u32),
    /// The backend writes responses.
    Done(u32),
}

/// The model of a device.
#[derive(Clone)]
struct Device {
    phase: Phase,
    seen: Seen,
    fails: bool,
    mapped: bool,
    in_flight: u32,
}

impl Device {
    fn new() -> Self {
        let seen = Seen {
            frontend: Frontend::Initialising,
            disk: false,
            online: true,
            drained: true,
            unbound: false,
        };
        Self {
            phase: Phase::Waiting,
            seen,
            fails: false,
            mapped: false,
            in_flight: 0,
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::State(state) => self.read(Some(&state.to_string())),
            Event::Text(text) => self.read(Some(text)),
            Event::Vanish => self.read(None),
            Event::Disk(disk) => self.seen.disk = disk,
            Event::Online(online) => self.seen.online = online,
            Event::Unbind => self.seen.unbound = true,
            Event::Fail(fails) => self.fails = fails,
            Event::Take(count) if self.phase == Phase::Connected => self.in_flight += count,
            Event::Take(_) => {}
            Event::Done(count) => self.in_flight = self.in_flight.saturating_sub(count),
        }
        self.seen.drained = self.in_flight == 0;
        self.run_to_rest();
    }

    fn read(&mut self, text: Option<&str>) {
        self.seen.frontend = Frontend::parse(text.map(str::as_bytes));
    }

    fn run_to_rest(&mut self) {
        for _ in 0..=STEPS_MAX {
            match decide(self.phase, &self.seen) {
                // A state that is announced again is not written. The caller stops here.
                Step::Rest | Step::AnnounceClosing => return,
                step => self.take(step),
            }
        }
        panic!("no rest in {:?} with {:?}", self.phase, self.seen);
    }

    /// Whether the backend asked for the removal of the device.
    fn is_gone(&self) -> bool {
        self.phase == Phase::Leaving
    }

    fn take(&mut self, step: Step) {
        assert!(!self.is_gone(), "{step:?} after unregister");
        self.phase = match step {
            Step::Rest | Step::AnnounceClosing => self.phase,
            Step::Offer => self.unused(Phase::Waiting),
            Step::Connect if self.fails => self.unused(Phase::Failed),
            Step::Connect => {
                assert!(self.seen.disk, "connected without a disk");
                assert!(
                    self.seen.online && !self.seen.unbound,
                    "connected while detached"
                );
                self.unused(Phase::Connected)
            }
            Step::Stop => {
                assert_eq!(self.phase, Phase::Connected);
                Phase::Draining
            }
            Step::Release => {
                assert_eq!(
                    (self.phase, self.in_flight),
                    (Phase::Draining, 0),
                    "released in use"
                );
                assert!(self.mapped, "released twice");
                self.mapped = false;
                Phase::Closed
            }
            Step::AnnounceClosed => self.unused(Phase::Closed),
            Step::Unregister => self.unused(Phase::Leaving),
        };
        self.mapped = matches!(self.phase, Phase::Connected | Phase::Draining);
    }

    /// Returns `next`, a phase that a device may enter only without mapped rings.
    fn unused(&self, next: Phase) -> Phase {
        assert!(!self.mapped, "{next:?} while mapped");
        assert_eq!(self.in_flight, 0, "{next:?} with requests in flight");
        next
    }

    /// The guest enters `states` in order, while the backend has no error.
    fn correct_guest(&mut self, states: &[u32]) {
        let no_error = [Event::Disk(true), Event::Online(true), Event::Fail(false)];
        no_error.into_iter().for_each(|event| self.happen(event));
        for state in states {
            self.happen(Event::State(*state));
            self.happen(Event::Done(u32::MAX));
        }
    }
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let junk = prop::sample::select(vec!["", "-1", "text", "4 ", "06", "99999999999"]);
    let event = prop_oneof![
        12 => (0..10u32).prop_map(Event::State),
        1 => any::<u32>().prop_map(Event::State),
        1 => junk.prop_map(Event::Text),
        1 => Just(Event::Vanish),
        3 => any::<bool>().prop_map(Event::Disk),
        2 => any::<bool>().prop_map(Event::Online),
        1 => any::<bool>().prop_map(Event::Fail),
        4 => (1..5u32).prop_map(Event::Take),
        6 => (1..9u32).prop_map(Event::Done),
    ];
    vec(event, 0..60)
}

fn after_events(events: Vec<Event>) -> Device {
    let mut device = Device::new();
    device.happen(Event::Disk(true));
    for event in events {
        device.happen(event);
    }
    device
}

proptest! {
    #![proptest_config(cases(3000))]

    #[test]
    fn any_sequence_of_states_keeps_the_order(events in events()) {
        after_events(events);
    }

    #[test]
    fn the_same_guest_can_always_connect_again(events in events()) {
        let device = after_events(events);
        // With and without closing first: a guest may start another kernel.
        for states in [&[6, 1, 3, 4][..], &[5, 6, 1, 3], &[1, 3, 4], &[1, 4]] {
            let mut device = device.clone();
            let was_gone = device.is_gone();
            device.correct_guest(states);
            let served = device.phase == Phase::Connected;
            prop_assert!(was_gone || served, "{:?} after {states:?}", device.phase);
        }
    }

    #[test]
    fn a_guest_that_disappears_leaves_no_ring_mapped(events in events()) {
        let mut device = after_events(events);
        device.happen(Event::Vanish);
        device.happen(Event::Done(u32::MAX));
        prop_assert!(!device.mapped);
        // Only the toolstack removes the device.
        device.happen(Event::Online(false));
        prop_assert!(device.is_gone());
    }

    #[test]
    fn a_detached_disk_is_unregistered_once_the_guest_closed_it(events in events()) {
        let mut device = after_events(events);
        let detach = [Event::Online(false), Event::State(5), Event::State(6)];
        detach.into_iter().for_each(|event| device.happen(event));
        device.happen(Event::Done(u32::MAX));
        prop_assert!(device.is_gone() && !device.mapped);
    }

    #[test]
    fn a_detached_disk_that_no_guest_uses_is_unregistered(events in events()) {
        let mut device = after_events(events);
        device.happen(Event::State(1));
        device.happen(Event::Online(false));
        device.happen(Event::Done(u32::MAX));
        prop_assert!(device.is_gone() && !device.mapped);
    }

    #[test]
    fn an_unbound_driver_unmaps_all_rings_and_maps_none(
        before in events(),
        after in events(),
    ) {
        let mut device = after_events(before);
        device.happen(Event::Unbind);
        for event in after {
            let mapped = device.mapped;
            device.happen(event);
            prop_assert!(mapped || !device.mapped, "mapped after unbind");
        }
        device.happen(Event::Done(u32::MAX));
        prop_assert!(!device.mapped);
    }
}

fn explore(device: &Device, events: &[Event], depth: u32) -> u32 {
    if depth == 0 || device.is_gone() {
        let mut device = device.clone();
        device.happen(Event::Done(u32::MAX));
        return 1;
    }
    let after = |event: &Event, done: u32| {
        let mut device = device.clone();
        device.happen(*event);
        device.happen(Event::Take(2));
        device.happen(Event::Done(done));
        explore(&device, events, depth - 1)
    };
    events
        .iter()
        .map(|event| after(event, 0) + after(event, 2))
        .sum()
}

#[test]
fn every_sequence_of_four_states_keeps_the_order() {
    let numbers = [0, 1, 2, 3, 4, 5, 6, 7, 8, 99].map(Event::State);
    let others = [Event::Text("text"), Event::Text(""), Event::Vanish];
    let events: Vec<_> = numbers.into_iter().chain(others).collect();
    let mut device = Device::new();
    device.happen(Event::Disk(true));
    assert!(explore(&device, &events, 4) > 10_000);
}
