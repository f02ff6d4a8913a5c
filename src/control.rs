// SPDX-License-Identifier: GPL-2.0

//! The keys an administrator or a toolstack writes into our directory.
//!
//! One watch on the directory; only the keys below matter, so that our own writes
//! there wake nobody. Whatever changed, all of them are read again.
//!
//! | key | written by | meaning |
//! |---|---|---|
//! | `tokens-refill`, `tokens-max` | administrator | the limit, see `logic::limits` |
//! | `physical-device` | block hotplug script | the device, `major:minor` in hex |
//! | `online` | toolstack | 0: the disk is to go |
//! | `tokens-level` | this driver | the bucket's level, from unbind to bind |

#![forbid(unsafe_code)]

use kernel::{
    prelude::*,
    sync::Arc, //
};

use crate::logic::admission::Change;
use crate::logic::limits::setting;
use crate::logic::limits::Key;
use crate::logic::limits::Setting;
use crate::logic::limits::VALUE_MAX;
use crate::logic::number::decimal;
use crate::logic::number::Foreign;
use crate::vbd::Vbd;
use crate::xenbus::store::transaction;
use crate::xenbus::store::within;
use crate::xenbus::store::Value;
use crate::xenbus::watch::Handler;

const REFILL: &CStr = c"tokens-refill";
const MAX: &CStr = c"tokens-max";
/// Tokens left when the driver let go of the disk.
const LEVEL: &CStr = c"tokens-level";
const KEYS: [&[u8]; 4] = [
    REFILL.to_bytes(),
    MAX.to_bytes(),
    b"physical-device",
    b"online",
];

/// Reacts to changes in a disk's directory.
pub(crate) struct Keys(pub(crate) Arc<Vbd>);

impl Handler for Keys {
    fn matters(&self, path: &[u8]) -> bool {
        KEYS.iter().any(|key| {
            path.strip_suffix(*key)
                .is_some_and(|dir| dir.ends_with(b"/"))
        })
    }

    fn changed(&self) {
        self.0.load_limit();
        self.0.device_named();
    }
}

/// The texts of the two keys of a limit, as they stood together.
struct Texts {
    refill: Option<Value>,
    max: Option<Value>,
}

impl Texts {
    fn read(dir: &CStr) -> Result<Self> {
        transaction(|store| {
            Ok(Self {
                refill: store.read(dir, REFILL)?,
                max: store.read(dir, MAX)?,
            })
        })
    }
}

impl Texts {
    fn refill_key(&self) -> Key {
        Key::parse(bytes(&self.refill))
    }

    fn setting(&self) -> Setting {
        setting(self.refill_key(), Key::parse(bytes(&self.max)))
    }
}

fn bytes(value: &Option<Value>) -> Option<&[u8]> {
    value.as_ref().map(Value::bytes)
}

impl Vbd {
    /// Reads the limit that the disk starts with. Talks to xenstored.
    ///
    /// # Errors
    ///
    /// What xenstored answers: a disk whose limit is not known must not be served.
    pub(crate) fn start_limit(&self) -> Result {
        let texts = Texts::read(self.dev.nodename())?;
        let kept = self.take_level();
        self.tell(self.gate().start(texts.setting(), kept), &texts);
        Ok(())
    }

    /// Reads the limit's keys and applies them. Talks to xenstored, does not wait
    /// for anything else. A limit that cannot be read stays as it is.
    pub(crate) fn load_limit(&self) {
        // Who reads later applies later.
        let _order = self.limit_order.lock();
        match Texts::read(self.dev.nodename()) {
            Ok(texts) => self.tell(self.gate().configure(texts.setting()), &texts),
            Err(e) => self
                .dev
                .report(e, fmt!("the limit cannot be read and stays as it was")),
        }
    }

    fn tell(&self, change: Change, texts: &Texts) {
        match change {
            Change::Refused { first: true } => self.report_invalid(texts),
            Change::Refused { first: false } | Change::Same | Change::Applied => {}
        }
    }

    /// Leaves the bucket's level for the next driver of this disk: unbinding and
    /// binding must not fill it up. Talks to xenstored.
    pub(crate) fn keep_level(&self) {
        let view = self.gate().view();
        if view.limit.is_none() {
            return;
        }
        // Nobody to tell if it cannot be written: the next bucket starts full.
        let _ = within(self.dev.nodename(), |store, dir| {
            store.write(dir, LEVEL, fmt!("{}", view.tokens.max(0)))
        });
    }

    fn take_level(&self) -> Option<u32> {
        let dir = self.dev.nodename();
        let text = transaction(|store| {
            let text = store.read(dir, LEVEL)?;
            if text.is_some() {
                store.remove(dir, LEVEL)?;
            }
            Ok(text)
        });
        decimal(text.ok()??.bytes(), VALUE_MAX)
    }

    fn report_invalid(&self, texts: &Texts) {
        let (key, value) = match texts.refill_key() {
            Key::Invalid => (REFILL, &texts.refill),
            Key::Absent | Key::Value(_) => (MAX, &texts.max),
        };
        self.dev.report(
            EINVAL,
            fmt!(
                "{} {} is not a number from 0 to {}; the limit stays as it was",
                key,
                Foreign(bytes(value).unwrap_or_default()),
                VALUE_MAX
            ),
        );
    }
}
