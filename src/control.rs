// SPDX-License-Identifier: GPL-2.0

//! The keys an administrator or a toolstack writes into our directory, and what we
//! write there about the limit.
//!
//! One watch on the directory; only the keys below matter, so that our own writes
//! there wake nobody. Whatever changed, all of them are read again.
//!
//! | key | written by | meaning |
//! |---|---|---|
//! | `tokens-*`, `bytes-*` (see [`LIMITS`]) | administrator | the limit, see `logic::limits` |
//! | `tokens-initial` | toolstack | tokens that a disk begins with which no guest has used |
//! | `physical-device` | block hotplug script | the device, `major:minor` in hex |
//! | `online` | toolstack | 0: the disk is to go |
//! | `tokens-level`, `bytes-level`, `tokens-vm-level` | this driver | the buckets' levels, from unbind to bind |
//! | `qos-refill`, `qos-max`, `qos-state` | this driver | the limit in force, for the guest |
//! | `qos-tokens`, `qos-io-count`, `qos-throttled-usec` | this driver | live, every `tokens-publish` seconds |

#![forbid(unsafe_code)]

use kernel::{
    fmt,
    prelude::*,
    str::CString,
    sync::{
        atomic::ordering::Relaxed,
        Arc, //
    }, //
};

use crate::logic::admission::Change;
use crate::logic::admission::Kept;
use crate::logic::limits::setting;
use crate::logic::limits::terms;
use crate::logic::limits::Key;
use crate::logic::limits::Keys as LimitKeys;
use crate::logic::limits::Limit;
use crate::logic::limits::Setting;
use crate::logic::limits::Terms;
use crate::logic::limits::VALUE_MAX;
use crate::logic::number::decimal;
use crate::logic::number::Foreign;
use crate::vbd::Vbd;
use crate::xenbus::store::transaction;
use crate::xenbus::store::within;
use crate::xenbus::store::Value;
use crate::xenbus::watch::Handler;

/// The keys of a limit, in the order of [`Texts`].
const LIMITS: [&CStr; 9] = [
    c"tokens-refill",
    c"tokens-max",
    c"tokens-size",
    c"bytes-refill",
    c"bytes-max",
    c"tokens-vm-refill",
    c"tokens-vm-max",
    c"tokens-publish",
    c"tokens-initial",
];
const OTHERS: [&[u8]; 2] = [b"physical-device", b"online"];
/// What was left when the driver let go of the disk.
const LEVEL: &CStr = c"tokens-level";
const BYTES_LEVEL: &CStr = c"bytes-level";
const VM_LEVEL: &CStr = c"tokens-vm-level";
const NS_PER_US: u64 = 1000;

/// Reacts to changes in a disk's directory.
pub(crate) struct Keys(pub(crate) Arc<Vbd>);

impl Handler for Keys {
    fn matters(&self, path: &[u8]) -> bool {
        let is = |key: &[u8]| {
            path.strip_suffix(key)
                .is_some_and(|dir| dir.ends_with(b"/"))
        };
        LIMITS.iter().any(|key| is(letters(key))) || OTHERS.iter().any(|key| is(key))
    }

    fn changed(&self) {
        self.0.load_limit();
        self.0.device_named();
    }
}

/// The texts of the keys of a limit, as they stood together.
struct Texts([Option<Value>; LIMITS.len()]);

impl Texts {
    fn read(dir: &CStr) -> Result<Self> {
        transaction(|store| {
            // Most disks have few of them, and each read is a round trip.
            let names = store.list(dir)?;
            let mut texts = [const { None }; LIMITS.len()];
            for (text, key) in texts.iter_mut().zip(LIMITS) {
                if names.has(key) {
                    *text = store.read(dir, key)?;
                }
            }
            Ok(Self(texts))
        })
    }

    fn keys(&self) -> [Key; LIMITS.len()] {
        self.0.each_ref().map(|text| Key::parse(bytes(text)))
    }

