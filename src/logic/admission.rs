// SPDX-License-Identifier: GPL-2.0

//! Who may go now, who waits, and for how long: the limit of one disk.
//!
//! All rings of a disk share one bucket. A ring asks for tokens for the requests
//! it sees, before it takes any of them off the ring; a request without a token
//! stays where the guest put it. Rings that wait are served in turn, one quantum
//! each, so that none gets more than its share.
//!
//! The caller keeps the lock and the timer: after every call that changes
//! something it does what [`Admission::next`] says.
//!
//! | change of the keys | tokens | who waits |
//! |---|---|---|
//! | any valid one | time until now counts at the old rate | is re-timed at once |
//! | smaller max | what is over spills; debt stays | stays |
//! | larger max, other refill | unchanged, no gift | stays |
//! | no limit any more | forgotten | goes, one ring waking the next |
//! | a limit after none | a tenth of a second's refill, at most max | - |
//! | invalid | unchanged: the last good limit stays | stays |
//! | the same again | nothing happens | stays |

use super::bucket::Bucket;
use super::limits::Limit;
use super::limits::Setting;
use super::meter::Meter;
use super::queue::Queue;
use super::queue::RingId;
use super::queue::RINGS_MAX;

/// The most tokens a ring gets at once.
pub const QUANTUM_MAX: u32 = 32;

/// What a ring that asked for tokens may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Take {
    /// There is no limit: take what there is.
    Free,
    /// Take this many requests, at least one.
    Tokens(u32),
    /// Leave the ring as it is; somebody will wake you.
    Wait,
}

/// What the keeper of the timer has to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nobody waits: stop the timer.
    Nothing,
    /// Wake this ring now.
    Wake(RingId),
    /// Come back at this time (nanoseconds of CLOCK_MONOTONIC).
    At(u64),
}

/// What became of a change of the keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The keys say what they said before.
    Same,
    /// In force now.
    Applied,
    /// The keys make no sense; what was in force stays. `first`: they made sense
    /// before.
    Refused {
        /// Worth a line in the log.
        first: bool,
    },
}

/// The one word that says how the limit stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// No limit.
    Unlimited,
    /// The bucket is full.
    Idle,
    /// The bucket is not full, and nobody waits.
    Bursting,
    /// Somebody waits for a token.
    Throttled,
    /// A bucket size without a refill: no limit.
    Incomplete,
    /// The keys make no sense; the last good limit is in force.
    Invalid,
}

impl State {
    /// As shown in sysfs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unlimited => "unlimited",
            Self::Idle => "idle",
            Self::Bursting => "bursting",
            Self::Throttled => "throttled",
            Self::Incomplete => "incomplete",
            Self::Invalid => "invalid",
        }
    }
}

/// How the limit stands, in numbers. Times in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct View {
    /// The state.
    pub state: State,
    /// The limit in force, if any.
    pub limit: Option<Limit>,
    /// Tokens in the bucket; negative in debt; 0 without a limit.
    pub tokens: i64,
    /// Tokens spent in the last full second.
    pub rate: u64,
    /// Time during which somebody waited.
    pub throttled: u64,
    /// The other counters.
    pub meter: Meter,
}

/// The limit of one disk.
#[derive(Clone, Debug)]
pub struct Admission {
    bucket: Option<Bucket>,
    incomplete: bool,
    invalid: bool,
    queue: Queue,
    meter: Meter,
}

impl Admission {
    /// No limit, as before the keys are read.
    pub const fn unlimited() -> Self {
        Self {
            bucket: None,
            incomplete: false,
            invalid: false,
            queue: Queue::new(),
            meter: Meter::new(),
        }
    }

    /// What the keys said when the disk appeared: a limit starts with a full
    /// bucket, or with `kept` tokens if a driver had the disk before and let go of
    /// it. Not counted as a change.
    pub fn start(&mut self, setting: Setting, kept: Option<u32>, now: u64) -> Change {
        match setting {
            Setting::Limited(limit) => {
                self.bucket = Some(match kept {
                    Some(tokens) => Bucket::kept(limit, tokens, now),
                    None => Bucket::full(limit, now),
                });
            }
            Setting::Unlimited => {}
            Setting::Incomplete => self.incomplete = true,
            Setting::Invalid => return self.refuse(),
        }
        Change::Applied
    }

