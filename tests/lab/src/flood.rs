// SPDX-License-Identifier: GPL-2.0

//! The tests' own frontend keeping a ring full (`flood`, tests/frontend).

use anyhow::Context;
use anyhow::Result;
use serde_json::Value;

/// What a guest does that keeps a ring of `order` full: `warm_up` seconds that are not counted, then
/// `seconds` that are.
pub fn command(order: u32, warm_up: u64, seconds: u64) -> String {
    format!("/frontend flood --order {order} --warm-up {warm_up} --seconds {seconds}")
}

/// The same of another kind of request: `reads`, `writes` or `discards`.
pub fn command_of(kind: &str, order: u32, warm_up: u64, seconds: u64) -> String {
    format!("{} --kind {kind}", command(order, warm_up, seconds))
}

/// The same, of reads, over so many queues.
pub fn command_over(queues: u32, order: u32, warm_up: u64, seconds: u64) -> String {
    format!("{} --queues {queues}", command(order, warm_up, seconds))
}

/// What came of it.
pub struct Flooded {
    pub answered: f64,
    pub seconds: f64,
    /// Requests in all, also those that were not counted.
    pub all: f64,
}

impl Flooded {
    /// By the frontend's own account.
    pub fn parse(said: &str) -> Result<Self> {
        let line: Value = serde_json::from_str(said).with_context(|| format!("{said:?}"))?;
        let number = |key: &str| {
            let value = line["done"][key].as_f64();
            value.with_context(|| format!("no {key:?} in {said:?}"))
        };
        Ok(Self {
            answered: number("answered")?,
            seconds: number("seconds")?,
            all: number("all")?,
        })
    }

    /// Requests a second.
    pub fn iops(&self) -> f64 {
        self.answered / self.seconds
    }
}
