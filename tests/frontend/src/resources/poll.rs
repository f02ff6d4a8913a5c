// SPDX-License-Identifier: GPL-2.0

//! An administrator's tools, which read all there is about a disk over and over.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;

use anyhow::Context;
use anyhow::Result;
use anyhow::ensure;
use serde_json::json;

const DIRECTORIES: [&str; 3] = ["statistics", "qos", "xenbus"];
/// What says how things stand, and goes up and down.
const STATES: [&str; 15] = [
    "tokens_refill",
    "tokens_max",
    "tokens",
    "tokens_size",
    "bytes_refill",
    "bytes_max",
    "bytes",
    "vm_tokens_refill",
    "vm_tokens_max",
    "vm_tokens",
    "io_rate",
    "state",
    "wait_usec_max",
    "event_channels",
    "spurious_threshold",
];

/// What the counters said last, while a driver was bound.
type Seen = BTreeMap<PathBuf, u64>;

/// Reads the disk's files until the input ends. While no driver is bound there are none, and the counters begin
/// anew afterwards.
pub fn poll(dir: &Path) -> Result<()> {
    static ENDED: AtomicBool = AtomicBool::new(false);
    thread::spawn(|| {
        // That it ends is all there is to know.
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        ENDED.store(true, Ordering::Relaxed);
    });
    let (mut rounds, mut anew) = (0u64, 0u64);
    let mut seen = Seen::new();
    while !ENDED.load(Ordering::Relaxed) {
        if round(dir, &mut seen)? {
            rounds += 1;
        } else {
            anew += u64::from(!seen.is_empty());
            seen.clear();
        }
    }
    ensure!(rounds > 0, "{} was never there", dir.display());
    println!(
        "{}",
        json!({"ok": true, "done": {"rounds": rounds, "anew": anew}})
    );
    Ok(())
}

/// Reads all files once; false when some are not there.
fn round(dir: &Path, seen: &mut Seen) -> Result<bool> {
    for name in DIRECTORIES {
        let Ok(files) = fs::read_dir(dir.join(name)) else {
            return Ok(false);
        };
        for file in files {
            let Ok(path) = file.map(|file| file.path()) else {
                return Ok(false);
            };
            // Of a driver that is just being unbound.
            let Ok(text) = fs::read_to_string(&path) else {
                return Ok(false);
            };
            if !STATES.iter().any(|state| path.ends_with(state)) {
                rises(path, &text, seen)?;
            }
        }
    }
    Ok(true)
}

fn rises(path: PathBuf, text: &str, seen: &mut Seen) -> Result<()> {
    let now: u64 = text
        .trim()
        .parse()
        .with_context(|| format!("{}: {text:?}", path.display()))?;
    let before = seen.get(&path).copied().unwrap_or(0);
    ensure!(
        now >= before,
        "{} was {before} and is {now}",
        path.display()
    );
    seen.insert(path, now);
    Ok(())
}
