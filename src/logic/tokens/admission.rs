// SPDX-License-Identifier: GPL-2.0

//! Admission: the limit of one disk.
//!
//! All rings of a disk share one bucket. A ring sees unread requests and asks for tokens
//! before it consumes any of them. A request without a token stays on the ring. Rings that
//! wait are served in turn, one quantum each, so that all rings get equal parts.
//!
//! A request is admitted as soon as no bucket that it needs is empty. It costs one token
//! at first. If its size costs more, the rest is charged after the request was consumed,
//! and the next request waits until that debt is paid. So no request waits for a level
//! that a small bucket never reaches, and no request is consumed before it is admitted.
//!
//! The caller holds the lock and owns the timer. After every call that changes the state,
//! the caller carries out the action of [`Admission::next`].
//!
//! | change of the keys | tokens | rings that wait |
//! |---|---|---|
//! | any valid change | the time until now counts at the old rate | the timer is set again at once |
//! | smaller max | tokens above max are lost; a debt remains | wait on |
//! | larger max, other refill | unchanged, no extra tokens | wait on |
//! | no limit any more | dropped, with any debt | go on, each ring wakes the next |
//! | a limit after none | the refill of a tenth of a second, at most max | - |
//! | invalid | unchanged: the last valid limit stays | wait on |
//! | the same again | unchanged | wait on |

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
use super::token_queue::Members;
use super::token_queue::TokenQueue;

mod report;

/// The levels that the buckets of a disk start with, for example those that another driver saved.
/// `None`: a full bucket.
#[derive(Clone, Copy, Debug, Default)]
pub struct SavedLevels {
    /// The number of tokens, below 0 in debt.
    pub tokens: Option<i64>,
    /// The number of bytes, below 0 in debt.
    pub bytes: Option<i64>,
}

impl From<Option<i64>> for SavedLevels {
    fn from(tokens: Option<i64>) -> Self {
        Self {
            tokens,
            bytes: None,
        }
    }
}

/// The result of [`Admission::take`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Take {
    /// There is no limit: the ring may consume all requests.
    Free,
    /// The ring may consume this many requests, at least one.
    Tokens(u32),
    /// The ring may consume no request. [`Admission::next`] says when to wake it.
    Wait,
}

/// The result of a change of the keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The keys have the same meaning as before.
    Same,
    /// The new values are in force.
    Applied,
    /// A key is invalid; the old values stay in force.
    Refused {
        /// All keys were valid before. The caller logs only such a change.
        first: bool,
    },
}

/// The limit of one disk.
#[derive(Clone, Debug)]
pub struct Admission {
    queue: TokenQueue<RINGS_MAX>,
    bytes: Option<Bucket>,
    /// Bytes per token; 0: every request costs one token.
    size: u32,
    incomplete: bool,
    invalid: bool,
    /// The next ring could have tokens of the disk, but waits for tokens of the cap.
    blocked_by_cap: bool,
}

/// The buckets that tokens were taken from. Unused tokens go back only to these.
#[derive(Clone, Copy, Debug)]
pub struct Charge {
    own: Generation,
    cap: Option<Generation>,
}

/// The cap of the guest, which may be without a limit, and the number of the disk there. `None`
/// if the guest has no cap.
pub type CapRef<'a> = Option<(&'a mut Cap, DiskId)>;

impl Admission {
    /// An admission without a limit, for the time before the keys are read.
    pub const fn unlimited() -> Self {
        Self {
            queue: TokenQueue::new(),
            bytes: None,
            size: 0,
            incomplete: false,
            invalid: false,
            blocked_by_cap: false,
        }
    }

    /// Applies the keys of a new disk: a limit starts with a full bucket, or with the
    /// `saved` level. This is not counted as a change.
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

