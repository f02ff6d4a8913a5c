// SPDX-License-Identifier: GPL-2.0

//! Who may go now, who waits, and for how long: the limit of one disk.
//!
//! All rings of a disk share one bucket. A ring asks for tokens for the requests
//! it sees, before it takes any of them off the ring; a request without a token
//! stays where the guest put it. Rings that wait are served in turn, one quantum
//! each, so that none gets more than its share.
//!
//! A request goes as soon as no bucket that it needs is empty. What it costs more
//! than one token, which is known when it was read, is charged then, and the next
//! one waits until that debt is paid. So no request waits for a level that a small
//! bucket never reaches, and nothing has to be read off the ring before its time.
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
use super::cap::Cap;
use super::cap::DiskId;
use super::lane::quantum;
use super::lane::Era;
use super::lane::Lane;
use super::limits::tokens_for;
use super::limits::Limit;
use super::limits::Setting;
use super::limits::Terms;
use super::meter::Meter;
use super::queue::RingId;
use super::queue::RINGS_MAX;

/// Levels that a disk's buckets had when a driver let go of it, or that they are to
/// begin with.
#[derive(Clone, Copy, Debug, Default)]
pub struct Kept {
    /// Tokens.
    pub tokens: Option<u32>,
    /// Bytes.
    pub bytes: Option<u32>,
}

impl From<Option<u32>> for Kept {
    fn from(tokens: Option<u32>) -> Self {
        Self {
            tokens,
            bytes: None,
        }
    }
}

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
    /// What the guest is told: which limit the disk has, not how it stands now.
    pub told: &'static str,
    /// The limit in force, if any.
    pub limit: Option<Limit>,
    /// Tokens in the bucket; negative in debt; 0 without a limit.
    pub tokens: i64,
    /// Bytes that a token pays for; 0: any request.
    pub size: u32,
    /// The limit in bytes, if any.
    pub bytes_limit: Option<Limit>,
    /// Bytes in its bucket, likewise.
    pub bytes: i64,
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
    lane: Lane<RINGS_MAX>,
    bytes: Option<Bucket>,
    /// Bytes that a token pays for; 0: any request.
    size: u32,
    incomplete: bool,
    invalid: bool,
    /// The ring whose turn it is has the disk's tokens and waits for the guest's.
    held_by_cap: bool,
}

/// Which buckets paid for what was let through: only those get back what was not used.
#[derive(Clone, Copy, Debug)]
pub struct Bill {
    own: Era,
    cap: Option<Era>,
}

/// What a disk may be held up by besides its own limit: the cap of its guest, and
/// the disk's place there.
pub type Share<'a> = Option<(&'a mut Cap, DiskId)>;

impl Admission {
    /// No limit, as before the keys are read.
    pub const fn unlimited() -> Self {
        Self {
            lane: Lane::new(),
            bytes: None,
            size: 0,
            incomplete: false,
            invalid: false,
            held_by_cap: false,
        }
    }

    /// What the keys say of a disk that no guest has used yet: a limit starts with a
    /// full bucket, or with what is `kept`. Not counted as a change.
    pub fn start(&mut self, terms: impl Into<Terms>, kept: impl Into<Kept>, now: u64) -> Change {
        let (terms, kept) = (terms.into(), kept.into());
        if terms.tokens == Setting::Invalid {
            return self.refuse();
        }
        let bucket = |limit, kept| match kept {
            Some(level) => Bucket::kept(limit, level, now),
            None => Bucket::full(limit, now),
        };
        let tokens = terms.tokens.limit().map(|limit| bucket(limit, kept.tokens));
        self.lane.start(tokens);
        self.bytes = terms.bytes.map(|limit| bucket(limit, kept.bytes));
        self.size = terms.size;
        self.incomplete = terms.tokens == Setting::Incomplete;
        self.invalid = false;
        Change::Applied
    }

