// SPDX-License-Identifier: GPL-2.0

//! Applying the keys of the limit, and telling the guest which limit is in force.
//!
//! | key | meaning |
//! |---|---|
//! | `qos-refill`, `qos-max`, `qos-state` | the limit in force, written when it changes |
//! | `qos-tokens`, `qos-io-count`, `qos-throttled-usec` | live, every `tokens-publish` seconds |
//!
//! Context: the functions that talk to xenstored run in the xenwatch thread, in `probe` or in the
//! disk's work item; they sleep and wait for nothing else.

use kernel::{
    fmt,
    new_mutex,
    prelude::*,
    str::CString,
    sync::{
        atomic::{
            ordering::Relaxed,
            Atomic,
            AtomicFlag, //
        },
        Arc,
        Mutex, //
    }, //
};

use super::limit_keys::letters;
use super::limit_keys::LimitTexts;
use super::limit_keys::RequestedLimit;
use super::limit_keys::StoredLevels;
use crate::logic::number::UntrustedText;
use crate::logic::tokens::admission::Change;
use crate::logic::tokens::admission::SavedLevels;
use crate::logic::tokens::limits::Limit;
use crate::logic::tokens::limits::Setting;
use crate::logic::tokens::limits::VALUE_MAX;
use crate::qos::gate::Gate;
use crate::sys::params;
use crate::xenbus::device::DeviceRef;
use crate::xenbus::store::within;
use crate::xenbus::store::Value;

const NS_PER_US: u64 = 1000;

/// The limit that the guest was told.
#[derive(Clone, Copy, PartialEq, Eq)]
struct PublishedLimit {
    refill: u32,
    max: u32,
    state: &'static str,
}

/// What is remembered of the keys.
struct ControlState {
    /// What an earlier driver left.
    levels: StoredLevels,
    published: Option<PublishedLimit>,
}

/// Keeps the limit of a disk as its keys say.
#[pin_data]
pub(super) struct LimitControl {
    dev: DeviceRef,
    gate: Arc<Gate>,
    /// The limit of a disk that has no key for one.
    default: Setting,
    /// A guest has used the disk, or is about to. Changed with the lock of `state`.
    used: AtomicFlag,
    /// Seconds between two writes of live numbers; 0: never.
    publish: Atomic<u32>,
    /// The keys may have changed since they were read.
    stale: AtomicFlag,
    #[pin]
    state: Mutex<ControlState>,
}

impl LimitControl {
    /// The limit of the disk of `dev` is that of `gate`.
    pub(super) fn new(dev: DeviceRef, gate: Arc<Gate>) -> impl PinInit<Self> {
        let state = ControlState {
            levels: StoredLevels::NONE,
            published: None,
        };
        pin_init!(Self {
            dev,
            gate,
            default: default_limit(),
            used: AtomicFlag::new(false),
            publish: Atomic::new(0),
            stale: AtomicFlag::new(false),
            state <- new_mutex!(state, "rblkback::limit"),
        })
    }

    /// Reads and applies the limit that the disk starts with.
    ///
    /// # Errors
    ///
    /// What xenstored answers: a disk whose limit is not known must not be served.
    pub(super) fn start(&self) -> Result {
        let mut state = self.state.lock();
        state.levels = StoredLevels::read(self.dev.nodename())?;
        let texts = LimitTexts::read(self.dev.nodename())?;
        let requested = texts.requested(self.default);
        if !requested.is_valid() {
            // What the module's parameters say is better than no limit.
            self.gate.start(self.default.into(), state.levels.own);
        }
        self.apply(&requested, &texts, &mut state);
        Ok(())
    }

    /// Reads the limit's keys and applies them. A limit that cannot be read stays as it is, and the
    /// caller has to see to another attempt.
    ///
    /// # Errors
    ///
    /// What xenstored answers.
    pub(super) fn update(&self) -> Result {
        // With the lock, so that a thread that reads later applies later.
        let mut state = self.state.lock();
        self.stale.store(true, Relaxed);
        let texts = LimitTexts::read(self.dev.nodename())?;
        self.stale.store(false, Relaxed);
        self.apply(&texts.requested(self.default), &texts, &mut state);
        Ok(())
    }

    /// Could the keys not be read the last time that they changed?
    pub(super) fn is_stale(&self) -> bool {
        self.stale.load(Relaxed)
    }

    /// A guest uses the disk from now on: changes of the keys are changes of a limit that is in
    /// force. Sleeps.
    pub(super) fn mark_used(&self) {
        // A thread that applies keys does so before or after.
        let _state = self.state.lock();
        self.used.store(true, Relaxed);
    }

