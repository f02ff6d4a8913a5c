// SPDX-License-Identifier: GPL-2.0

//! Who may go now, who waits, and for how long: the limit of one disk.
//!
//! All rings of a disk cap_ref one bucket. A ring asks for tokens for the requests
//! it sees, before it takes any of them off the ring; a request without a token
//! stays where the guest put it. Rings that wait are served in turn, one quantum
//! each, so that none gets more than its cap_ref.
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

use super::super::ids::DiskId;
use super::super::ids::RingId;
use super::super::ids::RINGS_MAX;
use super::bucket::Bucket;
use super::cap::Cap;
use super::limits::tokens_for;
use super::limits::Setting;
use super::limits::Terms;
use super::timer_action::TimerAction;
use super::token_queue::quantum;
use super::token_queue::Generation;
use super::token_queue::TokenQueue;
use super::view::LimitState;
use super::view::LimitView;

/// Levels that a disk's buckets had when a driver let go of it, or that they are to
/// begin with.
#[derive(Clone, Copy, Debug, Default)]
pub struct SavedLevels {
    /// Tokens.
    pub tokens: Option<u32>,
    /// Bytes.
    pub bytes: Option<u32>,
}

impl From<Option<u32>> for SavedLevels {
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

/// The limit of one disk.
#[derive(Clone, Debug)]
pub struct Admission {
    queue: TokenQueue<RINGS_MAX>,
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
pub struct Charge {
    own: Generation,
    cap: Option<Generation>,
}

/// What a disk may be held up by besides its own limit: the cap of its guest, and
/// the disk's place there.
pub type CapRef<'a> = Option<(&'a mut Cap, DiskId)>;

impl Admission {
    /// No limit, as before the keys are read.
    pub const fn unlimited() -> Self {
        Self {
            queue: TokenQueue::new(),
            bytes: None,
            size: 0,
            incomplete: false,
            invalid: false,
            held_by_cap: false,
        }
    }

    /// What the keys say of a disk that no guest has used yet: a limit starts with a
    /// full bucket, or with what is `saved`. Not counted as a change.
    pub fn start(
        &mut self,
        terms: impl Into<Terms>,
        saved: impl Into<SavedLevels>,
        now: u64,
    ) -> Change {
        let (terms, saved) = (terms.into(), saved.into());
        if terms.tokens == Setting::Invalid {
            return self.refuse();
        }
        let bucket = |limit, saved| match saved {
            Some(level) => Bucket::restored(limit, level, now),
            None => Bucket::full(limit, now),
        };
        let tokens = terms
            .tokens
            .limit()
            .map(|limit| bucket(limit, saved.tokens));
        self.queue.start(tokens);
        self.bytes = terms.bytes.map(|limit| bucket(limit, saved.bytes));
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
        self.queue.set_limit(terms.tokens.limit(), now);
        let waiting = self.queue.present() > 0;
        self.bytes = Bucket::changed(self.bytes, terms.bytes, now, waiting);
        if !self.is_limited() {
            self.queue.forget_busy();
        }
        self.queue.meter.changes = self.queue.meter.changes.wrapping_add(1);
        Change::Applied
    }

    /// `ring` sees `wanted` requests (at least one) and asks for tokens for them.
    /// `cap_ref`: the disk's guest may have a cap.
    pub fn take(&mut self, cap_ref: CapRef<'_>, ring: RingId, wanted: u32, now: u64) -> Take {
        let cap_ref = cap_ref.filter(|(cap, _)| cap.limit().is_some());
        let pace = self
            .queue
            .limit()
            .or_else(|| cap_ref.as_ref().and_then(|(cap, _)| cap.limit()));
        if pace.is_none() && self.bytes.is_none() {
            self.leave(ring, now);
            return Take::Free;
        }
        let quantum = match pace {
            Some(limit) if !self.is_priced() => quantum(limit, self.queue.present()),
            Some(_) | None => 1,
        };
        let offer = self.queue.offer(ring, wanted, quantum, now);
        let own = if self.bytes_left(now) {
            offer.tokens
        } else {
            0
        };
        let mut got = own;
        if let (Some((cap, disk)), true) = (cap_ref, offer.is_turn) {
            if own > 0 {
                got = cap.take(disk, own, now);
            }
        }
        if offer.is_turn {
            self.held_by_cap = own > 0 && got == 0;
        }
        if got == 0 {
            self.queue.refuse(ring, wanted, now);
            return Take::Wait;
        }
        self.queue.serve(ring, offer, got, wanted, now);
        Take::Tokens(got)
    }

