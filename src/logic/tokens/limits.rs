// SPDX-License-Identifier: GPL-2.0

//! The meaning of the xenstore keys of a limit.
//!
//! A key is a strict unsigned decimal, 0 to 1,000,000,000: no sign, no space, no
//! suffix. A mistyped key must cause an error, not an unlimited disk.
//!
//! | `tokens-refill` | `tokens-max` | meaning |
//! |---|---|---|
//! | absent or 0 | absent, 0 | unlimited |
//! | 0 | any | unlimited |
//! | absent | > 0 | unlimited, `incomplete` |
//! | > 0 | absent or 0 | limited, max = a tenth of a second's refill, at least 1 |
//! | > 0 | > 0 | limited |
//! | invalid | any | invalid: the last valid pair stays |
//! | any | invalid | invalid: the last valid pair stays |
//!
//! The same table holds for `bytes-refill` and `bytes-max`, and for `tokens-vm-refill`
//! and `tokens-vm-max`. If any key of a disk is invalid, no value of the disk changes.
//! `tokens-size` 0 or absent: every request costs one token.

use super::super::number::decimal;

/// The largest value of any key.
pub const VALUE_MAX: u32 = 1_000_000_000;

/// The value of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// The key does not exist.
    Absent,
    /// The key is a number within range.
    Value(u32),
    /// The key is not a number within range.
    Invalid,
}

impl Key {
    /// Parses the text of a key; `None` if the key does not exist.
    pub fn parse(text: Option<&[u8]>) -> Self {
        match text {
            None => Self::Absent,
            Some(text) => match decimal(text, VALUE_MAX) {
                Some(value) => Self::Value(value),
                None => Self::Invalid,
            },
        }
    }
}

/// A limit in force.
///
/// # Invariants
///
/// Both numbers are from 1 to [`VALUE_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    refill: u32,
    max: u32,
}

impl Limit {
    /// A limit of `refill` tokens per second with a bucket of `max` tokens. If `max` is 0,
    /// the bucket has the default size, the refill of a tenth of a second, rounded up.
    /// `None` if `refill` is 0 or a number is too large.
    pub fn new(refill: u32, max: u32) -> Option<Self> {
        if refill == 0 || refill > VALUE_MAX || max > VALUE_MAX {
            return None;
        }
        let max = match max {
            0 => refill.div_ceil(10),
            max => max,
        };
        Some(Self { refill, max })
    }

    /// Tokens per second.
    pub fn refill(&self) -> u32 {
        self.refill
    }

    /// The size of the bucket in tokens.
    pub fn max(&self) -> u32 {
        self.max
    }
}

/// The meaning of a pair of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting {
    /// No limit.
    Unlimited,
    /// A bucket size without a refill. There is no limit, which is probably a mistake.
    Incomplete,
    /// A limit.
    Limited(Limit),
    /// A key is invalid.
    Invalid,
}

impl Setting {
    /// The limit, if there is one.
    pub fn limit(self) -> Option<Limit> {
        match self {
            Self::Limited(limit) => Some(limit),
            Self::Unlimited | Self::Incomplete | Self::Invalid => None,
        }
    }
}

/// The meaning of all keys of one disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// The limit in tokens. [`Setting::Invalid`] if any key of the disk is invalid.
    pub tokens: Setting,
    /// Bytes per token; 0: every request costs one token.
    pub size: u32,
    /// The limit in bytes.
    pub bytes: Option<Limit>,
}

impl From<Setting> for Terms {
    fn from(tokens: Setting) -> Self {
        Self {
            tokens,
            size: 0,
            bytes: None,
        }
    }
}

/// The keys of one disk.
#[derive(Clone, Copy, Debug)]
pub struct Keys {
    /// `tokens-refill`
    pub refill: Key,
    /// `tokens-max`
    pub max: Key,
    /// `tokens-size`
    pub size: Key,
    /// `bytes-refill`
    pub bytes_refill: Key,
    /// `bytes-max`
    pub bytes_max: Key,
}

/// The meaning of the `keys` of a disk. `default` applies to a disk that has neither
/// `tokens-refill` nor `tokens-max`.
pub fn terms(keys: Keys, default: Setting) -> Terms {
    let absent = (keys.refill, keys.max) == (Key::Absent, Key::Absent);
    let tokens = if absent {
        default
    } else {
        setting(keys.refill, keys.max)
    };
    let bytes = setting(keys.bytes_refill, keys.bytes_max);
    let size = match keys.size {
        Key::Value(size) => size,
        Key::Absent | Key::Invalid => 0,
    };
    let invalid = [tokens, bytes].contains(&Setting::Invalid) || keys.size == Key::Invalid;
    let tokens = match (tokens, bytes) {
        _ if invalid => Setting::Invalid,
        (Setting::Unlimited, Setting::Incomplete) => Setting::Incomplete,
        _ => tokens,
    };
    Terms {
        tokens,
        size: if tokens.limit().is_some() { size } else { 0 },
        bytes: bytes.limit(),
    }
}

