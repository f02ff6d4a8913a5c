// SPDX-License-Identifier: GPL-2.0

//! The disks of one guest under a cap, each with a limit of its own or none.
//!
//! A simulated host calls [`Cap`] and [`Admission`] as the module does, and carries out
//! every timer action. The tests check that every ring that waits is woken, that every
//! window keeps the bounds of the cap and of each disk, that no token is lost while all
//! disks wait, and that the disks get equal parts.

mod host;

use host::cases;
use host::limit;
use host::Dice;
use host::MS;
use host::NANO;
use host::SECOND;
use proptest::collection::vec;
use proptest::prelude::*;
use rblkback_logic::tokens::admission::Admission;
use rblkback_logic::tokens::admission::Take;
use rblkback_logic::tokens::cap::Cap;
use rblkback_logic::tokens::limits::Limit;
use rblkback_logic::tokens::limits::Setting;
use rblkback_logic::tokens::timer_action::TimerAction;

const RINGS: usize = 2;

struct Disk {
    admission: Admission,
    backlog: [u32; RINGS],
    limit: Option<Limit>,
}

struct World {
    cap: Cap,
    disks: Vec<Disk>,
    now: u64,
    /// The disk, time and tokens of each admission.
    admitted: Vec<(usize, u64, u32)>,
}

impl World {
    fn new(cap: Option<Limit>, limits: &[Option<Limit>]) -> Self {
        let mut world = World {
            cap: Cap::new(),
            disks: Vec::new(),
            now: 0,
            admitted: Vec::new(),
        };
        world.cap.start(0, cap, None, 0);
        for limit in limits {
            let mut admission = Admission::unlimited();
            admission.start(setting(*limit), None, 0);
            world.disks.push(Disk {
                admission,
                backlog: [0; RINGS],
                limit: *limit,
            });
        }
        world
    }

    fn arrive(&mut self, disk: usize, ring: usize, count: u32) {
        self.disks[disk].backlog[ring] += count;
        self.work(disk, ring);
        self.settle();
    }

    /// The guest closes a ring.
    fn close(&mut self, disk: usize, ring: usize) {
        self.disks[disk].backlog[ring] = 0;
        self.leave(disk, ring);
        self.settle();
    }

    fn request(&mut self, disk: usize, limit: Option<Limit>) {
        if self.cap.request(disk as u8, limit, self.now) {
            for disk in 0..self.disks.len() {
                let capped = self.cap.limit().is_some();
                self.disks[disk]
                    .admission
                    .release_from_cap(capped, self.now);
                // Without any limit, only this wakes a ring.
                self.wake(disk);
            }
        }
        self.settle();
    }

    fn set(&mut self, disk: usize, limit: Option<Limit>) {
        self.disks[disk].limit = limit;
        self.disks[disk]
            .admission
            .configure(setting(limit), self.now);
        self.settle();
    }

    fn leave(&mut self, disk: usize, ring: usize) {
        let now = self.now;
        let admission = &mut self.disks[disk].admission;
        admission.leave(ring as u8, now);
        if admission.is_idle() {
            self.cap.leave(disk as u8, now);
        }
    }

    /// The worker of a ring asks for tokens. Returns true if a request was admitted, or if there
    /// is none.
    fn work(&mut self, disk: usize, ring: usize) -> bool {
        let mut got_any = false;
        loop {
            let left = self.disks[disk].backlog[ring];
            if left == 0 {
                self.leave(disk, ring);
                return true;
            }
            let cap_ref = Some((&mut self.cap, disk as u8));
            let take = self.disks[disk]
                .admission
                .take(cap_ref, ring as u8, left, self.now);
            let got = match take {
                Take::Free => left,
                Take::Tokens(got) => got,
                Take::Wait => return got_any,
            };
            assert!((1..=left).contains(&got));
            self.admitted.push((disk, self.now, got));
            self.disks[disk].backlog[ring] -= got;
            got_any = true;
        }
    }