    /// A disk that no guest has used begins with what is requested; one that a guest has used
    /// changes to it.
    fn apply(&self, requested: &RequestedLimit, texts: &LimitTexts, state: &mut ControlState) {
        let slot = self.gate.slot();
        let used = self.used.load(Relaxed);
        let change = if used {
            self.gate.configure(requested.terms)
        } else {
            let mut saved = state.levels.own;
            saved.tokens = saved.tokens.or(requested.initial.map(i64::from));
            self.gate.start(requested.terms, saved)
        };
        if requested.is_valid() {
            if used {
                slot.request_cap(requested.cap);
            } else {
                slot.start_cap(requested.cap, state.levels.cap);
            }
            self.publish.store(requested.publish, Relaxed);
        }
        self.report(change, texts);
        self.publish_limit(state);
    }

    fn report(&self, change: Change, texts: &LimitTexts) {
        if let (Change::Refused { first: true }, Some((key, text))) = (change, texts.invalid()) {
            self.dev.report(
                EINVAL,
                fmt!(
                    "{} {} is not a number from 0 to {}; the limit stays as it was",
                    key,
                    UntrustedText(text),
                    VALUE_MAX
                ),
            );
        }
    }

    /// Tells the guest which limit is in force, unless it was told that already.
    fn publish_limit(&self, state: &mut ControlState) {
        let view = self.gate.view();
        let number = |get: fn(&Limit) -> u32| view.limit.as_ref().map_or(0, get);
        let now = PublishedLimit {
            refill: number(Limit::refill),
            max: number(Limit::max),
            state: view.published,
        };
        if state.published == Some(now) {
            return;
        }
        let written = within(self.dev.nodename(), |store, dir| {
            store.write(dir, c"qos-refill", fmt!("{}", now.refill))?;
            store.write(dir, c"qos-max", fmt!("{}", now.max))?;
            store.write(dir, c"qos-state", fmt!("{}", now.state))
        });
        // If it cannot be written, the next change tries again.
        if written.is_ok() {
            state.published = Some(now);
        }
    }

    /// Are live numbers due in the second `tick`? Context: any.
    pub(super) fn is_publish_due(&self, tick: u32) -> bool {
        match self.publish.load(Relaxed) {
            0 => false,
            every => tick % every == 0,
        }
    }

    /// Tells the guest the numbers that change with every request.
    pub(super) fn publish_numbers(&self) {
        let view = self.gate.view();
        self.publish_changed(&[
            (c"qos-tokens", fmt!("{}", view.tokens)),
            (c"qos-io-count", fmt!("{}", self.gate.spent())),
            (
                c"qos-throttled-usec",
                fmt!("{}", view.throttled / NS_PER_US),
            ),
        ]);
    }

    /// Writes those of our keys that hold another value: every write fires watches.
    fn publish_changed(&self, keys: &[(&CStr, fmt::Arguments<'_>)]) {
        // If they cannot be written, the next change tries again.
        let _ = within(self.dev.nodename(), |store, dir| {
            for (key, value) in keys {
                let text = CString::try_from_fmt(*value)?;
                let old = store.read(dir, key)?;
                if old.as_ref().map(Value::bytes) != Some(letters(&text)) {
                    store.write(dir, key, *value)?;
                }
            }
            Ok(())
        });
    }

    /// Removes the levels that an earlier driver left: the disk is ours, they are used up.
    pub(super) fn remove_levels(&self) {
        if !self.state.lock().levels.is_none() {
            StoredLevels::remove(self.dev.nodename());
        }
    }

    /// Leaves the buckets' levels for the next driver of this disk: unbinding and binding must not
    /// fill the buckets.
    pub(super) fn save_levels(&self) {
        let view = self.gate.view();
        let cap = self.gate.slot().cap_view();
        let level = |limit: Option<Limit>, level| limit.map(|_| level);
        let levels = StoredLevels {
            own: SavedLevels {
                tokens: level(view.limit, view.tokens),
                bytes: level(view.bytes_limit, view.bytes),
            },
            cap: level(cap.limit, cap.tokens),
        };
        levels.write(self.dev.nodename());
    }
}

/// The limit that the module parameters give a disk without keys.
fn default_limit() -> Setting {
    let limit = Limit::new(
        params::default_tokens_refill(),
        params::default_tokens_max(),
    );
    limit.map_or(Setting::Unlimited, Setting::Limited)
}
