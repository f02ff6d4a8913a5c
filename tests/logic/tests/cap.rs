// SPDX-License-Identifier: GPL-2.0

//! The disks of one guest under a cap, each with a limit of its own or none.
//!
//! A simulated host does around [`Cap`] and [`Admission`] what the module does: it
//! asks, does what each `next` says, and comes back when told to. Held to: nobody is
//! forgotten, the bound of the cap and of each disk in every window, nothing lost
//! while all wait, equal shares.

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

struct DiskView {
    admission: Admission,
    backlog: [u32; RINGS],
    limit: Option<Limit>,
}

struct World {
    cap: Cap,
    disks: Vec<DiskView>,
    now: u64,
    /// DiskView, time, tokens.
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
            world.disks.push(DiskView {
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
                // Without a limit of any kind nothing wakes a ring but this.
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

    /// The worker of a ring looks. True if it got anything, or wants nothing.
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

    /// Does what there is to do now.
    fn settle(&mut self) {
        for round in 0.. {
            assert!(round < 10_000, "it never comes to rest");
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

    /// When there is something to do next.
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
            assert!(at > self.now, "told to come back at a time gone by");
            self.now = at;
            self.settle();
        }
        let waits = self.disks.iter().any(|disk| disk.backlog != [0; RINGS]);
        assert!(!waits || self.next().is_some(), "somebody is forgotten");
        self.now = self.now.max(then);
    }

    /// In no window more than the bound, for what `which` selects.
    fn check_bound(&self, limit: Limit, which: impl Fn(usize) -> bool) {
        let mut level = i128::from(limit.max()) * NANO;
        let most = level;
        let mut last = 0;
        // A bucket of the bound's size that is refilled at the rate never runs dry.
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
    Pass(u64),
}

fn events(disks: usize) -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        5 => (0..disks, 0..RINGS, 1u32..100).prop_map(|(d, r, n)| Event::Arrive(d, r, n)),
        1 => (0..disks, 0..RINGS).prop_map(|(d, r)| Event::Close(d, r)),
        1 => (0..disks, maybe()).prop_map(|(d, w)| Event::Request(d, w)),
        1 => (0..disks, maybe()).prop_map(|(d, l)| Event::Set(d, l)),
        4 => (0u64..2 * SECOND).prop_map(Event::Pass),
    ];
    vec(event, 1..60)
}

proptest! {
    #![proptest_config(cases(60))]

    #[test]
    fn nobody_is_forgotten_whatever_happens(
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
                Event::Pass(time) => {
                    let then = world.now + time;
                    world.run(then);
                }
            }
        }
        // And all of it gets through in the end.
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
    fn backlogged_disks_share_the_whole_cap_equally(
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
        // At high rates the timer gathers a millisecond's tokens.
        let batch = u64::from(host::batch(cap));
        prop_assert!((due - batch..=due).contains(&all), "{all} of {due}");
        // The first burst goes to who came first.
        let (most, least) = (totals.iter().max().unwrap(), totals.iter().min().unwrap());
        prop_assert!(most - least <= u64::from(cap.max()) + 32, "{totals:?}");
    }

    #[test]
    fn a_disk_that_gets_a_limit_while_it_waits_makes_way(
        cap in (100u32..3000).prop_map(|refill| limit(refill, 10)),
    ) {
        let mut world = World::new(Some(cap), &[None, None]);
        for disk in 0..2 {
            world.arrive(disk, 0, 1_000_000);
        }
        world.run(SECOND);
        // It holds the first place, perhaps, and has nothing of its own for a second.
        world.set(0, Some(limit(1, 1)));
        let before = world.total(1);
        world.run(2 * SECOND - 1);
        let got = world.total(1) - before;
        let due = u64::from(cap.refill());
        prop_assert!(got + 40 >= due, "{got} of {due}");
    }

    #[test]
    fn a_disk_held_by_its_own_limit_keeps_no_other_from_the_cap(
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