    fn wake(&mut self, disk: usize) -> bool {
        match self.disks[disk].admission.next(self.now) {
            TimerAction::Wake(ring) => {
                self.work(disk, usize::from(ring));
                true
            }
            TimerAction::ArmAt(_) | TimerAction::Stop => false,
        }
    }

    /// Carries out timer actions until only timers are left.
    fn settle(&mut self) {
        for round in 0.. {
            assert!(round < 10_000, "the wakeups never end");
            let mut moved = false;
            for disk in 0..self.disks.len() {
                moved |= self.wake(disk);
            }
            while let TimerAction::Wake(disk) = self.cap.next(self.now) {
                let admission = &mut self.disks[usize::from(disk)].admission;
                if admission.release_from_cap(true, self.now) {
                    moved |= self.wake(usize::from(disk));
                    break;
                }
                self.cap.leave(disk, self.now);
            }
            if !moved {
                return;
            }
        }
    }

    /// The time of the next timer.
    fn next(&mut self) -> Option<u64> {
        let now = self.now;
        let disks = self.disks.iter_mut();
        let own = disks.filter_map(|disk| match disk.admission.next(now) {
            TimerAction::ArmAt(at) => Some(at),
            TimerAction::Stop | TimerAction::Wake(_) => None,
        });
        let of_cap = match self.cap.next(now) {
            TimerAction::ArmAt(at) => Some(at),
            TimerAction::Stop | TimerAction::Wake(_) => None,
        };
        own.chain(of_cap).min()
    }

    fn run(&mut self, then: u64) {
        while let Some(at) = self.next().filter(|at| *at <= then) {
            assert!(at > self.now, "the timer is set to a past time");
            self.now = at;
            self.settle();
        }
        let waits = self.disks.iter().any(|disk| disk.backlog != [0; RINGS]);
        assert!(!waits || self.next().is_some(), "a ring is never woken");
        self.now = self.now.max(then);
    }

    /// Checks that no window admits more than the bound, for the disks that `which` selects.
    fn check_bound(&self, limit: Limit, which: impl Fn(usize) -> bool) {
        let mut level = i128::from(limit.max()) * NANO;
        let most = level;
        let mut last = 0;
        // A bucket of the size of the bound, refilled at the rate, never gets empty.
        let slack = NANO + i128::from(limit.refill()) * i128::from(10 * MS);
        for (disk, at, count) in &self.admitted {
            if !which(*disk) {
                continue;
            }
            level = most.min(level + i128::from(at - last) * i128::from(limit.refill()));
            last = *at;
            level -= i128::from(*count) * NANO;
            assert!(level >= -slack, "more than the bound at {at}");
        }
    }

    fn total(&self, disk: usize) -> u64 {
        let of = self.admitted.iter().filter(|(other, ..)| *other == disk);
        of.map(|(_, _, count)| u64::from(*count)).sum()
    }
}

fn setting(limit: Option<Limit>) -> Setting {
    limit.map_or(Setting::Unlimited, Setting::Limited)
}

fn some_limit() -> impl Strategy<Value = Limit> {
    (1u32..3000, 1u32..200).prop_map(|(refill, max)| limit(refill, max))
}

fn maybe() -> impl Strategy<Value = Option<Limit>> {
    prop::option::of(some_limit())
}

#[derive(Clone, Debug)]
enum Event {
    Arrive(usize, usize, u32),
    Close(usize, usize),
    Request(usize, Option<Limit>),
    Set(usize, Option<Limit>),
    Advance(u64),
}

fn events(disks: usize) -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        5 => (0..disks, 0..RINGS, 1u32..100).prop_map(|(d, r, n)| Event::Arrive(d, r, n)),
        1 => (0..disks, 0..RINGS).prop_map(|(d, r)| Event::Close(d, r)),
        1 => (0..disks, maybe()).prop_map(|(d, w)| Event::Request(d, w)),
        1 => (0..disks, maybe()).prop_map(|(d, l)| Event::Set(d, l)),
        4 => (0u64..2 * SECOND).prop_map(Event::Advance),
    ];
    vec(event, 1..60)
}

