// SPDX-License-Identifier: GPL-2.0

//! A guest that always has requests gets the rate of its limit, to half a percent and one
//! token, in 30 simulated seconds (10 with eight rings).
//!
//! Every wakeup is late by 0 to 200 microseconds. The random numbers are the same in every
//! run.

mod host;

use host::ledger::Ledger;
use host::limit;
use host::started;
use host::Dice;
use host::SECOND;
use host::US;
use rblkback_logic::tokens::admission::Admission;
use rblkback_logic::tokens::admission::Take;
use rblkback_logic::tokens::limits::Limit;
use rblkback_logic::tokens::limits::Setting;
use rblkback_logic::tokens::timer_action::TimerAction;

const REFILLS: [u32; 6] = [1, 10, 100, 1000, 10_000, 100_000];
/// The number of slots of a ring of one page.
const RING: u32 = 32;

/// Bucket sizes; the last is the default.
fn sizes(refill: u32) -> [u32; 3] {
    [1, 32, refill.div_ceil(10)]
}

struct Guest {
    admission: Admission,
    ledger: Ledger,
    now: u64,
    dice: Dice,
    /// The time in nanoseconds that a worker needs for a request.
    work: u64,
    end: u64,
}

impl Guest {
    fn new(limit: Limit, work: u64, seconds: u64) -> Self {
        let admission = started(Setting::Limited(limit));
        let mut ledger = Ledger::new(Some(limit));
        ledger.keep_entries = false;
        let seed = (u64::from(limit.refill()) << 32) | u64::from(limit.max());
        Self {
            admission,
            ledger,
            now: 0,
            dice: Dice(seed),
            work,
            end: seconds * SECOND,
        }
    }

    /// The worker of `ring` consumes requests until it has to wait.
    fn serve(&mut self, ring: u8) {
        while self.now < self.end {
            match self.admission.take(None, ring, RING, self.now) {
                Take::Tokens(count) => {
                    self.ledger.admit(ring, count, self.now);
                    self.now += self.work * u64::from(count);
                }
                Take::Wait => return,
                Take::Free => unreachable!("there is a limit"),
            }
        }
    }

    /// Runs `rings` rings to the end. Returns the number of admitted requests.
    fn run(mut self, rings: u8) -> u64 {
        (0..rings).for_each(|ring| self.serve(ring));
        while self.now < self.end {
            match self.admission.next(self.now) {
                TimerAction::Wake(ring) => self.serve(ring),
                TimerAction::ArmAt(at) => self.now = at + self.dice.up_to(200 * US),
                TimerAction::Stop => unreachable!("all rings wait"),
            }
        }
        self.ledger.spent()
    }
}

/// Checks the rate, to half a percent and one token.
fn check(limit: Limit, rings: u8, work: u64, seconds: u64) {
    let served = Guest::new(limit, work, seconds).run(rings);
    let due = u64::from(limit.refill()) * seconds + u64::from(limit.max());
    let off = due.abs_diff(served);
    assert!(
        off * 200 <= due + 200,
        "{limit:?}, {rings} rings: {served} instead of {due}"
    );
}

fn every_limit() -> impl Iterator<Item = Limit> {
    REFILLS
        .into_iter()
        .flat_map(|refill| sizes(refill).map(|max| limit(refill, max)))
}

#[test]
fn one_ring_gets_the_rate_of_the_limit() {
    every_limit().for_each(|limit| check(limit, 1, 0, 30));
}

#[test]
fn eight_rings_together_get_the_rate_of_the_limit() {
    every_limit().for_each(|limit| check(limit, 8, 0, 10));
}

#[test]
fn a_ring_with_a_busy_worker_gets_the_rate_of_the_limit() {
    for limit in every_limit() {
        let work = (SECOND / u64::from(limit.refill()) / 2).min(50 * US);
        check(limit, 1, work, 30);
    }
}