    /// Applies what the keys say now.
    pub fn configure(&mut self, terms: impl Into<Terms>, now: u64) -> Change {
        let terms = terms.into();
        if terms.tokens == Setting::Invalid {
            return self.refuse();
        }
        self.invalid = false;
        if terms == self.terms() {
            return Change::Same;
        }
        self.incomplete = terms.tokens == Setting::Incomplete;
        self.size = terms.size;
        self.lane.set_limit(terms.tokens.limit(), now);
        let waiting = self.lane.present() > 0;
        self.bytes = Bucket::changed(self.bytes, terms.bytes, now, waiting);
        if !self.is_limited() {
            self.lane.forget_busy();
        }
        self.lane.meter.changes = self.lane.meter.changes.wrapping_add(1);
        Change::Applied
    }

    /// `ring` sees `wanted` requests (at least one) and asks for tokens for them.
    /// `share`: the disk's guest may have a cap.
    pub fn take(&mut self, share: Share<'_>, ring: RingId, wanted: u32, now: u64) -> Take {
        let share = share.filter(|(cap, _)| cap.limit().is_some());
        let pace = self
            .lane
            .limit()
            .or_else(|| share.as_ref().and_then(|(cap, _)| cap.limit()));
        if pace.is_none() && self.bytes.is_none() {
            self.leave(ring, now);
            return Take::Free;
        }
        let quantum = match pace {
            Some(limit) if !self.is_priced() => quantum(limit, self.lane.present()),
            Some(_) | None => 1,
        };
        let offer = self.lane.offer(ring, wanted, quantum, now);
        let own = if self.bytes_left(now) {
            offer.tokens
        } else {
            0
        };
        let mut got = own;
        if let (Some((cap, disk)), true) = (share, offer.is_turn) {
            if own > 0 {
                got = cap.take(disk, own, now);
            }
        }
        if offer.is_turn {
            self.held_by_cap = own > 0 && got == 0;
        }
        if got == 0 {
            self.lane.refuse(ring, wanted, now);
            return Take::Wait;
        }
        self.lane.serve(ring, offer, got, wanted, now);
        Take::Tokens(got)
    }

    /// A request that was let through is one of `bytes`: charges what it costs more
    /// than one token.
    pub fn price(&mut self, bytes: u32, now: u64) {
        let more = tokens_for(bytes, self.size).saturating_sub(1);
        if more > 0 && self.lane.limit().is_some() {
            self.lane.charge(more, now);
        }
        let waiting = self.lane.present() > 0;
        if let Some(bucket) = &mut self.bytes {
            bucket.accrue(now, waiting);
            bucket.charge(bytes);
        }
    }

    /// Does what a request costs depend on its size?
    pub fn is_priced(&self) -> bool {
        self.size > 0 || self.bytes.is_some()
    }

    /// Which buckets pay now.
    pub fn bill(&self, share: &Share<'_>) -> Bill {
        Bill {
            own: self.lane.era(),
            cap: share.as_ref().map(|(cap, _)| cap.era()),
        }
    }

    /// `tokens` of a [`Take::Tokens`], or of what was charged, were not used. What `bill`
    /// names is what paid for them then.
    pub fn give_back(&mut self, share: Share<'_>, tokens: u32, bill: Bill) {
        self.lane.give_back(tokens, bill.own);
        if let (Some((cap, _)), Some(era)) = (share, bill.cap) {
            cap.give_back(tokens, era);
        }
    }

    /// `tokens` requests were let through although they had no token: the disk is
    /// being taken away and its last requests must not outlast the toolstack. Says who
    /// paid, if anybody had to.
    pub fn charge(&mut self, share: &mut Share<'_>, tokens: u32, now: u64) -> Option<Bill> {
        let capped = share.as_ref().is_some_and(|(cap, _)| cap.limit().is_some());
        if !capped && !self.is_limited() {
            return None;
        }
        let bill = self.bill(share);
        self.lane.charge(tokens, now);
        if let Some((cap, _)) = share {
            cap.charge(tokens, now);
        }
        Some(bill)
    }

    /// `ring` has nothing to ask for any more.
    pub fn leave(&mut self, ring: RingId, now: u64) {
        self.lane.leave(ring, now);
    }

    /// No ring asks for anything any more.
    pub fn leave_all(&mut self, now: u64) {
        self.lane.leave_all(now);
    }

