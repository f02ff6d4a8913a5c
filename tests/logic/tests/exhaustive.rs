// SPDX-License-Identifier: GPL-2.0

//! Every schedule of five steps of two rings, for every small limit.
//!
//! There are twelve limits (refill 1 to 4 per second, bucket 1 to 3), two initial states (a
//! full bucket, and an empty one with both rings waiting) and ten kinds of steps: 2.4
//! million schedules. After each step the test checks the bound of the ledger, that no ring
//! overtook another, and that no ring was refused an available token. After the last step it
//! checks that every ring that waits is served as soon as the refill allows.

mod host;

use host::leave;
use host::ledger::Ledger;
use host::limit;
use host::started;
use host::NANO;
use host::SECOND;
use rblkback_logic::tokens::admission::Admission;
use rblkback_logic::tokens::admission::Take;
use rblkback_logic::tokens::limits::Limit;
use rblkback_logic::tokens::limits::Setting;
use rblkback_logic::tokens::timer_action::TimerAction;

const DEPTH: u32 = 5;

#[derive(Clone, Copy, Debug)]
enum Step {
    Ask(u8, u32),
    Leave(u8),
    Advance(u64),
    /// Advance to the time of the timer, and wake the ring.
    Timer,
    /// Change to the other limit, or back.
    Switch,
    Off,
}

const STEPS: [Step; 10] = [
    Step::Ask(0, 1),
    Step::Ask(0, 2),
    Step::Ask(1, 1),
    Step::Ask(1, 2),
    Step::Leave(0),
    Step::Advance(SECOND / 4),
    Step::Advance(SECOND / 3 + 1),
    Step::Timer,
    Step::Switch,
    Step::Off,
];

#[derive(Clone)]
struct World {
    admission: Admission,
    ledger: Ledger,
    now: u64,
    limit: Option<Limit>,
    other: Limit,
    /// The rings that wait, in order.
    queue: Vec<u8>,
    /// Nano-tokens of refill since a ring was last served, or since the limit began.
    brought: i128,
}

impl World {
    fn new(limit: Limit, other: Limit) -> Self {
        let admission = started(Setting::Limited(limit));
        let mut ledger = Ledger::new(Some(limit));
        ledger.keep_entries = false;
        Self {
            admission,
            ledger,
            now: 0,
            limit: Some(limit),
            other,
            queue: Vec::new(),
            brought: 0,
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Ask(ring, count) => self.ask(ring, count),
            Step::Leave(ring) => {
                leave(&mut self.admission, ring, self.now);
                self.queue.retain(|other| *other != ring);
            }
            Step::Advance(time) => self.advance(time),
            Step::Timer => self.timer(),
            Step::Switch => self.switch(),
            Step::Off => self.set(None),
        }
    }

    fn advance(&mut self, time: u64) {
        self.now += time;
        if let Some(limit) = self.limit {
            self.brought += i128::from(time) * i128::from(limit.refill());
        }
    }

    /// The worker of `ring` asks until it has to wait or no request is left.
    fn ask(&mut self, ring: u8, mut left: u32) {
        while left > 0 {
            left -= match self.admission.take(None, ring, left, self.now) {
                Take::Free => {
                    assert!(
                        self.limit.is_none(),
                        "admitted without tokens under a limit"
                    );
                    left
                }
                Take::Tokens(got) => {
                    assert!(self.is_next(ring), "{ring} overtook {:?}", self.queue);
                    assert!((1..=left).contains(&got));
                    self.ledger.admit(ring, got, self.now);
                    self.brought = 0;
                    got
                }
                Take::Wait => return self.wait(ring),
            };
            self.queue.retain(|other| *other != ring);
        }
        leave(&mut self.admission, ring, self.now);
    }

    fn wait(&mut self, ring: u8) {
        assert!(self.limit.is_some(), "a ring waits without a limit");
        let refused = self.is_next(ring) && self.brought >= NANO;
        assert!(!refused, "an available token was refused");
        if !self.queue.contains(&ring) {
            self.queue.push(ring);
        }
    }

    fn is_next(&self, ring: u8) -> bool {
        self.queue.first().is_none_or(|first| *first == ring)
    }

    fn timer(&mut self) {
        match self.admission.next(self.now) {
            TimerAction::Stop => assert!(
                self.queue.is_empty(),
                "a ring is never woken: {:?}",
                self.queue
            ),
            TimerAction::ArmAt(at) => {
                assert!(at > self.now && !self.queue.is_empty() && self.limit.is_some());
                self.advance(at - self.now);
            }
            TimerAction::Wake(ring) => {
                assert_eq!(self.queue.first(), Some(&ring));
                self.ask(ring, 1);
                assert!(!self.queue.contains(&ring), "woken without effect");
            }
        }
    }

    fn switch(&mut self) {
        let next = match self.limit {
            Some(limit) if limit == self.other => limit_before(self.other),
            _ => self.other,
        };
        self.set(Some(next));
    }

    fn set(&mut self, limit: Option<Limit>) {
        if self.limit.is_none() {
            self.brought = 0;
        }
        let setting = limit.map_or(Setting::Unlimited, Setting::Limited);
        self.admission.configure(setting, self.now);
        self.ledger.set(limit, self.now);
        self.limit = limit;
    }

    /// Lets the timer fire until no ring waits.
    fn drain(mut self) {
        let refill = self.limit.map_or(1, |limit| limit.refill());
        let each = SECOND.div_ceil(u64::from(refill)) + 1;
        let deadline = self.now + self.queue.len() as u64 * each;
        while !self.queue.is_empty() {
            self.timer();
            assert!(
                self.now <= deadline,
                "{:?} still wait at {}",
                self.queue,
                self.now
            );
        }
        assert_eq!(self.admission.next(self.now), TimerAction::Stop);
    }

    fn explore(self, depth: u32) -> u64 {
        if depth == 0 {
            self.drain();
            return 1;
        }
        let after = |step| {
            let mut world = self.clone();
            world.step(step);
            world.explore(depth - 1)
        };
        STEPS.into_iter().map(after).sum()
    }
}

/// A faster limit with a larger bucket if the other is small, else a smaller one.
fn limit_before(other: Limit) -> Limit {
    limit(5 - other.refill(), 4 - other.max())
}

#[test]
fn every_short_schedule_keeps_every_rule() {
    let mut schedules = 0;
    for refill in 1..=4 {
        for max in 1..=3 {
            let first = limit(refill, max);
            let full = World::new(first, limit_before(first));
            let mut empty = full.clone();
            empty.step(Step::Ask(0, 5));
            empty.step(Step::Ask(1, 2));
            schedules += full.explore(DEPTH) + empty.explore(DEPTH);
        }
    }
    assert_eq!(schedules, 2 * 12 * 10u64.pow(DEPTH));
}
