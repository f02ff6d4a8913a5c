// SPDX-License-Identifier: GPL-2.0

//! The rings of a disk, run in any order, with barriers among their requests.
//!
//! A ring here does what `datapath` does around [`Barrier`]: it takes requests until it
//! finds a barrier or the disk is claimed, claims the disk for the barrier that it keeps,
//! says so when nothing of it is in flight, and wakes whom it is told to wake.

use std::collections::VecDeque;

use rblkback_logic::barrier::Barrier;

use crate::input::Input;

#[derive(Clone, Default)]
struct Ring {
    /// What the guest put there; true: a barrier.
    unread: VecDeque<bool>,
    in_flight: u32,
    /// A barrier that was taken and waits.
    kept: bool,
    awake: bool,
}

struct Disk {
    barrier: Barrier,
    rings: Vec<Ring>,
    /// The ring whose barrier is on the disk.
    passing: Option<usize>,
    passed: u32,
}

pub fn run(data: &[u8]) -> bool {
    let mut input = Input::new(data);
    let rings = input.pick([1, 2, 3, 4, 8, 63, 64]);
    let mut disk = Disk {
        barrier: Barrier::new(rings as u32),
        rings: vec![Ring::default(); rings],
        passing: None,
        passed: 0,
    };
    let mut put = 0;
    while !input.is_empty() {
        let event = input.u8();
        let ring = usize::from(input.u8()) % rings;
        match event % 8 {
            0..=2 => put += disk.put(ring, event > 160),
            3 | 4 => disk.answer(ring),
            // Also for no reason.
            _ => disk.work(ring),
        }
    }
    disk.come_to_rest();
    assert_eq!(disk.passed, put, "a barrier waits for ever");
    put > 0
}

impl Disk {
    /// The guest's event wakes its ring. Returns how many barriers it put there.
    fn put(&mut self, ring: usize, is_barrier: bool) -> u32 {
        self.rings[ring].unread.push_back(is_barrier);
        self.rings[ring].awake = true;
        u32::from(is_barrier)
    }

    fn answer(&mut self, ring: usize) {
        let here = &mut self.rings[ring];
        if here.in_flight == 0 {
            return;
        }
        here.in_flight -= 1;
        here.awake = true;
        if self.passing == Some(ring) {
            self.passing = None;
            self.passed += 1;
            self.barrier.end(ring as u8);
            assert!(!self.barrier.is_active());
            self.wake_all();
        }
    }

    fn work(&mut self, ring: usize) {
        self.rings[ring].awake = false;
        while !self.rings[ring].kept && !self.barrier.is_active() {
            let Some(is_barrier) = self.rings[ring].unread.pop_front() else {
                break;
            };
            assert_eq!(self.passing, None, "overtaken");
            match is_barrier {
                true => self.rings[ring].kept = true,
                false => self.rings[ring].in_flight += 1,
            }
        }
        let was_active = self.barrier.is_active();
        if self.rings[ring].kept && !was_active && self.barrier.begin(ring as u8) {
            self.wake_all();
        }
        if self.barrier.is_active() && self.rings[ring].in_flight == 0 {
            if let Some(owner) = self.barrier.drained(ring as u8) {
                self.rings[usize::from(owner)].awake = true;
            }
        }
        if self.rings[ring].kept && self.barrier.may_submit(ring as u8) {
            self.send(ring);
        }
    }

    fn send(&mut self, ring: usize) {
        let in_flight: u32 = self.rings.iter().map(|ring| ring.in_flight).sum();
        assert_eq!(in_flight, 0, "not alone on the disk");
        assert_eq!(self.passing.replace(ring), None, "two at once");
        self.rings[ring].kept = false;
        self.rings[ring].in_flight = 1;
    }

    fn wake_all(&mut self) {
        self.rings.iter_mut().for_each(|ring| ring.awake = true);
    }

    /// Everything on the disk is answered, and whoever was woken runs.
    fn come_to_rest(&mut self) {
        loop {
            let next = |ring: &Ring| ring.awake || ring.in_flight > 0;
            let Some(ring) = self.rings.iter().position(next) else {
                return;
            };
            self.answer(ring);
            self.work(ring);
        }
    }
}
