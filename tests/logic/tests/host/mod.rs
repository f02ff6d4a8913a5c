// SPDX-License-Identifier: GPL-2.0

//! A simulated host: rings with requests, a clock, and a timer that fires late.
//!
//! The host calls [`Admission`] as the module does. The worker of a ring asks for tokens
//! until it has to wait or has no requests left. After every change, the host carries out
//! the [`TimerAction`]. A [`Ledger`] records every admitted request.

#![allow(dead_code)] // Each test file uses a part of this module.

pub mod ledger;
pub mod observer;
pub mod script;

use ledger::Ledger;
use observer::Observer;
use proptest::test_runner::Config;
use proptest::test_runner::RngSeed;
use rblkback_logic::tokens::admission::Admission;
use rblkback_logic::tokens::admission::Change;
use rblkback_logic::tokens::admission::Take;
use rblkback_logic::tokens::limits::Limit;
use rblkback_logic::tokens::limits::Setting;
use rblkback_logic::tokens::timer_action::TimerAction;
use rblkback_logic::tokens::token_queue::bit_of;
use rblkback_logic::tokens::token_queue::QUANTUM_MAX;
use rblkback_logic::tokens::view::LimitView;

pub const NANO: i128 = 1_000_000_000;
pub const SECOND: u64 = 1_000_000_000;
pub const MS: u64 = 1_000_000;
pub const US: u64 = 1_000;

/// A configuration of `count` cases that are the same in every run. The environment variables
/// `PROPTEST_CASES` and `PROPTEST_RNG_SEED` change the number and the seed.
pub fn cases(count: u32) -> Config {
    let mut config = Config {
        failure_persistence: None,
        ..Config::default()
    };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = count;
    }
    if matches!(config.rng_seed, RngSeed::Random) {
        config.rng_seed = RngSeed::Fixed(0x7b1c_beef);
    }
    config
}

pub fn limit(refill: u32, max: u32) -> Limit {
    Limit::new(refill, max).expect("a legal limit")
}

/// The admission of a new disk.
pub fn started(setting: Setting) -> Admission {
    let mut admission = Admission::unlimited();
    admission.start(setting, None, 0);
    admission
}

/// Reports that `ring` has no more requests, as `qos::gate` does.
pub fn leave(admission: &mut Admission, ring: u8, now: u64) {
    let passing = admission.passing();
    if passing & bit_of(ring) != 0 {
        admission.set_passing(passing & !bit_of(ring));
        return;
    }
    if !admission.leave_idle(ring) {
        admission.leave(ring, now);
    }
}

/// The number of tokens that the bucket collects before the timer wakes a ring.
pub fn batch(limit: Limit) -> u32 {
    limit.refill().div_ceil(1000)
}

/// A generator of pseudo-random numbers (SplitMix64).
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from 0 to `most`, inclusive.
    pub fn up_to(&mut self, most: u64) -> u64 {
        self.roll() % (most + 1)
    }
}

pub struct Host {
    pub admission: Admission,
    pub now: u64,
    /// The number of unread requests on each ring.
    pub backlog: Vec<u32>,
    pub ledger: Ledger,
    pub observer: Observer,
    /// The latest time that was passed to the limit.
    latest: u64,
    /// The timer: the time it is set to, and the time at which it fires.
    pub timer: Option<(u64, u64)>,
    late_most: u64,
    dice: Dice,
}

impl Host {
    pub fn new(setting: Setting, rings: usize, late_most: u64, seed: u64) -> Self {
        let mut admission = started(setting);
        let limit = admission.view(0).limit;
        Self {
            admission,
            now: 0,
            backlog: vec![0; rings],
            ledger: Ledger::new(limit),
            observer: Observer::new(rings),
            latest: 0,
            timer: None,
            late_most,
            dice: Dice(seed),
        }
    }

    /// The guest puts `count` requests on `ring`, and the worker asks for tokens.
    pub fn arrive(&mut self, ring: u8, count: u32) {
        self.backlog[usize::from(ring)] += count;
        self.ask(ring, self.now);
    }