    /// Applies what the keys say now.
    pub fn configure(&mut self, setting: Setting, now: u64) -> Change {
        if setting == Setting::Invalid {
            return self.refuse();
        }
        self.invalid = false;
        if setting == self.setting() {
            return Change::Same;
        }
        self.incomplete = setting == Setting::Incomplete;
        let waiting = self.queue.present() > 0;
        self.bucket = match (self.bucket, setting) {
            (Some(mut bucket), Setting::Limited(limit)) => {
                bucket.set_limit(limit, now, waiting);
                Some(bucket)
            }
            (None, Setting::Limited(limit)) => Some(Bucket::fresh(limit, now)),
            (_, Setting::Unlimited | Setting::Incomplete | Setting::Invalid) => None,
        };
        if self.bucket.is_none() {
            self.queue.forget_busy();
        }
        self.meter.changes = self.meter.changes.wrapping_add(1);
        Change::Applied
    }

    /// `ring` sees `wanted` requests (at least one) and asks for tokens for them.
    pub fn take(&mut self, ring: RingId, wanted: u32, now: u64) -> Take {
        let present = self.queue.present();
        let Some(bucket) = &mut self.bucket else {
            self.leave(ring, now);
            return Take::Free;
        };
        bucket.accrue(now, present > 0);
        let whole = quantum(bucket.limit(), present);
        let turn = match self.queue.turn(ring) {
            0 => whole,
            left => left.min(whole),
        };
        let got = if self.queue.is_turn_of(ring) {
            bucket.take(wanted.min(turn))
        } else {
            0
        };
        if got == 0 {
            let newly_held = self.queue.refuse(ring, wanted, now);
            self.meter.held = self.meter.held.wrapping_add(u64::from(newly_held));
            self.meter.throttle(true, now);
            return Take::Wait;
        }
        self.meter.spend(got, now);
        let left = if got == wanted {
            0
        } else {
            turn.saturating_sub(got)
        };
        if left > 0 && self.queue.len() > 1 {
            // Its turn goes on, ahead of those who wait behind it.
            if let Some(since) = self.queue.restart(ring, now) {
                self.meter.waited(since, now);
            }
        } else {
            self.end_wait(ring, now);
        }
        self.queue.serve(ring, got, left);
        Take::Tokens(got)
    }

    /// `tokens` of the last [`Take::Tokens`] were not used.
    pub fn give_back(&mut self, tokens: u32) {
        if let Some(bucket) = &mut self.bucket {
            bucket.give_back(tokens);
            self.meter.unspend(tokens);
        }
    }

    /// `tokens` requests were let through although they had no token: the disk is
    /// being taken away and its last requests must not outlast the toolstack.
    pub fn charge(&mut self, tokens: u32, now: u64) {
        if let Some(bucket) = &mut self.bucket {
            bucket.accrue(now, self.queue.present() > 0);
            bucket.charge(tokens);
            self.meter.spend(tokens, now);
        }
    }

    /// `ring` has nothing to ask for any more.
    pub fn leave(&mut self, ring: RingId, now: u64) {
        self.queue.finish(ring);
        self.end_wait(ring, now);
    }

    /// No ring asks for anything any more.
    pub fn leave_all(&mut self, now: u64) {
        for ring in 0..RINGS_MAX as RingId {
            self.leave(ring, now);
        }
    }

    /// Whom to wake, and when. Asking twice does no harm.
    pub fn next(&mut self, now: u64) -> Next {
        let Some(head) = self.queue.head() else {
            return Next::Nothing;
        };
        let Some(bucket) = &mut self.bucket else {
            return Next::Wake(head);
        };
        bucket.accrue(now, true);
        let at = bucket.ready_at();
        if at <= now {
            Next::Wake(head)
        } else {
            Next::At(at)
        }
    }

    /// Is there a limit in force, or anybody left to be released from one?
    pub fn is_gated(&self) -> bool {
        self.bucket.is_some() || !self.queue.is_empty()
    }

    /// How it stands at `now`.
    pub fn view(&mut self, now: u64) -> View {
        let waiting = self.queue.present() > 0;
        if let Some(bucket) = &mut self.bucket {
            bucket.accrue(now, waiting);
        }
        View {
            state: self.state(),
            limit: self.bucket.map(|bucket| bucket.limit()),
            tokens: self.bucket.map_or(0, |bucket| bucket.tokens()),
            rate: self.meter.rate(now),
            throttled: self.meter.throttled(now),
            meter: self.meter,
        }
    }

