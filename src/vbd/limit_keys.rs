// SPDX-License-Identifier: GPL-2.0

//! The keys of the limit in our directory, read and made sense of.
//!
//! | key | written by | meaning |
//! |---|---|---|
//! | `tokens-*`, `bytes-*` (see [`LIMITS`]) | administrator | the limit, see `logic::tokens::limits` |
//! | `tokens-initial` | toolstack | tokens that a disk begins with which no guest has used |
//! | `tokens-level`, `bytes-level`, `tokens-vm-level` | this driver | the buckets' levels, from unbind to bind |
//!
//! All functions talk to xenstored, wait for nothing else, and sleep.

use kernel::prelude::*;

use crate::logic::number::signed;
use crate::logic::tokens::admission::SavedLevels;
use crate::logic::tokens::limits::setting;
use crate::logic::tokens::limits::terms;
use crate::logic::tokens::limits::Key;
use crate::logic::tokens::limits::Keys;
use crate::logic::tokens::limits::Limit;
use crate::logic::tokens::limits::Setting;
use crate::logic::tokens::limits::Terms;
use crate::logic::tokens::limits::VALUE_MAX;
use crate::xenbus::store::transaction;
use crate::xenbus::store::within;
use crate::xenbus::store::Value;

/// The keys of a limit, in the order of [`LimitTexts`].
pub(super) const LIMITS: [&CStr; 9] = [
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
const TOKENS_LEVEL: &CStr = c"tokens-level";
const BYTES_LEVEL: &CStr = c"bytes-level";
const VM_LEVEL: &CStr = c"tokens-vm-level";

/// The texts of the keys of a limit, as they stood together.
pub(super) struct LimitTexts([Option<Value>; LIMITS.len()]);

/// What the keys ask for.
pub(super) struct RequestedLimit {
    /// For the disk.
    pub(super) terms: Terms,
    /// For its guest.
    pub(super) cap: Option<Limit>,
    /// Seconds between two writes of live numbers for the guest; 0: never.
    pub(super) publish: u32,
    /// Tokens that the disk begins with.
    pub(super) initial: Option<u32>,
}

impl RequestedLimit {
    /// Do all keys make sense?
    pub(super) fn is_valid(&self) -> bool {
        self.terms.tokens != Setting::Invalid
    }
}

impl LimitTexts {
    /// Reads the keys in our directory `dir`.
    ///
    /// # Errors
    ///
    /// What xenstored answers.
    pub(super) fn read(dir: &CStr) -> Result<Self> {
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

    /// What they ask for. `default` is for a disk without a limit of its own.
    pub(super) fn requested(&self, default: Setting) -> RequestedLimit {
        let [refill, max, size, bytes_refill, bytes_max, vm_refill, vm_max, publish, initial] =
            self.keys();
        let keys = Keys {
            refill,
            max,
            size,
            bytes_refill,
            bytes_max,
        };
        let mut terms = terms(keys, default);
        let cap = setting(vm_refill, vm_max);
        if cap == Setting::Invalid || [publish, initial].contains(&Key::Invalid) {
            terms.tokens = Setting::Invalid;
        }
        RequestedLimit {
            terms,
            cap: cap.limit(),
            publish: value(publish).unwrap_or(0),
            initial: value(initial),
        }
    }

    /// The first key that makes no sense, and its text.
    pub(super) fn invalid(&self) -> Option<(&'static CStr, &[u8])> {
        let keys = self.keys();
        let at = keys.iter().position(|key| *key == Key::Invalid)?;
        let text = self.0.get(at)?;
        Some((LIMITS.get(at)?, bytes(text).unwrap_or_default()))
    }
}

fn value(key: Key) -> Option<u32> {
    match key {
        Key::Value(value) => Some(value),
        Key::Absent | Key::Invalid => None,
    }
}

/// The bytes of `text` without its terminator. As `CStr::to_bytes`, without an overflow check, which
/// would be a way to panic.
pub(super) fn letters(text: &CStr) -> &[u8] {
    let whole = text.to_bytes_with_nul();
    whole.split_last().map_or(whole, |(_, letters)| letters)
}

fn bytes(value: &Option<Value>) -> Option<&[u8]> {
    value.as_ref().map(Value::bytes)
}

/// The levels that an earlier driver left.
pub(super) struct StoredLevels {
    /// Of the disk's buckets.
    pub(super) own: SavedLevels,
    /// Of the guest's cap.
    pub(super) cap: Option<i64>,
}

impl StoredLevels {
    /// No levels.
    pub(super) const NONE: Self = Self {
        own: SavedLevels {
            tokens: None,
            bytes: None,
        },
        cap: None,
    };

    /// Is there no level?
    pub(super) fn is_none(&self) -> bool {
        self.own.tokens.is_none() && self.own.bytes.is_none() && self.cap.is_none()
    }

    /// Reads the levels in our directory `dir`. They stay there until [`Self::remove`].
    ///
    /// # Errors
    ///
    /// What xenstored answers.
    pub(super) fn read(dir: &CStr) -> Result<Self> {
        transaction(|store| {
            let level = |key| {
                let text = store.read(dir, key)?;
                Ok::<_, Error>(text.and_then(|text| signed(text.bytes(), VALUE_MAX)))
            };
            Ok(Self {
                own: SavedLevels {
                    tokens: level(TOKENS_LEVEL)?,
                    bytes: level(BYTES_LEVEL)?,
                },
                cap: level(VM_LEVEL)?,
            })
        })
    }

    /// Removes the levels from `dir`: they are used up.
    pub(super) fn remove(dir: &CStr) {
        // If they cannot be removed, the next bucket starts with that much.
        let _ = within(dir, |store, dir| {
            for key in [TOKENS_LEVEL, BYTES_LEVEL, VM_LEVEL] {
                if store.read(dir, key)?.is_some() {
                    store.remove(dir, key)?;
                }
            }
            Ok(())
        });
    }

    /// Writes the levels to `dir`, for the next driver of the disk.
    pub(super) fn write(&self, dir: &CStr) {
        // If they cannot be written, the next bucket starts full.
        let _ = within(dir, |store, dir| {
            let write = |key, level: Option<i64>| match level {
                Some(level) => store.write(dir, key, fmt!("{}", level)),
                None => Ok(()),
            };
            write(TOKENS_LEVEL, self.own.tokens)?;
            write(BYTES_LEVEL, self.own.bytes)?;
            write(VM_LEVEL, self.cap)
        });
    }
}