/// The cost in tokens of a request of `bytes` bytes, at `size` bytes per token: at least 1.
pub fn tokens_for(bytes: u32, size: u32) -> u32 {
    let whole = bytes.saturating_sub(1).checked_div(size);
    whole.unwrap_or(0).saturating_add(1)
}

/// The meaning of the two keys of one limit.
pub fn setting(refill: Key, max: Key) -> Setting {
    let (refill, max) = match (refill, max) {
        (Key::Invalid, _) | (_, Key::Invalid) => return Setting::Invalid,
        (Key::Absent, Key::Value(1..)) => return Setting::Incomplete,
        (Key::Absent, _) => return Setting::Unlimited,
        (Key::Value(refill), Key::Absent) => (refill, 0),
        (Key::Value(refill), Key::Value(max)) => (refill, max),
    };
    match Limit::new(refill, max) {
        Some(limit) => Setting::Limited(limit),
        None => Setting::Unlimited,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limited(refill: u32, max: u32) -> Setting {
        let limit = Limit { refill, max };
        Setting::Limited(limit)
    }

    #[test]
    fn pairs_of_keys_mean_what_the_table_says() {
        use Key::*;
        let junk = Key::parse(Some(b"junk"));
        for (refill, max, expected) in [
            (Absent, Absent, Setting::Unlimited),
            (Value(0), Absent, Setting::Unlimited),
            (Value(0), Value(9), Setting::Unlimited),
            (Absent, Value(0), Setting::Unlimited),
            (Absent, Value(9), Setting::Incomplete),
            (Value(500), Absent, limited(500, 50)),
            (Value(500), Value(0), limited(500, 50)),
            (Value(500), Value(9), limited(500, 9)),
            (junk, Value(9), Setting::Invalid),
            (Value(500), junk, Setting::Invalid),
            (Absent, junk, Setting::Invalid),
            (junk, Absent, Setting::Invalid),
        ] {
            assert_eq!(setting(refill, max), expected, "{refill:?} {max:?}");
        }
    }

    fn keys(refill: Key, max: Key, size: Key, bytes_refill: Key, bytes_max: Key) -> Keys {
        Keys {
            refill,
            max,
            size,
            bytes_refill,
            bytes_max,
        }
    }

    #[test]
    fn one_invalid_key_makes_all_invalid() {
        use Key::*;
        let tokens = |keys| terms(keys, Setting::Unlimited).tokens;
        assert_eq!(
            tokens(keys(Value(5), Absent, Invalid, Absent, Absent)),
            Setting::Invalid
        );
        assert_eq!(
            tokens(keys(Value(5), Absent, Absent, Invalid, Absent)),
            Setting::Invalid
        );
        assert_eq!(
            tokens(keys(Value(5), Absent, Absent, Value(1), Invalid)),
            Setting::Invalid
        );
    }

    #[test]
    fn the_default_applies_without_keys() {
        use Key::*;
        let default = limited(100, 10);
        let tokens = |refill, max| terms(keys(refill, max, Absent, Absent, Absent), default).tokens;
        assert_eq!(tokens(Absent, Absent), default);
        assert_eq!(tokens(Value(0), Absent), Setting::Unlimited);
        assert_eq!(tokens(Value(7), Value(3)), limited(7, 3));
        assert_eq!(tokens(Absent, Value(3)), Setting::Incomplete);
    }

    #[test]
    fn a_byte_limit_works_without_a_token_limit() {
        use Key::*;
        let both = terms(
            keys(Absent, Absent, Value(4096), Value(1000), Absent),
            Setting::Unlimited,
        );
        assert_eq!((both.tokens, both.size), (Setting::Unlimited, 0));
        assert_eq!(both.bytes, Limit::new(1000, 100));
        let alone = keys(Absent, Absent, Absent, Absent, Value(9));
        assert_eq!(terms(alone, Setting::Unlimited).tokens, Setting::Incomplete);
    }

    #[test]
    fn the_cost_of_a_request_depends_on_its_size() {
        assert_eq!(tokens_for(1 << 20, 0), 1);
        assert_eq!(tokens_for(0, 4096), 1);
        assert_eq!(tokens_for(4096, 4096), 1);
        assert_eq!(tokens_for(4097, 4096), 2);
        assert_eq!(tokens_for(1 << 20, 1), 1 << 20);
    }

    #[test]
    fn the_default_bucket_is_a_tenth_of_a_second_and_at_least_one_token() {
        for (refill, max) in [
            (1, 1),
            (9, 1),
            (10, 1),
            (11, 2),
            (1000, 100),
            (VALUE_MAX, 100_000_000),
        ] {
            assert_eq!(Limit::new(refill, 0).unwrap().max(), max);
        }
        assert!(Limit::new(0, 5).is_none());
        assert!(Limit::new(VALUE_MAX + 1, 5).is_none());
        assert!(Limit::new(5, VALUE_MAX + 1).is_none());
    }
}
