// SPDX-License-Identifier: GPL-2.0

//! Assertions that say what was expected and what was seen.

use std::fmt::Debug;
use std::ops::RangeInclusive;

use anyhow::Result;
use anyhow::bail;

/// `seen` must equal `expected`.
pub fn equal<A: Debug + PartialEq<B>, B: Debug>(what: &str, seen: A, expected: B) -> Result<()> {
    if seen != expected {
        bail!("{what}: expected {expected:?}, saw {seen:?}");
    }
    Ok(())
}

/// `seen` must lie in `range`.
pub fn within<T: Debug + PartialOrd>(what: &str, seen: T, range: RangeInclusive<T>) -> Result<()> {
    if !range.contains(&seen) {
        bail!(
            "{what}: expected {:?} to {:?}, saw {seen:?}",
            range.start(),
            range.end()
        );
    }
    Ok(())
}

/// `text` must hold each of `parts`.
pub fn contains(what: &str, text: &str, parts: &[&str]) -> Result<()> {
    match parts.iter().find(|part| !text.contains(**part)) {
        Some(missing) => bail!("{what}: expected {missing:?} in it, saw {text:?}"),
        None => Ok(()),
    }
}

/// `truth` must hold.
pub fn that(truth: bool, what: impl FnOnce() -> String) -> Result<()> {
    if !truth {
        bail!("{}", what());
    }
    Ok(())
}
