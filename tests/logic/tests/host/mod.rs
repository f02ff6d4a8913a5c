// SPDX-License-Identifier: GPL-2.0

//! A simulated host: rings with requests, a clock, a timer that fires late.
//!
//! It does what the module does around [`Admission`]: a ring's worker asks until
//! it has to wait or has nothing left, and after every change [`TimerAction`] is done to
//! the letter. Whatever is admitted goes into a [`Ledger`].

#![allow(dead_code)] // Each test file uses its own part of this one.

pub mod ledger;
pub mod script;
pub mod watch;

use ledger::Ledger;
use proptest::test_runner::Config;
use proptest::test_runner::RngSeed;
use rblkback_logic::tokens::admission::Admission;
use rblkback_logic::tokens::admission::Change;
use rblkback_logic::tokens::admission::Take;
use rblkback_logic::tokens::limits::Limit;
use rblkback_logic::tokens::limits::Setting;
use rblkback_logic::tokens::timer_action::TimerAction;
use rblkback_logic::tokens::token_queue::QUANTUM_MAX;
use rblkback_logic::tokens::view::LimitView;
use watch::Watch;

pub const NANO: i128 = 1_000_000_000;
pub const SECOND: u64 = 1_000_000_000;
pub const MS: u64 = 1_000_000;
pub const US: u64 = 1_000;

/// A run of `count` cases that is the same every time. `PROPTEST_CASES` and
/// `PROPTEST_RNG_SEED` in the environment make it a longer or another one.
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

/// A new disk.
pub fn started(setting: Setting) -> Admission {
    let mut admission = Admission::unlimited();
    admission.start(setting, None, 0);
    admission
}

/// `ring` has nothing to ask for any more; as the gate does it.
pub fn leave(admission: &mut Admission, ring: u8, now: u64) {
    if !admission.leave_unnoticed(ring) {
        admission.leave(ring, now);
    }
}

/// The tokens that the timer gathers before it wakes anybody.
pub fn batch(limit: Limit) -> u32 {
    limit.refill().div_ceil(1000)
}

/// Numbers without end, the same for the same seed (SplitMix64).
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 to `most`, both possible.
    pub fn up_to(&mut self, most: u64) -> u64 {
        self.roll() % (most + 1)
    }
}

pub struct Host {
    pub admission: Admission,
    pub now: u64,
    /// Requests on each ring that were not taken.
    pub backlog: Vec<u32>,
    pub ledger: Ledger,
    pub watch: Watch,
    /// The latest time that the limit has been told.
    told: u64,
    /// The timer: what it was set to, and when it will really fire.
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
            watch: Watch::new(rings),
            told: 0,
            timer: None,
            late_most,
            dice: Dice(seed),
        }
    }

    /// The guest puts requests on a ring and its worker looks.
    pub fn arrive(&mut self, ring: u8, count: u32) {
        self.backlog[usize::from(ring)] += count;
        self.ask(ring, self.now);
    }

    /// The worker of `ring` looks, at a clock read a little while ago perhaps.
    pub fn ask(&mut self, ring: u8, now: u64) {
        self.work(ring, now);
        self.settle();
    }

    /// The guest disconnects a ring.
    pub fn leave(&mut self, ring: u8) {
        self.backlog[usize::from(ring)] = 0;
        leave(&mut self.admission, ring, self.now);
        self.watch.served(ring, u32::MAX, self.now);
        self.settle();
    }

    /// The guest goes.
    pub fn leave_all(&mut self) {
        for ring in 0..self.backlog.len() {
            self.watch.served(ring as u8, u32::MAX, self.now);
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

    /// Requests of a detached disk that go without a token.
    pub fn charge(&mut self, count: u32) {
        self.admission.charge(&mut None, count, self.now);
        self.ledger.charge(count);
        self.settle();
    }

    /// Time goes on until `then`; the timer fires whenever it is due.
    pub fn run_until(&mut self, then: u64) {
        while self.timer.is_some_and(|(_, fires)| fires <= then) {
            self.fire();
        }
        self.now = self.now.max(then);
    }

    /// Time goes on until the timer fires. `false`: it is not armed.
    pub fn fire(&mut self) -> bool {
        let Some((_, fires)) = self.timer else {
            return false;
        };
        // A limit that changed may have set the timer to a time gone by.
        self.now = self.now.max(fires);
        let before = self.waiting();
        self.settle();
        assert!(self.waiting() < before, "the timer came for nothing");
        true
    }

    /// Requests that were not taken, on all rings.
    pub fn waiting(&self) -> u64 {
        self.backlog.iter().map(|left| u64::from(*left)).sum()
    }

    /// Somebody reads sysfs.
    pub fn look(&mut self) -> LimitView {
        self.told = self.now;
        self.admission.view(self.now)
    }

    fn work(&mut self, ring: u8, now: u64) {
        // An older clock takes nothing back of what an earlier one brought.
        self.told = self.told.max(now);
        let place = usize::from(ring);
        while self.backlog[place] > 0 {
            let wanted = self.backlog[place];
            match self.admission.take(None, ring, wanted, now) {
                Take::Free => {
                    self.watch.served(ring, u32::MAX, self.now);
                    self.backlog[place] = 0;
                }
                Take::Wait => {
                    self.watch.refused(ring, wanted, self.now);
                    return;
                }
                Take::Tokens(got) => {
                    assert!(
                        (1..=wanted.min(QUANTUM_MAX)).contains(&got),
                        "{got} of {wanted}"
                    );
                    self.ledger.admit(ring, got, self.told);
                    self.watch.served(ring, got, self.now);
                    self.backlog[place] -= got;
                }
            }
        }
        leave(&mut self.admission, ring, now);
    }

    /// Does what [`TimerAction`] says until there is only a timer to wait for, if that.
    fn settle(&mut self) {
        self.told = self.now;
        loop {
            match self.admission.next(self.now) {
                TimerAction::Stop => {
                    self.timer = None;
                    assert!(
                        self.backlog.iter().all(|left| *left == 0),
                        "forgotten: {:?}",
                        self.backlog
                    );
                    return;
                }
                TimerAction::ArmAt(at) => {
                    assert!(at > self.now, "told to wait for a time gone by");
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
                        "ring {ring} was woken for nothing"
                    );
                }
            }
        }
    }
}