    /// A request that was let through is one of `bytes`: charges what it costs more
    /// than one token.
    pub fn price(&mut self, bytes: u32, now: u64) {
        let more = tokens_for(bytes, self.size).saturating_sub(1);
        if more > 0 && self.queue.limit().is_some() {
            self.queue.charge(more, now);
        }
        let waiting = self.queue.present() > 0;
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
    pub fn payers(&self, cap_ref: &CapRef<'_>) -> Charge {
        Charge {
            own: self.queue.generation(),
            cap: cap_ref.as_ref().map(|(cap, _)| cap.generation()),
        }
    }

    /// `tokens` of a [`Take::Tokens`], or of what was charged, were not used. What `charge`
    /// names is what paid for them then.
    pub fn give_back(&mut self, cap_ref: CapRef<'_>, tokens: u32, charge: Charge) {
        self.queue.give_back(tokens, charge.own);
        if let (Some((cap, _)), Some(generation)) = (cap_ref, charge.cap) {
            cap.give_back(tokens, generation);
        }
    }

    /// `tokens` requests were let through although they had no token: the disk is
    /// being taken away and its last requests must not outlast the toolstack. Says who
    /// paid, if anybody had to.
    pub fn charge(&mut self, cap_ref: &mut CapRef<'_>, tokens: u32, now: u64) -> Option<Charge> {
        let capped = cap_ref
            .as_ref()
            .is_some_and(|(cap, _)| cap.limit().is_some());
        if !capped && !self.is_limited() {
            return None;
        }
        let charge = self.payers(cap_ref);
        self.queue.charge(tokens, now);
        if let Some((cap, _)) = cap_ref {
            cap.charge(tokens, now);
        }
        Some(charge)
    }

    /// `ring` has nothing to ask for any more.
    pub fn leave(&mut self, ring: RingId, now: u64) {
        self.queue.leave(ring, now);
    }

    /// As [`Self::leave`] if nobody waits: then [`Self::next`] has nothing new to say.
    /// False, with nothing done, if somebody does.
    pub fn leave_unnoticed(&mut self, ring: RingId) -> bool {
        self.queue.leave_unnoticed(ring)
    }

    /// No ring asks for anything any more.
    pub fn leave_all(&mut self, now: u64) {
        self.queue.leave_all(now);
    }

    /// The guest's cap has tokens again, or is another one, or there is none any more
    /// (`capped`). False if nobody has a use for them now, because the disk's own limit
    /// or its device holds it up: then it has to leave the cap to others, and asks again
    /// when it can.
    pub fn release_from_cap(&mut self, capped: bool, now: u64) -> bool {
        self.held_by_cap = false;
        if !capped && !self.is_limited() {
            self.queue.forget_busy();
        }
        match self.next(now) {
            TimerAction::Wake(head) => !self.queue.is_busy(head),
            TimerAction::ArmAt(_) | TimerAction::Stop => false,
        }
    }

    /// Nobody waits, or works on what it got.
    pub fn is_idle(&self) -> bool {
        self.queue.present() == 0
    }

    /// Whom to wake, and when. Asking twice does no harm.
    pub fn next(&mut self, now: u64) -> TimerAction {
        let Some(head) = self.queue.head() else {
            return TimerAction::Stop;
        };
        let mut at = self.queue.ready_at(now);
        if let Some(bytes) = &mut self.bytes {
            bytes.accrue(now, true);
            at = at.max(bytes.ready_at());
        }
        if at > now {
            TimerAction::ArmAt(at)
        } else if self.held_by_cap {
            // Whoever keeps the cap will tell.
            TimerAction::Stop
        } else {
            TimerAction::Wake(head)
        }
    }

    /// Is there a limit in force, or anybody left to be released from one?
    pub fn is_gated(&self) -> bool {
        self.is_limited() || !self.queue.is_empty()
    }

    /// Tokens spent, see [`Meter::spent`](super::meter::Meter::spent).
    pub fn spent(&mut self) -> u64 {
        self.queue.meter.spent()
    }

    /// How it stands at `now`.
    pub fn view(&mut self, now: u64) -> LimitView {
        let waiting = self.queue.present() > 0;
        if let Some(bytes) = &mut self.bytes {
            bytes.accrue(now, waiting);
        }
        let tokens = self.queue.tokens(now);
        LimitView {
            state: self.state(),
            published: self.published(),
            limit: self.queue.limit(),
            tokens: tokens.unwrap_or(0),
            size: self.size,
            bytes_limit: self.bytes.map(|bucket| bucket.limit()),
            bytes: self.bytes.map_or(0, |bucket| bucket.tokens()),
            rate: self.queue.meter.rate(now),
            throttled: self.queue.meter.throttled(now),
            meter: self.queue.meter,
        }
    }

    fn is_limited(&self) -> bool {
        self.queue.limit().is_some() || self.bytes.is_some()
    }

    /// May a request go as far as its bytes are concerned?
    fn bytes_left(&mut self, now: u64) -> bool {
        let waiting = self.queue.present() > 0;
        self.bytes.as_mut().is_none_or(|bucket| {
            bucket.accrue(now, waiting);
            bucket.tokens() > 0
        })
    }

    fn state(&self) -> LimitState {
        let full = |bucket: &Bucket| bucket.is_full();
        if self.invalid {
            LimitState::Invalid
        } else if !self.queue.is_empty() {
            LimitState::Throttled
        } else if self.incomplete {
            LimitState::Incomplete
        } else if !self.is_limited() {
            LimitState::Unlimited
        } else if self.queue.is_full_if_any() && self.bytes.as_ref().is_none_or(full) {
            LimitState::Idle
        } else {
            LimitState::Bursting
        }
    }

    fn published(&self) -> &'static str {
        if self.invalid {
            LimitState::Invalid.name()
        } else if self.is_limited() {
            "limited"
        } else if self.incomplete {
            LimitState::Incomplete.name()
        } else {
            LimitState::Unlimited.name()
        }
    }

    fn terms(&self) -> Terms {
        let tokens = match self.queue.limit() {
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
        self.queue.meter.errors = self.queue.meter.errors.wrapping_add(1);
        Change::Refused { first }
    }
}
