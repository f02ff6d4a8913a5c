// SPDX-License-Identifier: GPL-2.0

//! A frontend and a toolstack that do anything in any order, also between two steps of the
//! backend.

use rblkback_logic::lifecycle::Frontend;
use rblkback_logic::lifecycle::Phase;
use rblkback_logic::lifecycle::Seen;
use rblkback_logic::lifecycle::Step;
use rblkback_logic::lifecycle::decide;

use crate::input::Input;

/// The largest number of steps without another event.
const STEPS_MAX: u32 = 4;

/// The model of a device.
struct Device {
    phase: Phase,
    seen: Seen,
    /// The next attempt to connect fails.
    fails: bool,
    mapped: bool,
    in_flight: u32,
    /// The device mapped a ring and released it.
    was_released: bool,
}

pub fn run(data: &[u8]) -> bool {
    let mut input = Input::new(data);
    let mut device = Device::new();
    while !input.is_empty() {
        let event = input.u8();
        device.happen(event & 15, &mut input);
        // One step, or steps until there is nothing to do.
        match event & 16 {
            0 => device.run_to_rest(),
            _ => drop(device.step()),
        }
    }
    device.run_to_rest();
    device.check_removal();
    device.was_released
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
            was_released: false,
        }
    }

    fn happen(&mut self, event: u8, input: &mut Input<'_>) {
        match event {
            0 => self.seen.frontend = Frontend::parse(Some(input.text(12))),
            1 => self.seen.frontend = Frontend::Gone,
            2 => self.seen.disk = input.flag(),
            3 => self.seen.online = input.flag(),
            4 => self.fails = input.flag(),
            // The driver stays unbound: binding makes a new device.
            5 => self.seen.unbound |= input.u8() > 200,
            6 | 7 => self.consume(),
            8 | 9 => self.respond(),
            10 => self.seen.disk = true,
            _ => self.seen.frontend = Frontend::parse(Some(&[b'0' + input.up_to(9)])),
        }
    }

    /// Consumes a request, if the ring is served.
    fn consume(&mut self) {
        if self.phase == Phase::Connected {
            self.in_flight += 1;
            self.seen.drained = false;
        }
    }

    fn respond(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.seen.drained = self.in_flight == 0;
    }

    fn run_to_rest(&mut self) {
        for _ in 0..=STEPS_MAX {
            if !self.step() {
                return;
            }
        }
        panic!("no rest in {:?} with {:?}", self.phase, self.seen);
    }

    /// Carries out one step. Returns false if there is nothing to do.
    fn step(&mut self) -> bool {
        let step = decide(self.phase, &self.seen);
        if self.phase == Phase::Leaving || self.seen.unbound {
            let allowed = matches!(step, Step::Rest | Step::Stop | Step::Release);
            assert!(allowed, "{step:?} after unregister or unbind");
        }
        match step {
            Step::Rest => return false,
            Step::AnnounceClosing => {
                assert_eq!(self.seen.frontend, Frontend::Closing);
                // The same state is not written again.
                return false;
            }
            Step::Offer => self.enter(Phase::Waiting),
            Step::Connect => self.connect(),
            Step::Stop => {
                assert_eq!(self.phase, Phase::Connected);
                self.phase = Phase::Draining;
            }
            Step::Release => self.release(),
            Step::AnnounceClosed => self.enter(Phase::Closed),
            Step::Unregister => self.enter(Phase::Leaving),
        }
        true
    }

    fn connect(&mut self) {
        let Seen { disk, online, .. } = self.seen;
        assert!(disk && online, "connected with {:?}", self.seen);
        if self.fails {
            self.enter(Phase::Failed);
        } else {
            self.enter(Phase::Connected);
            self.mapped = true;
        }
    }

    fn release(&mut self) {
        assert_eq!(self.phase, Phase::Draining);
        assert_eq!(self.in_flight, 0, "unmapped in use");
        assert!(self.mapped, "unmapped twice");
        self.mapped = false;
        self.was_released = true;
        self.enter(Phase::Closed);
    }

    /// Enters a phase in which nothing is mapped.
    fn enter(&mut self, phase: Phase) {
        assert!(!self.mapped, "{phase:?} while mapped");
        assert_eq!(self.in_flight, 0, "{phase:?} with requests in flight");
        self.phase = phase;
    }

    /// Checks that all rings can be unmapped and the device removed, after the guest is gone, its
    /// requests have responses, and the toolstack detaches the disk.
    fn check_removal(&mut self) {
        self.seen.frontend = Frontend::Gone;
        self.seen.online = false;
        self.run_to_rest();
        while self.in_flight > 0 {
            assert!(self.mapped);
            self.respond();
            self.run_to_rest();
        }
        assert!(!self.mapped);
        assert!(self.seen.unbound || self.phase == Phase::Leaving);
    }
}
