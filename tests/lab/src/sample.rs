// SPDX-License-Identifier: GPL-2.0

//! The sampler that runs in dom0: one process that reads a disk's counters at a steady pace.
//!
//! A shell loop would fork several times a sample and disturb what it measures.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use anyhow::Result;
use serde::Deserialize;
use serde::Serialize;

/// A disk's counters at one moment.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sample {
    /// Seconds since the sampler began, on dom0's clock.
    pub seconds: f64,
    /// Requests served so far.
    pub requests: u64,
    pub refill: u64,
    pub max: u64,
    pub tokens: i64,
    pub throttled_usec: u64,
    pub state: String,
}

/// Prints a sample as a line of JSON every `period`, `count` times and once at the start.
pub fn run(sysfs: &Path, period: Duration, count: u32) -> Result<()> {
    let begin = Instant::now();
    let mut out = std::io::stdout();
    for i in 0..=count {
        thread::sleep((period * i).saturating_sub(begin.elapsed()));
        writeln!(
            out,
            "{}",
            serde_json::to_string(&read(sysfs, begin.elapsed())?)?
        )?;
        out.flush()?;
    }
    Ok(())
}

fn read(sysfs: &Path, at: Duration) -> Result<Sample> {
    let text = |file: &str| {
        fs::read_to_string(sysfs.join(file)).with_context(|| format!("{}/{file}", sysfs.display()))
    };
    let number = |file: &str| Ok::<i64, anyhow::Error>(text(file)?.trim().parse()?);
    Ok(Sample {
        seconds: at.as_secs_f64(),
        requests: (number("statistics/rd_req")? + number("statistics/wr_req")?) as u64,
        refill: number("qos/tokens_refill")? as u64,
        max: number("qos/tokens_max")? as u64,
        tokens: number("qos/tokens")?,
        throttled_usec: number("qos/throttled_usec")? as u64,
        state: text("qos/state")?.trim().to_string(),
    })
}