    /// The guest's cap has tokens again, or is another one, or there is none any more
    /// (`capped`). False if nobody has a use for them now, because the disk's own limit
    /// or its device holds it up: then it has to leave the cap to others, and asks again
    /// when it can.
    pub fn release_from_cap(&mut self, capped: bool, now: u64) -> bool {
        self.held_by_cap = false;
        if !capped && !self.is_limited() {
            self.lane.forget_busy();
        }
        match self.next(now) {
            Next::Wake(head) => !self.lane.is_busy(head),
            Next::At(_) | Next::Nothing => false,
        }
    }

    /// Nobody waits, or works on what it got.
    pub fn is_idle(&self) -> bool {
        self.lane.present() == 0
    }

    /// Whom to wake, and when. Asking twice does no harm.
    pub fn next(&mut self, now: u64) -> Next {
        let Some(head) = self.lane.head() else {
            return Next::Nothing;
        };
        let mut at = self.lane.ready_at(now);
        if let Some(bytes) = &mut self.bytes {
            bytes.accrue(now, true);
            at = at.max(bytes.ready_at());
        }
        if at > now {
            Next::At(at)
        } else if self.held_by_cap {
            // Whoever keeps the cap will tell.
            Next::Nothing
        } else {
            Next::Wake(head)
        }
    }

    /// Is there a limit in force, or anybody left to be released from one?
    pub fn is_gated(&self) -> bool {
        self.is_limited() || !self.lane.is_empty()
    }

    /// How it stands at `now`.
    pub fn view(&mut self, now: u64) -> View {
        let waiting = self.lane.present() > 0;
        if let Some(bytes) = &mut self.bytes {
            bytes.accrue(now, waiting);
        }
        let tokens = self.lane.tokens(now);
        View {
            state: self.state(),
            told: self.told(),
            limit: self.lane.limit(),
            tokens: tokens.unwrap_or(0),
            size: self.size,
            bytes_limit: self.bytes.map(|bucket| bucket.limit()),
            bytes: self.bytes.map_or(0, |bucket| bucket.tokens()),
            rate: self.lane.meter.rate(now),
            throttled: self.lane.meter.throttled(now),
            meter: self.lane.meter,
        }
    }

    fn is_limited(&self) -> bool {
        self.lane.limit().is_some() || self.bytes.is_some()
    }

    /// May a request go as far as its bytes are concerned?
    fn bytes_left(&mut self, now: u64) -> bool {
        let waiting = self.lane.present() > 0;
        self.bytes.as_mut().is_none_or(|bucket| {
            bucket.accrue(now, waiting);
            bucket.tokens() > 0
        })
    }

    fn state(&self) -> State {
        let full = |bucket: &Bucket| bucket.is_full();
        if self.invalid {
            State::Invalid
        } else if !self.lane.is_empty() {
            State::Throttled
        } else if self.incomplete {
            State::Incomplete
        } else if !self.is_limited() {
            State::Unlimited
        } else if self.lane.is_full_if_any() && self.bytes.as_ref().is_none_or(full) {
            State::Idle
        } else {
            State::Bursting
        }
    }

