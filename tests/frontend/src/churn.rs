// SPDX-License-Identifier: GPL-2.0

//! An administrator who cannot make up his mind: random changes of a disk's limit.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use anyhow::Result;
use anyhow::bail;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use serde_json::json;

use crate::store::Store;

/// How long a change may take until sysfs shows it.
const DEADLINE: Duration = Duration::from_secs(5);
const REFILLS: &[&str] = &["1", "10", "300", "1000", "2000", "0", "1000000000"];
const SIZES: &[&str] = &["1", "2", "30", "500", "0", "1000000000"];
const JUNK: &[&str] = &["", "-1", "junk", "1000000001", "5 ", "0x10"];
const MOST: u64 = 1_000_000_000;

/// The two keys, as they were written last, and what has to be in force.
#[derive(Default)]
struct Keys {
    refill: Option<&'static str>,
    max: Option<&'static str>,
    limit: (u64, u64),
    invalid: bool,
}

impl Keys {
    /// What the rules of `src/logic/limits.rs` make of the keys.
    fn judge(&mut self) {
        let number = |text: Option<&str>| match text {
            None => Some(None),
            Some(text) => {
                let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
                let value = text.parse::<u64>().ok().filter(|v| plain && *v <= MOST);
                value.map(Some)
            }
        };
        let (Some(refill), Some(max)) = (number(self.refill), number(self.max)) else {
            self.invalid = true;
            return;
        };
        self.invalid = false;
        self.limit = match (refill.unwrap_or(0), max.unwrap_or(0)) {
            (0, _) => (0, 0),
            (refill, 0) => (refill, refill.div_ceil(10)),
            limit => limit,
        };
    }
}

/// Makes `count` changes, each when the one before is in force.
pub fn churn(dir: &str, sysfs: &Path, count: u64, seed: u64) -> Result<()> {
    let store = Store::open()?;
    let mut dice = ChaCha8Rng::seed_from_u64(seed);
    let mut keys = Keys::default();
    for number in 0..count {
        change(&store, dir, &mut dice, &mut keys)?;
        keys.judge();
        wait(sysfs, &keys).map_err(|seen| {
            anyhow::anyhow!(
                "change {number}, to {:?} and {:?}: {seen:#}",
                keys.refill,
                keys.max
            )
        })?;
    }
    println!("{}", json!({"ok": true, "done": {"changes": count}}));
    Ok(())
}

/// One change: of both keys at once, of one, to junk, or away.
fn change(store: &Store, dir: &str, dice: &mut ChaCha8Rng, keys: &mut Keys) -> Result<()> {
    let mut pick = |list: &'static [&'static str]| list[dice.random_range(0..list.len())];
    let (refill, max, junk) = (pick(REFILLS), pick(SIZES), pick(JUNK));
    let node = |key: &str| format!("{dir}/{key}");
    match dice.random_range(0..8) {
        0..=3 => {
            (keys.refill, keys.max) = (Some(refill), Some(max));
            store.write_all(&[
                (node("tokens-refill"), refill.into()),
                (node("tokens-max"), max.into()),
            ])
        }
        4 => {
            keys.refill = Some(refill);
            store.write(&node("tokens-refill"), refill)
        }
        5 => {
            keys.max = Some(max);
            store.write(&node("tokens-max"), max)
        }
        6 => {
            keys.refill = Some(junk);
            store.write(&node("tokens-refill"), junk)
        }
        _ => {
            keys.max = None;
            store.remove(&node("tokens-max"))
        }
    }
}

/// Until sysfs shows what has to be in force.
fn wait(sysfs: &Path, keys: &Keys) -> Result<()> {
    let end = Instant::now() + DEADLINE;
    let read = |file: &str| fs::read_to_string(sysfs.join("qos").join(file));
    loop {
        let refill: u64 = read("tokens_refill")?.trim().parse()?;
        let max: u64 = read("tokens_max")?.trim().parse()?;
        let invalid = read("state")?.trim() == "invalid";
        if (refill, max) == keys.limit && invalid == keys.invalid {
            return Ok(());
        }
        if Instant::now() >= end {
            bail!(
                "expected {:?}, invalid {}, saw ({refill}, {max}), {invalid}",
                keys.limit,
                keys.invalid
            );
        }
        // sysfs tells nobody of a change.
        thread::sleep(Duration::from_millis(1));
    }
}