    /// Applies a change of the keys.
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
        let waiting = self.queue.active() > 0;
        self.bytes = Bucket::changed(self.bytes, terms.bytes, now, waiting);
        if !self.is_limited() {
            self.queue.clear_busy();
        }
        self.queue.meter.changes = self.queue.meter.changes.wrapping_add(1);
        Change::Applied
    }

    /// As [`Self::take`] of a ring of a disk without a cap, if it can have all `wanted` tokens at once
    /// and no ring waits. Then [`Self::next`] is the same as before. Otherwise `None`, with no token taken.
    #[inline]
    pub fn pass(&mut self, ring: RingId, wanted: u32, now: u64) -> Option<Charge> {
        if self.is_priced() || !self.queue.pass(ring, wanted, now) {
            return None;
        }
        Some(Charge {
            own: self.queue.generation(),
            cap: None,
        })
    }

    /// `ring` sees `wanted` unread requests (at least one) and asks for tokens for them.
    pub fn take(&mut self, cap_ref: CapRef<'_>, ring: RingId, wanted: u32, now: u64) -> Take {
        if cap_ref.is_none() && self.pass(ring, wanted, now).is_some() {
            return Take::Tokens(wanted);
        }
        self.queue.enter(ring);
        let cap_ref = cap_ref.filter(|(cap, _)| cap.limit().is_some());
        let rate = self
            .queue
            .limit()
            .or_else(|| cap_ref.as_ref().and_then(|(cap, _)| cap.limit()));
        if rate.is_none() && self.bytes.is_none() {
            self.leave(ring, now);
            return Take::Free;
        }
        let quantum = match rate {
            Some(limit) if !self.is_priced() => quantum(limit, self.queue.active()),
            Some(_) | None => 1,
        };
        let offer = self.queue.offer(ring, wanted, quantum, now);
        let own = if self.bytes_left(now) {
            offer.tokens
        } else {
            0
        };
        let mut got = own;
        if let (Some((cap, disk)), true) = (cap_ref, offer.is_next) {
            if own > 0 {
                got = cap.take(disk, own, now);
            }
        }
        if offer.is_next {
            self.blocked_by_cap = own > 0 && got == 0;
        }
        if got == 0 {
            self.queue.refuse(ring, wanted, now);
            return Take::Wait;
        }
        self.queue.serve(ring, offer, got, wanted, now);
        Take::Tokens(got)
    }

    /// Charges the cost above one token of an admitted request of `bytes` bytes.
    pub fn price(&mut self, bytes: u32, now: u64) {
        let more = tokens_for(bytes, self.size).saturating_sub(1);
        if more > 0 && self.queue.limit().is_some() {
            self.queue.charge(more, now);
        }
        let waiting = self.queue.active() > 0;
        if let Some(bucket) = &mut self.bytes {
            bucket.accrue(now, waiting);
            bucket.charge(bytes);
        }
    }

    /// Whether the cost of a request depends on its size.
    pub fn is_priced(&self) -> bool {
        self.size > 0 || self.bytes.is_some()
    }

    /// The buckets that tokens are taken from now.
    pub fn payers(&self, cap_ref: &CapRef<'_>) -> Charge {
        Charge {
            own: self.queue.generation(),
            cap: cap_ref.as_ref().map(|(cap, _)| cap.generation()),
        }
    }

    /// Returns unused `tokens` of a [`Take::Tokens`] or of [`Self::charge`] to the buckets of
    /// `charge`.
    pub fn give_back(&mut self, cap_ref: CapRef<'_>, tokens: u32, charge: Charge) {
        self.queue.give_back(tokens, charge.own);
        if let (Some((cap, _)), Some(generation)) = (cap_ref, charge.cap) {
            cap.give_back(tokens, generation);
        }
    }

    /// Charges `tokens` for requests that are admitted without tokens: a disk that is being
    /// detached must complete its last requests before the toolstack gives up. Returns the
    /// buckets, or `None` if there is no limit and no cap.
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

    /// Records that `ring` has no more requests.
    pub fn leave(&mut self, ring: RingId, now: u64) {
        self.queue.leave(ring, now);
    }

    /// As [`Self::leave`], but only if no ring waits: then the result of [`Self::next`] does
    /// not change. Returns false, without any effect, if a ring waits.
    pub fn leave_idle(&mut self, ring: RingId) -> bool {
        self.queue.leave_idle(ring)
    }

    /// Records that no ring has any requests.
    pub fn leave_all(&mut self, now: u64) {
        self.queue.leave_all(now);
    }

    /// Handles that the cap has tokens again, or has changed, or was removed (`capped` is
    /// false). Returns false if no ring can use the tokens now, because of the disk's own
    /// limit or because the next ring is busy. Then the caller removes the disk from the
    /// queue of the cap; the disk asks again when it can.
    pub fn release_from_cap(&mut self, capped: bool, now: u64) -> bool {
        self.blocked_by_cap = false;
        if !capped && !self.is_limited() {
            self.queue.clear_busy();
        }
        match self.next(now) {
            TimerAction::Wake(head) => !self.queue.is_busy(head),
            TimerAction::ArmAt(_) | TimerAction::Stop => false,
        }
    }

    /// Whether no ring waits, and no ring works on requests that got tokens, except in passing: such a
    /// ring is not known to the cap.
    pub fn is_idle(&self) -> bool {
        self.queue.is_idle()
    }

    /// The rings that got tokens in passing and have not left, see
    /// [`TokenQueue::pass`](super::token_queue::TokenQueue::pass).
    pub fn passing(&self) -> Members {
        self.queue.passing()
    }

    /// Sets those rings, of which some may have left without a call of [`Self::leave`].
    pub fn set_passing(&mut self, passing: Members) {
        self.queue.set_passing(passing);
    }

    /// The timer action: which ring to wake, and when. May be called again at any time.
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
        } else if self.blocked_by_cap {
            // The owner of the cap calls `release_from_cap`.
            TimerAction::Stop
        } else {
            TimerAction::Wake(head)
        }
    }

    /// Whether there is a limit, or a ring still waits for the end of one.
    pub fn is_gated(&self) -> bool {
        self.is_limited() || !self.queue.is_empty()
    }

    /// The number of tokens spent, see [`Meter::spent`](super::meter::Meter::spent).
    pub fn spent(&mut self) -> u64 {
        self.queue.meter.spent()
    }

    fn is_limited(&self) -> bool {
        self.queue.limit().is_some() || self.bytes.is_some()
    }

    /// Whether the limit in bytes, if any, admits a request.
    fn bytes_left(&mut self, now: u64) -> bool {
        let waiting = self.queue.active() > 0;
        self.bytes.as_mut().is_none_or(|bucket| {
            bucket.accrue(now, waiting);
            bucket.tokens() > 0
        })
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