    fn state(&self) -> State {
        match &self.bucket {
            _ if self.invalid => State::Invalid,
            None if self.incomplete => State::Incomplete,
            None => State::Unlimited,
            Some(_) if !self.queue.is_empty() => State::Throttled,
            Some(bucket) if bucket.is_full() => State::Idle,
            Some(_) => State::Bursting,
        }
    }

    fn setting(&self) -> Setting {
        match &self.bucket {
            Some(bucket) => Setting::Limited(bucket.limit()),
            None if self.incomplete => Setting::Incomplete,
            None => Setting::Unlimited,
        }
    }

    fn refuse(&mut self) -> Change {
        let first = !self.invalid;
        self.invalid = true;
        self.meter.errors = self.meter.errors.wrapping_add(1);
        Change::Refused { first }
    }

    fn end_wait(&mut self, ring: RingId, now: u64) {
        if let Some(since) = self.queue.leave(ring) {
            self.meter.waited(since, now);
        }
        self.meter.throttle(!self.queue.is_empty(), now);
    }
}

/// A ring that is alone gets what it asks for; rings that compete get a
/// millisecond's tokens between them.
fn quantum(limit: Limit, waiting: u32) -> u32 {
    match waiting {
        0 | 1 => QUANTUM_MAX,
        rings => (limit.refill() / 1000)
            .checked_div(rings)
            .unwrap_or(1)
            .clamp(1, QUANTUM_MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const MS: u64 = 1_000_000;

    fn limited(refill: u32, max: u32) -> Setting {
        Setting::Limited(Limit::new(refill, max).unwrap())
    }

    fn started(setting: Setting) -> Admission {
        let mut a = Admission::unlimited();
        a.start(setting, None, 0);
        a
    }

    #[test]
    fn without_a_limit_everything_is_free_and_no_timer_runs() {
        let mut a = started(Setting::Unlimited);
        assert!(!a.is_gated());
        assert_eq!(a.take(0, 32, 0), Take::Free);
        assert_eq!(a.next(0), Next::Nothing);
        assert_eq!(a.view(0).state, State::Unlimited);
        assert_eq!(a.view(0).meter.spent, 0);
    }

    #[test]
    fn a_ring_waits_for_the_next_token_and_then_goes() {
        let mut a = started(limited(10, 2));
        assert_eq!(a.view(0).state, State::Idle);
        assert_eq!(a.take(0, 5, 0), Take::Tokens(2));
        assert_eq!(a.view(0).state, State::Bursting);
        assert_eq!(a.take(0, 3, 0), Take::Wait);
        assert_eq!(a.view(0).state, State::Throttled);
        assert_eq!(a.next(0), Next::At(100 * MS));
        assert_eq!(a.next(100 * MS), Next::Wake(0));
        assert_eq!(a.take(0, 3, 100 * MS), Take::Tokens(1));
        assert_eq!(a.take(0, 2, 100 * MS), Take::Wait);
        let view = a.view(150 * MS);
        assert_eq!((view.meter.spent, view.meter.held), (3, 3));
        assert_eq!((view.throttled, view.meter.wait_max), (150 * MS, 100 * MS));
    }

    #[test]
    fn nobody_passes_a_ring_that_waits() {
        let mut a = started(limited(10, 1));
        assert_eq!(a.take(0, 1, 0), Take::Tokens(1));
        assert_eq!(a.take(0, 1, 0), Take::Wait);
        assert_eq!(a.take(1, 1, 100 * MS), Take::Wait);
        assert_eq!(a.next(100 * MS), Next::Wake(0));
        assert_eq!(a.take(0, 1, 100 * MS), Take::Tokens(1));
        assert_eq!(a.take(0, 1, 100 * MS), Take::Wait);
        assert_eq!(a.next(200 * MS), Next::Wake(1));
        assert_eq!(a.take(1, 1, 200 * MS), Take::Tokens(1));
        assert_eq!(a.next(300 * MS), Next::Wake(0));
    }

    #[test]
    fn a_ring_that_goes_away_lets_the_next_one_through() {
        let mut a = started(limited(10, 1));
        a.take(0, 1, 0);
        a.take(0, 1, 0);
        a.take(1, 1, 0);
        a.leave(0, 50 * MS);
        assert_eq!(a.next(100 * MS), Next::Wake(1));
        a.leave(1, 100 * MS);
        assert_eq!(a.next(100 * MS), Next::Nothing);
        assert_eq!(a.view(SECOND).throttled, 100 * MS);
    }

    #[test]
    fn lifting_the_limit_releases_one_ring_after_the_other() {
        let mut a = started(limited(1, 1));
        a.take(0, 1, 0);
        a.take(0, 1, 0);
        a.take(1, 1, 0);
        assert_eq!(a.configure(Setting::Unlimited, MS), Change::Applied);
        assert!(a.is_gated());
        assert_eq!(a.next(MS), Next::Wake(0));
        assert_eq!(a.take(0, 1, MS), Take::Free);
        assert_eq!(a.next(MS), Next::Wake(1));
        assert_eq!(a.take(1, 1, MS), Take::Free);
        assert_eq!(a.next(MS), Next::Nothing);
        assert!(!a.is_gated());
    }

    #[test]
    fn a_higher_rate_is_felt_at_once() {
        let mut a = started(limited(1, 1));
        a.take(0, 1, 0);
        a.take(0, 1, 0);
        assert_eq!(a.next(0), Next::At(SECOND));
        a.configure(limited(1000, 100), MS);
        assert_eq!(a.next(MS), Next::At(MS + 999_000));
    }

    #[test]
    fn a_bucket_that_another_driver_kept_is_not_filled_up() {
        let tokens = |kept| {
            let mut a = Admission::unlimited();
            a.start(limited(10, 100), Some(kept), 0);
            a.view(0).tokens
        };
        assert_eq!(tokens(0), 0);
        assert_eq!(tokens(7), 7);
        assert_eq!(tokens(5000), 100);
    }

    #[test]
    fn switching_off_and_on_mints_no_burst() {
        let mut a = started(limited(1000, 1000));
        a.configure(Setting::Unlimited, 0);
        a.configure(limited(1000, 1000), 60 * SECOND);
        assert_eq!(a.view(60 * SECOND).tokens, 100);
    }

    #[test]
    fn an_invalid_pair_changes_nothing_but_the_state() {
        let mut a = started(limited(10, 2));
        a.take(0, 2, 0);
        assert_eq!(
            a.configure(Setting::Invalid, 0),
            Change::Refused { first: true }
        );
        let view = a.view(100 * MS);
        assert_eq!(
            (view.state, view.tokens, view.meter.errors),
            (State::Invalid, 1, 1)
        );
        assert_eq!(view.limit, Limit::new(10, 2));
        assert_eq!(a.configure(limited(10, 2), 0), Change::Same);
        assert_eq!(a.view(100 * MS).state, State::Bursting);
        assert_eq!(a.view(0).meter.changes, 0);
    }

    #[test]
    fn invalid_at_the_start_is_unlimited_and_says_so() {
        let mut a = Admission::unlimited();
        assert_eq!(
            a.start(Setting::Invalid, None, 0),
            Change::Refused { first: true }
        );
        assert_eq!(a.view(0).state, State::Invalid);
        assert_eq!(a.take(0, 1, 0), Take::Free);
    }

    #[test]
    fn a_bucket_size_alone_is_incomplete() {
        let mut a = started(Setting::Incomplete);
        assert_eq!(a.view(0).state, State::Incomplete);
        assert_eq!(a.take(0, 1, 0), Take::Free);
        assert_eq!(a.configure(Setting::Unlimited, 0), Change::Applied);
        assert_eq!(a.view(0).state, State::Unlimited);
    }

    #[test]
    fn what_a_detach_lets_through_is_paid_back() {
        let mut a = started(limited(10, 1));
        a.charge(32, 0);
        assert_eq!(a.view(0).tokens, -31);
        assert_eq!(a.take(0, 1, 0), Take::Wait);
        assert_eq!(a.next(0), Next::At(3200 * MS));
    }

    #[test]
    fn tokens_given_back_are_there_again() {
        let mut a = started(limited(10, 10));
        assert_eq!(a.take(0, 10, 0), Take::Tokens(10));
        a.give_back(4);
        assert_eq!(a.view(0).tokens, 4);
        assert_eq!(a.view(0).meter.spent, 6);
    }
}
