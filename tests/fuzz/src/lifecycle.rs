// SPDX-License-Identifier: GPL-2.0

//! A frontend and a toolstack that do anything in any order, also between two steps of
//! ours.

use rblkback_logic::lifecycle::Frontend;
use rblkback_logic::lifecycle::Phase;
use rblkback_logic::lifecycle::Seen;
use rblkback_logic::lifecycle::Step;
use rblkback_logic::lifecycle::decide;

use crate::input::Input;

/// More steps than it takes to come to rest while nothing else happens.
const STEPS_MOST: u32 = 4;

/// A device, and what is true of it.
struct Device {
    phase: Phase,
    seen: Seen,
    /// The next connect will fail.
    fails: bool,
    mapped: bool,
    in_flight: u32,
    /// It served a ring and let go of it.
    was_released: bool,
}

pub fn run(data: &[u8]) -> bool {
    let mut input = Input::new(data);
    let mut device = Device::new();
    while !input.is_empty() {
        let event = input.u8();
        device.happen(event & 15, &mut input);
        // One step, or as many as it takes.
        match event & 16 {
            0 => device.come_to_rest(),
            _ => drop(device.step()),
        }
    }
    device.come_to_rest();
    device.can_be_left();
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
            // Nobody binds it again: that makes a new device.
            5 => self.seen.unbound |= input.u8() > 200,
            6 | 7 => self.take(),
            8 | 9 => self.answer(),
            10 => self.seen.disk = true,
            _ => self.seen.frontend = Frontend::parse(Some(&[b'0' + input.up_to(9)])),
        }
    }

    /// Only a ring that is served has requests taken off it.
    fn take(&mut self) {
        if self.phase == Phase::Connected {
            self.in_flight += 1;
            self.seen.drained = false;
        }
    }

    fn answer(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.seen.drained = self.in_flight == 0;
    }

    fn come_to_rest(&mut self) {
        for _ in 0..=STEPS_MOST {
            if !self.step() {
                return;
            }
        }
        panic!("no rest in {:?} with {:?}", self.phase, self.seen);
    }

    /// False: there is nothing to do.
    fn step(&mut self) -> bool {
        let step = decide(self.phase, &self.seen);
        if self.phase == Phase::Leaving || self.seen.unbound {
            let allowed = matches!(step, Step::Rest | Step::Stop | Step::Release);
            assert!(allowed, "{step:?} after the end");
        }
        match step {
            Step::Rest => return false,
            Step::AnnounceClosing => {
                assert_eq!(self.seen.frontend, Frontend::Closing);
                // Announced again it writes nothing.
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

    /// Whatever it announces, it holds nothing of the guest any more.
    fn enter(&mut self, phase: Phase) {
        assert!(!self.mapped, "{phase:?} while mapped");
        assert_eq!(self.in_flight, 0, "{phase:?} with requests in flight");
        self.phase = phase;
    }

    /// A guest that is gone leaves nothing behind, once its requests are answered and the toolstack
    /// wants the disk back.
    fn can_be_left(&mut self) {
        self.seen.frontend = Frontend::Gone;
        self.seen.online = false;
        self.come_to_rest();
        while self.in_flight > 0 {
            assert!(self.mapped);
            self.answer();
            self.come_to_rest();
        }
        assert!(!self.mapped);
        assert!(self.seen.unbound || self.phase == Phase::Leaving);
    }
}