proptest! {
    #![proptest_config(cases(60))]

    #[test]
    fn every_ring_that_waits_is_woken(
        cap in maybe(),
        limits in vec(maybe(), 4),
        events in events(4),
    ) {
        let mut world = World::new(cap, &limits);
        for event in events {
            match event {
                Event::Arrive(disk, ring, count) => world.arrive(disk, ring, count),
                Event::Close(disk, ring) => world.close(disk, ring),
                Event::Request(disk, limit) => world.request(disk, limit),
                Event::Set(disk, limit) => world.set(disk, limit),
                Event::Advance(time) => {
                    let then = world.now + time;
                    world.run(then);
                }
            }
        }
        // All requests are admitted in the end.
        while let Some(at) = world.next() {
            world.run(at);
        }
        prop_assert!(world.disks.iter().all(|disk| disk.backlog == [0; RINGS]));
    }

    #[test]
    fn the_bounds_hold_on_both_levels(
        cap in some_limit(),
        limits in vec(maybe(), 4),
        seed: u64,
    ) {
        let mut world = World::new(Some(cap), &limits);
        let mut dice = Dice(seed);
        for _ in 0..80 {
            let (disk, ring) = (dice.up_to(3) as usize, dice.up_to(1) as usize);
            world.arrive(disk, ring, 1 + dice.up_to(60) as u32);
            let then = world.now + dice.up_to(SECOND / 10);
            world.run(then);
        }
        world.check_bound(cap, |_| true);
        for (number, disk) in world.disks.iter().enumerate() {
            if let Some(limit) = disk.limit {
                world.check_bound(limit, |other| other == number);
            }
        }
    }

    #[test]
    fn backlogged_disks_get_equal_parts_of_the_cap(
        cap in some_limit(),
        count in 1usize..=8,
        rings in vec(1usize..=RINGS, 8),
    ) {
        let mut world = World::new(Some(cap), &vec![None; count]);
        for (disk, rings) in rings.iter().enumerate().take(count) {
            for ring in 0..*rings {
                world.disks[disk].backlog[ring] = 1_000_000;
                world.work(disk, ring);
            }
        }
        world.settle();
        world.run(8 * SECOND);
        let totals: Vec<u64> = (0..count).map(|disk| world.total(disk)).collect();
        let all: u64 = totals.iter().sum();
        let due = u64::from(cap.max()) + 8 * u64::from(cap.refill());
        // At high rates the timer waits for the tokens of a millisecond.
        let batch = u64::from(host::batch(cap));
        prop_assert!((due - batch..=due).contains(&all), "{all} of {due}");
        // The first disk gets the first burst.
        let (most, least) = (totals.iter().max().unwrap(), totals.iter().min().unwrap());
        prop_assert!(most - least <= u64::from(cap.max()) + 32, "{totals:?}");
    }

    #[test]
    fn a_disk_that_gets_a_limit_while_it_waits_does_not_block_others(
        cap in (100u32..3000).prop_map(|refill| limit(refill, 10)),
    ) {
        let mut world = World::new(Some(cap), &[None, None]);
        for disk in 0..2 {
            world.arrive(disk, 0, 1_000_000);
        }
        world.run(SECOND);
        // Disk 0 may be next in the queue of the cap, and has no token of its own for a second.
        world.set(0, Some(limit(1, 1)));
        let before = world.total(1);
        world.run(2 * SECOND - 1);
        let got = world.total(1) - before;
        let due = u64::from(cap.refill());
        prop_assert!(got + 40 >= due, "{got} of {due}");
    }

    #[test]
    fn a_disk_that_waits_for_its_own_limit_does_not_block_others(
        cap in (100u32..3000).prop_map(|refill| limit(refill, 10)),
    ) {
        let slow = limit(1, 1);
        let mut world = World::new(Some(cap), &[Some(slow), None]);
        for disk in 0..2 {
            world.arrive(disk, 0, 1_000_000);
        }
        world.run(10 * SECOND);
        prop_assert!(world.total(0) <= 12, "{}", world.total(0));
        let due = 10 * u64::from(cap.refill());
        prop_assert!(world.total(1) + 20 >= due, "{} of {due}", world.total(1));
    }
}