    /// The worker of `ring` asks for tokens at `now`, which may be in the past.
    pub fn ask(&mut self, ring: u8, now: u64) {
        self.work(ring, now);
        self.settle();
    }

    /// The guest disconnects a ring.
    pub fn leave(&mut self, ring: u8) {
        self.backlog[usize::from(ring)] = 0;
        leave(&mut self.admission, ring, self.now);
        self.observer.served(ring, u32::MAX, self.now);
        self.settle();
    }

    /// The guest disconnects all rings.
    pub fn leave_all(&mut self) {
        for ring in 0..self.backlog.len() {
            self.observer.served(ring as u8, u32::MAX, self.now);
        }
        self.backlog.fill(0);
        self.admission.leave_all(self.now);
        self.settle();
        assert_eq!(self.timer, None);
    }

    pub fn set(&mut self, setting: Setting) -> Change {
        let change = self.admission.configure(setting, self.now);
        let limit = self.look().limit;
        self.ledger.set(limit, self.now);
        self.settle();
        change
    }

    /// Charges requests of a detached disk that are admitted without tokens.
    pub fn charge(&mut self, count: u32) {
        self.admission.charge(&mut None, count, self.now);
        self.ledger.charge(count);
        self.settle();
    }

    /// Advances the clock to `then`. The timer fires whenever it is due.
    pub fn run_until(&mut self, then: u64) {
        while self.timer.is_some_and(|(_, fires)| fires <= then) {
            self.fire();
        }
        self.now = self.now.max(then);
    }

    /// Advances the clock until the timer fires. Returns false if it is not armed.
    pub fn fire(&mut self) -> bool {
        let Some((_, fires)) = self.timer else {
            return false;
        };
        // After a change of the limit the timer may be set to a time in the past.
        self.now = self.now.max(fires);
        let before = self.waiting();
        self.settle();
        assert!(self.waiting() < before, "the timer fired without effect");
        true
    }

    /// The number of unread requests on all rings.
    pub fn waiting(&self) -> u64 {
        self.backlog.iter().map(|left| u64::from(*left)).sum()
    }

    /// Reads the state of the limit, as sysfs does.
    pub fn look(&mut self) -> LimitView {
        self.latest = self.now;
        self.admission.view(self.now)
    }

    fn work(&mut self, ring: u8, now: u64) {
        // An older time does not take back the refill up to a later one.
        self.latest = self.latest.max(now);
        let index = usize::from(ring);
        while self.backlog[index] > 0 {
            let wanted = self.backlog[index];
            match self.admission.take(None, ring, wanted, now) {
                Take::Free => {
                    self.observer.served(ring, u32::MAX, self.now);
                    self.backlog[index] = 0;
                }
                Take::Wait => {
                    self.observer.refused(ring, wanted, self.now);
                    return;
                }
                Take::Tokens(got) => {
                    assert!(
                        (1..=wanted.min(QUANTUM_MAX)).contains(&got),
                        "{got} of {wanted}"
                    );
                    self.ledger.admit(ring, got, self.latest);
                    self.observer.served(ring, got, self.now);
                    self.backlog[index] -= got;
                }
            }
        }
        leave(&mut self.admission, ring, now);
    }

    /// Carries out each [`TimerAction`] until the timer is armed or stopped.
    fn settle(&mut self) {
        self.latest = self.now;
        loop {
            match self.admission.next(self.now) {
                TimerAction::Stop => {
                    self.timer = None;
                    assert!(
                        self.backlog.iter().all(|left| *left == 0),
                        "a ring is never woken: {:?}",
                        self.backlog
                    );
                    return;
                }
                TimerAction::ArmAt(at) => {
                    assert!(at > self.now, "the timer is set to a past time");
                    if self.timer.map(|(set, _)| set) != Some(at) {
                        let late = self.dice.up_to(self.late_most);
                        self.timer = Some((at, at.saturating_add(late)));
                    }
                    return;
                }
                TimerAction::Wake(ring) => {
                    let before = self.backlog[usize::from(ring)];
                    self.work(ring, self.now);
                    assert!(
                        self.backlog[usize::from(ring)] < before,
                        "ring {ring} was woken without effect"
                    );
                }
            }
        }
    }
}