    /// What they ask for, for the disk, for its guest, and how often to publish.
    fn ask(&self, default: Setting) -> Asked {
        let [refill, max, size, bytes_refill, bytes_max, vm_refill, vm_max, publish, initial] =
            self.keys();
        let mut terms = terms(
            LimitKeys {
                refill,
                max,
                size,
                bytes_refill,
                bytes_max,
            },
            default,
        );
        let cap = setting(vm_refill, vm_max);
        if cap == Setting::Invalid || [publish, initial].contains(&Key::Invalid) {
            terms.tokens = Setting::Invalid;
        }
        Asked {
            terms,
            cap: cap.limit(),
            publish: value(publish).unwrap_or(0),
            initial: value(initial),
        }
    }

    /// The first key that makes no sense.
    fn invalid(&self) -> Option<(&'static CStr, &[u8])> {
        let keys = self.keys();
        let at = keys.iter().position(|key| *key == Key::Invalid)?;
        let text = self.0.get(at)?;
        Some((LIMITS.get(at)?, bytes(text).unwrap_or_default()))
    }
}

/// What is remembered of a limit's keys.
pub(crate) struct Told {
    /// What an earlier driver left.
    levels: Levels,
    shown: Option<Shown>,
}

impl Told {
    /// Nothing yet.
    pub(crate) const fn new() -> Self {
        let own = Kept {
            tokens: None,
            bytes: None,
        };
        Self {
            levels: Levels { own, cap: None },
            shown: None,
        }
    }
}

/// What the guest was told of its limit.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Shown {
    refill: u32,
    max: u32,
    state: &'static str,
}

/// What the keys ask for.
struct Asked {
    terms: Terms,
    cap: Option<Limit>,
    publish: u32,
    initial: Option<u32>,
}

impl Asked {
    fn is_valid(&self) -> bool {
        self.terms.tokens != Setting::Invalid
    }
}

fn value(key: Key) -> Option<u32> {
    match key {
        Key::Value(value) => Some(value),
        Key::Absent | Key::Invalid => None,
    }
}

/// A text without its terminator.
fn letters(text: &CStr) -> &[u8] {
    let whole = text.to_bytes_with_nul();
    whole.split_last().map_or(whole, |(_, letters)| letters)
}

fn bytes(value: &Option<Value>) -> Option<&[u8]> {
    value.as_ref().map(Value::bytes)
}

/// The levels that an earlier driver left.
struct Levels {
    own: Kept,
    cap: Option<u32>,
}

impl Levels {
    fn is_none(&self) -> bool {
        self.own.tokens.is_none() && self.own.bytes.is_none() && self.cap.is_none()
    }

    /// Reads them. They stay until the disk is ours, see [`Vbd::drop_level`].
    fn read(dir: &CStr) -> Result<Self> {
        transaction(|store| {
            let level = |key| {
                let text = store.read(dir, key)?;
                Ok::<_, Error>(text.and_then(|text| decimal(text.bytes(), VALUE_MAX)))
            };
            Ok(Self {
                own: Kept {
                    tokens: level(LEVEL)?,
                    bytes: level(BYTES_LEVEL)?,
                },
                cap: level(VM_LEVEL)?,
            })
        })
    }
}

impl Vbd {
    /// Reads the limit that the disk starts with. Talks to xenstored.
    ///
    /// # Errors
    ///
    /// What xenstored answers: a disk whose limit is not known must not be served.
    pub(crate) fn start_limit(&self) -> Result {
        let mut told = self.told.lock();
        told.levels = Levels::read(self.dev.nodename())?;
        let texts = Texts::read(self.dev.nodename())?;
        let asked = texts.ask(self.default_limit);
        if !asked.is_valid() {
            // What the module's parameters say is better than no limit.
            self.gate()
                .start(self.default_limit.into(), told.levels.own);
        }
        self.apply(&asked, &texts, &mut told);
        Ok(())
    }

    /// The disk is ours: what an earlier driver left is used up. Talks to xenstored.
    pub(crate) fn drop_level(&self) {
        if self.told.lock().levels.is_none() {
            return;
        }
        // Nobody to tell if they cannot be removed: the next bucket starts with that much.
        let _ = within(self.dev.nodename(), |store, dir| {
            for key in [LEVEL, BYTES_LEVEL, VM_LEVEL] {
                if store.read(dir, key)?.is_some() {
                    store.remove(dir, key)?;
                }
            }
            Ok(())
        });
    }

