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

use super::number::decimal;

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

/// Puts the two keys together.
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
