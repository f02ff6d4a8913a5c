// SPDX-License-Identifier: GPL-2.0

//! What the administrator's keys mean.
//!
//! A key is a strict unsigned decimal, 0 to 1,000,000,000: no sign, no space, no
//! suffix. Whoever mistypes a limit must be told, not given an unlimited disk.
//!
//! | `tokens-refill` | `tokens-max` | meaning |
//! |---|---|---|
//! | absent or 0 | absent, 0 | unlimited |
//! | 0 | any | unlimited |
//! | absent | > 0 | unlimited, `incomplete` |
//! | > 0 | absent or 0 | limited, max = a tenth of a second's refill, at least 1 |
//! | > 0 | > 0 | limited |
//! | invalid | any | invalid: the last good pair stays |
//! | any | invalid | invalid: the last good pair stays |
//!
//! `bytes-refill` and `bytes-max` are put together in the same way, and so are
//! `tokens-vm-refill` and `tokens-vm-max`. If any key of a disk is invalid, all stay
//! as they were. `tokens-size` 0 or absent: every request costs one token.

use super::super::number::decimal;

/// The largest value of any key.
pub const VALUE_MAX: u32 = 1_000_000_000;

/// A key as found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// Not there.
    Absent,
    /// A number within range.
    Value(u32),
    /// There, but not a number within range.
    Invalid,
}

impl Key {
    /// Reads a key's text; `None` if there is no such key.
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
    /// A limit of `refill` tokens per second and a bucket of `max` tokens; `max`
    /// 0 stands for the default. `None` if `refill` is 0 or a number is too large.
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

    /// Tokens the bucket holds.
    pub fn max(&self) -> u32 {
        self.max
    }
}

/// What the keys ask for, together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting {
    /// No limit.
    Unlimited,
    /// A bucket size without a refill: no limit, but surely not what was meant.
    Incomplete,
    /// This limit.
    Limited(Limit),
    /// A key that makes no sense.
    Invalid,
}

impl Setting {
    /// The limit, if that is what is asked for.
    pub fn limit(self) -> Option<Limit> {
        match self {
            Self::Limited(limit) => Some(limit),
            Self::Unlimited | Self::Incomplete | Self::Invalid => None,
        }
    }
}

/// What all keys of one disk ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Tokens. [`Setting::Invalid`] if any of the keys makes no sense.
    pub tokens: Setting,
    /// Bytes that a token pays for; 0: any request.
    pub size: u32,
    /// Bytes per second, and how many at once.
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

/// Puts a disk's keys together. `default` is for a disk that has none of the first
/// two.
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

/// What a request of `bytes` costs where a token pays for `size` of them.
pub fn tokens_for(bytes: u32, size: u32) -> u32 {
    let whole = bytes.saturating_sub(1).checked_div(size);
    whole.unwrap_or(0).saturating_add(1)
}

/// Puts the two keys of one limit together.
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
    fn the_table_holds() {
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
    fn a_default_is_for_who_has_no_key() {
        use Key::*;
        let default = limited(100, 10);
        let tokens = |refill, max| terms(keys(refill, max, Absent, Absent, Absent), default).tokens;
        assert_eq!(tokens(Absent, Absent), default);
        assert_eq!(tokens(Value(0), Absent), Setting::Unlimited);
        assert_eq!(tokens(Value(7), Value(3)), limited(7, 3));
        assert_eq!(tokens(Absent, Value(3)), Setting::Incomplete);
    }

    #[test]
    fn bytes_alone_are_a_limit_and_a_size_alone_is_none() {
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
    fn what_a_request_costs() {
        assert_eq!(tokens_for(1 << 20, 0), 1);
        assert_eq!(tokens_for(0, 4096), 1);
        assert_eq!(tokens_for(4096, 4096), 1);
        assert_eq!(tokens_for(4097, 4096), 2);
        assert_eq!(tokens_for(1 << 20, 1), 1 << 20);
    }

    #[test]
    fn the_default_bucket_is_a_tenth_of_a_second_and_never_empty() {
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