    /// Reads the limit's keys and applies them. Talks to xenstored, does not wait
    /// for anything else. A limit that cannot be read stays as it is.
    pub(crate) fn load_limit(&self) {
        // Who reads later applies later.
        let mut told = self.told.lock();
        match Texts::read(self.dev.nodename()) {
            Ok(texts) => self.apply(&texts.ask(self.default_limit), &texts, &mut told),
            Err(e) => self
                .dev
                .report(e, fmt!("the limit cannot be read and stays as it was")),
        }
    }

    /// A disk that was never connected begins with what is asked for; one that was
    /// changes to it.
    fn apply(&self, asked: &Asked, texts: &Texts, told: &mut Told) {
        let seat = self.gate().seat();
        let used = self.was_connected();
        let change = if used {
            self.gate().configure(asked.terms)
        } else {
            let mut own = told.levels.own;
            own.tokens = own.tokens.or(asked.initial);
            self.gate().start(asked.terms, own)
        };
        if asked.is_valid() {
            if used {
                seat.wish(asked.cap);
            } else {
                seat.begin(asked.cap, told.levels.cap);
            }
            self.publish.store(asked.publish, Relaxed);
        }
        self.tell(change, texts, told);
    }

    fn tell(&self, change: Change, texts: &Texts, told: &mut Told) {
        if let (Change::Refused { first: true }, Some((key, text))) = (change, texts.invalid()) {
            self.dev.report(
                EINVAL,
                fmt!(
                    "{} {} is not a number from 0 to {}; the limit stays as it was",
                    key,
                    Foreign(text),
                    VALUE_MAX
                ),
            );
        }
        self.publish_limit(told);
    }

    /// Tells the guest which limit is in force, if it was not told that already.
    fn publish_limit(&self, told: &mut Told) {
        let view = self.gate().view();
        let number = |get: fn(&Limit) -> u32| view.limit.as_ref().map_or(0, get);
        let now = Shown {
            refill: number(Limit::refill),
            max: number(Limit::max),
            state: view.told,
        };
        if told.shown == Some(now) {
            return;
        }
        let written = within(self.dev.nodename(), |store, dir| {
            store.write(dir, c"qos-refill", fmt!("{}", now.refill))?;
            store.write(dir, c"qos-max", fmt!("{}", now.max))?;
            store.write(dir, c"qos-state", fmt!("{}", now.state))
        });
        // Nobody to tell if it cannot be written; the next change tries again.
        if written.is_ok() {
            told.shown = Some(now);
        }
    }

    /// Tells the guest the numbers that change with every request.
    pub(crate) fn publish_numbers(&self) {
        let view = self.gate().view();
        self.publish_changed(&[
            (c"qos-tokens", fmt!("{}", view.tokens)),
            (c"qos-io-count", fmt!("{}", self.gate().spent())),
            (
                c"qos-throttled-usec",
                fmt!("{}", view.throttled / NS_PER_US),
            ),
        ]);
    }

    /// Writes those of our keys that do not say so already: every write wakes whoever
    /// watches.
    fn publish_changed(&self, keys: &[(&CStr, fmt::Arguments<'_>)]) {
        // Nobody to tell if it cannot be written; the next change tries again.
        let _ = within(self.dev.nodename(), |store, dir| {
            for (key, value) in keys {
                let text = CString::try_from_fmt(*value)?;
                let told = store.read(dir, key)?;
                if told.as_ref().map(Value::bytes) != Some(letters(&text)) {
                    store.write(dir, key, *value)?;
                }
            }
            Ok(())
        });
    }

    /// Leaves the buckets' levels for the next driver of this disk: unbinding and
    /// binding must not fill them up. Talks to xenstored.
    pub(crate) fn keep_level(&self) {
        let view = self.gate().view();
        let cap = self.gate().seat().view();
        // Nobody to tell if it cannot be written: the next bucket starts full.
        let _ = within(self.dev.nodename(), |store, dir| {
            let level = |key, limit: Option<Limit>, level: i64| match limit {
                Some(_) => store.write(dir, key, fmt!("{}", level.max(0))),
                None => Ok(()),
            };
            level(LEVEL, view.limit, view.tokens)?;
            level(BYTES_LEVEL, view.bytes_limit, view.bytes)?;
            level(VM_LEVEL, cap.limit, cap.tokens)
        });
    }
}