    fn told(&self) -> &'static str {
        if self.invalid {
            State::Invalid.name()
        } else if self.is_limited() {
            "limited"
        } else if self.incomplete {
            State::Incomplete.name()
        } else {
            State::Unlimited.name()
        }
    }

    fn terms(&self) -> Terms {
        let tokens = match self.lane.limit() {
            Some(limit) => Setting::Limited(limit),
            None if self.incomplete => Setting::Incomplete,
            None => Setting::Unlimited,
        };
        Terms {
            tokens,
            size: self.size,
            bytes: self.bytes.map(|bucket| bucket.limit()),
        }
    }

    fn refuse(&mut self) -> Change {
        let first = !self.invalid;
        self.invalid = true;
        self.lane.meter.errors = self.lane.meter.errors.wrapping_add(1);
        Change::Refused { first }
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
        assert_eq!(a.take(None, 0, 32, 0), Take::Free);
        assert_eq!(a.next(0), Next::Nothing);
        assert_eq!(a.view(0).state, State::Unlimited);
        assert_eq!(a.view(0).meter.spent, 0);
    }

    #[test]
    fn a_ring_waits_for_the_next_token_and_then_goes() {
        let mut a = started(limited(10, 2));
        assert_eq!(a.view(0).state, State::Idle);
        assert_eq!(a.take(None, 0, 5, 0), Take::Tokens(2));
        assert_eq!(a.view(0).state, State::Bursting);
        assert_eq!(a.take(None, 0, 3, 0), Take::Wait);
        assert_eq!(a.view(0).state, State::Throttled);
        assert_eq!(a.next(0), Next::At(100 * MS));
        assert_eq!(a.next(100 * MS), Next::Wake(0));
        assert_eq!(a.take(None, 0, 3, 100 * MS), Take::Tokens(1));
        assert_eq!(a.take(None, 0, 2, 100 * MS), Take::Wait);
        let view = a.view(150 * MS);
        assert_eq!((view.meter.spent, view.meter.held), (3, 3));
        assert_eq!((view.throttled, view.meter.wait_max), (150 * MS, 100 * MS));
    }

    #[test]
    fn nobody_passes_a_ring_that_waits() {
        let mut a = started(limited(10, 1));
        assert_eq!(a.take(None, 0, 1, 0), Take::Tokens(1));
        assert_eq!(a.take(None, 0, 1, 0), Take::Wait);
        assert_eq!(a.take(None, 1, 1, 100 * MS), Take::Wait);
        assert_eq!(a.next(100 * MS), Next::Wake(0));
        assert_eq!(a.take(None, 0, 1, 100 * MS), Take::Tokens(1));
        assert_eq!(a.take(None, 0, 1, 100 * MS), Take::Wait);
        assert_eq!(a.next(200 * MS), Next::Wake(1));
        assert_eq!(a.take(None, 1, 1, 200 * MS), Take::Tokens(1));
        assert_eq!(a.next(300 * MS), Next::Wake(0));
    }

    #[test]
    fn a_ring_that_goes_away_lets_the_next_one_through() {
        let mut a = started(limited(10, 1));
        a.take(None, 0, 1, 0);
        a.take(None, 0, 1, 0);
        a.take(None, 1, 1, 0);
        a.leave(0, 50 * MS);
        assert_eq!(a.next(100 * MS), Next::Wake(1));
        a.leave(1, 100 * MS);
        assert_eq!(a.next(100 * MS), Next::Nothing);
        assert_eq!(a.view(SECOND).throttled, 100 * MS);
    }

    #[test]
    fn lifting_the_limit_releases_one_ring_after_the_other() {
        let mut a = started(limited(1, 1));
        a.take(None, 0, 1, 0);
        a.take(None, 0, 1, 0);
        a.take(None, 1, 1, 0);
        assert_eq!(a.configure(Setting::Unlimited, MS), Change::Applied);
        assert!(a.is_gated());
        assert_eq!(a.next(MS), Next::Wake(0));
        assert_eq!(a.take(None, 0, 1, MS), Take::Free);
        assert_eq!(a.next(MS), Next::Wake(1));
        assert_eq!(a.take(None, 1, 1, MS), Take::Free);
        assert_eq!(a.next(MS), Next::Nothing);
        assert!(!a.is_gated());
    }

    #[test]
    fn a_higher_rate_is_felt_at_once() {
        let mut a = started(limited(1, 1));
        a.take(None, 0, 1, 0);
        a.take(None, 0, 1, 0);
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
        a.take(None, 0, 2, 0);
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
        assert_eq!(a.take(None, 0, 1, 0), Take::Free);
    }

    #[test]
    fn a_bucket_size_alone_is_incomplete() {
        let mut a = started(Setting::Incomplete);
        assert_eq!(a.view(0).state, State::Incomplete);
        assert_eq!(a.take(None, 0, 1, 0), Take::Free);
        assert_eq!(a.configure(Setting::Unlimited, 0), Change::Applied);
        assert_eq!(a.view(0).state, State::Unlimited);
    }

    #[test]
    fn what_a_detach_lets_through_is_paid_back() {
        let mut a = started(limited(10, 1));
        assert!(a.charge(&mut None, 32, 0).is_some());
        assert_eq!(a.view(0).tokens, -31);
        assert_eq!(a.take(None, 0, 1, 0), Take::Wait);
        assert_eq!(a.next(0), Next::At(3200 * MS));
    }

    #[test]
    fn tokens_given_back_are_there_again() {
        let mut a = started(limited(10, 10));
        let bill = a.bill(&None);
        assert_eq!(a.take(None, 0, 10, 0), Take::Tokens(10));
        a.give_back(None, 4, bill);
        assert_eq!(a.view(0).tokens, 4);
        assert_eq!(a.view(0).meter.spent, 6);
    }

    #[test]
    fn a_bucket_that_did_not_pay_gets_nothing_back() {
        let mut a = started(limited(10, 10));
        let bill = a.bill(&None);
        assert_eq!(a.take(None, 0, 10, 0), Take::Tokens(10));
        a.configure(Setting::Unlimited, 0);
        a.configure(limited(10, 10), 0);
        a.give_back(None, 4, bill);
        assert_eq!(a.view(0).tokens, 1);
    }

    #[test]
    fn a_cap_that_did_not_pay_gets_nothing_back() {
        let cap_tokens = |capped_before: bool| {
            let mut a = started(limited(10, 10));
            let mut cap = Cap::new();
            if capped_before {
                cap.wish(0, Limit::new(100, 100), 0);
            }
            let bill = a.bill(&Some((&mut cap, 0)));
            assert_eq!(a.take(Some((&mut cap, 0)), 0, 10, 0), Take::Tokens(10));
            cap.wish(0, Limit::new(100, 90), 0);
            a.give_back(Some((&mut cap, 0)), 4, bill);
            cap.tokens(0)
        };
        assert_eq!(cap_tokens(true), 4);
        assert_eq!(cap_tokens(false), 10);
    }

    #[test]
    fn who_works_on_what_it_got_does_not_hold_up_the_cap() {
        let mut a = started(Setting::Unlimited);
        let mut cap = Cap::new();
        cap.wish(0, Limit::new(20_000, 3), 0);
        for ring in 0..2 {
            assert_ne!(a.take(Some((&mut cap, 0)), ring, 3, 0), Take::Free);
        }
        // Two rings wait; the first is served in part and goes on with its turn.
        let later = 100_000;
        assert!(a.release_from_cap(true, later));
        assert_eq!(a.take(Some((&mut cap, 0)), 1, 9, later), Take::Tokens(2));
        // Its device may keep it: others can have the cap until it asks again.
        assert!(!a.release_from_cap(true, later));
        assert_eq!(a.take(Some((&mut cap, 0)), 1, 7, later), Take::Wait);
        assert!(a.release_from_cap(true, later));
    }

    #[test]
    fn nobody_stays_busy_when_the_last_limit_goes() {
        let mut a = started(Setting::Unlimited);
        let mut cap = Cap::new();
        cap.wish(0, Limit::new(10, 10), 0);
        assert_eq!(a.take(Some((&mut cap, 0)), 0, 1, 0), Take::Tokens(1));
        assert!(!a.is_idle());
        a.release_from_cap(false, 0);
        assert!(a.is_idle());
    }

    #[test]
    fn who_asks_without_a_cap_is_not_held_by_one() {
        let mut a = started(limited(10, 1));
        let mut cap = Cap::new();
        cap.wish(0, Limit::new(1, 1), 0);
        cap.charge(1, 0);
        assert_eq!(a.take(Some((&mut cap, 0)), 1, 1, 0), Take::Wait);
        a.leave(1, 0);
        a.charge(&mut None, 1, 0);
        assert_eq!(a.take(None, 0, 1, 0), Take::Wait);
        assert_eq!(a.next(100 * MS), Next::Wake(0));
    }

    #[test]
    fn a_guest_is_told_what_the_limit_is_not_who_waits() {
        let mut a = started(limited(1, 1));
        a.take(None, 0, 1, 0);
        a.take(None, 0, 1, 0);
        assert_eq!(a.view(0).told, "limited");
        a.configure(Setting::Invalid, 0);
        assert_eq!(a.view(0).told, "invalid");
        // The ring that waited has yet to hear of it.
        a.configure(Setting::Incomplete, 0);
        assert_eq!(
            (a.view(0).state, a.view(0).told),
            (State::Throttled, "incomplete")
        );
        a.configure(Setting::Unlimited, 0);
        assert_eq!(
            (a.view(0).state, a.view(0).told),
            (State::Throttled, "unlimited")
        );
    }
}
