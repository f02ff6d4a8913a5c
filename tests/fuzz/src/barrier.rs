// SPDX-License-Identifier: GPL-2.0

//! The rings of a disk, run in any order, with barriers among their requests.
//!
//! A ring calls [`Barrier`] as `datapath` does. It consumes requests until it finds a
//! barrier or a barrier is active. It begins its pending barrier, reports when it is
//! drained, and wakes the owner when the last ring is drained.

use std::collections::VecDeque;

use rblkback_logic::barrier::Barrier;

use crate::input::Input;

#[derive(Clone, Default)]
struct Ring {
    /// The unread requests; true: a barrier.
    unread: VecDeque<bool>,
    in_flight: u32,
    /// The ring has consumed a barrier and not submitted it.
    pending: bool,
    awake: bool,
}

struct Disk {
    barrier: Barrier,
    rings: Vec<Ring>,
    /// The ring whose barrier is in flight.
    submitted: Option<usize>,
    completed: u32,
}

pub fn run(data: &[u8]) -> bool {
    let mut input = Input::new(data);
    let rings = input.pick([1, 2, 3, 4, 8, 63, 64]);
    let mut disk = Disk {
        barrier: Barrier::new(rings as u32),
        rings: vec![Ring::default(); rings],
        submitted: None,
        completed: 0,
    };
    let mut queued = 0;
    while !input.is_empty() {
        let event = input.u8();
        let ring = usize::from(input.u8()) % rings;
        match event % 8 {
            0..=2 => queued += disk.enqueue(ring, event > 160),
            3 | 4 => disk.complete(ring),
            // Also a spurious wakeup.
            _ => disk.work(ring),
        }
    }
    disk.run_to_rest();
    assert_eq!(disk.completed, queued, "a barrier never completes");
    queued > 0
}

impl Disk {
    /// The guest queues a request and sends an event. Returns the number of queued barriers.
    fn enqueue(&mut self, ring: usize, is_barrier: bool) -> u32 {
        self.rings[ring].unread.push_back(is_barrier);
        self.rings[ring].awake = true;
        u32::from(is_barrier)
    }

    fn complete(&mut self, ring: usize) {
        let here = &mut self.rings[ring];
        if here.in_flight == 0 {
            return;
        }
        here.in_flight -= 1;
        here.awake = true;
        if self.submitted == Some(ring) {
            self.submitted = None;
            self.completed += 1;
            self.barrier.end(ring as u8);
            assert!(!self.barrier.is_active());
            self.wake_all();
        }
    }

    fn work(&mut self, ring: usize) {
        self.rings[ring].awake = false;
        while !self.rings[ring].pending && !self.barrier.is_active() {
            let Some(is_barrier) = self.rings[ring].unread.pop_front() else {
                break;
            };
            assert_eq!(self.submitted, None, "a request overtakes a barrier");
            match is_barrier {
                true => self.rings[ring].pending = true,
                false => self.rings[ring].in_flight += 1,
            }
        }
        let was_active = self.barrier.is_active();
        if self.rings[ring].pending && !was_active && self.barrier.begin(ring as u8) {
            self.wake_all();
        }
        if self.barrier.is_active() && self.rings[ring].in_flight == 0 {
            if let Some(owner) = self.barrier.drained(ring as u8) {
                self.rings[usize::from(owner)].awake = true;
            }
        }
        if self.rings[ring].pending && self.barrier.may_submit(ring as u8) {
            self.submit(ring);
        }
    }

    fn submit(&mut self, ring: usize) {
        let in_flight: u32 = self.rings.iter().map(|ring| ring.in_flight).sum();
        assert_eq!(in_flight, 0, "a barrier is not alone in flight");
        assert_eq!(self.submitted.replace(ring), None, "two barriers in flight");
        self.rings[ring].pending = false;
        self.rings[ring].in_flight = 1;
    }

    fn wake_all(&mut self) {
        self.rings.iter_mut().for_each(|ring| ring.awake = true);
    }

    /// Completes every request in flight, and runs every ring that is awake.
    fn run_to_rest(&mut self) {
        loop {
            let next = |ring: &Ring| ring.awake || ring.in_flight > 0;
            let Some(ring) = self.rings.iter().position(next) else {
                return;
            };
            self.complete(ring);
            self.work(ring);
        }
    }
}
