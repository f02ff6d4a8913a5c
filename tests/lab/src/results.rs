// SPDX-License-Identifier: GPL-2.0

//! What a run found: one line a scenario while it runs, `build/results/test.json` at its end.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

/// Numbers and texts that a scenario wants kept.
pub type Figures = serde_json::Map<String, serde_json::Value>;

/// One scenario's verdict.
#[derive(Serialize)]
pub struct Entry {
    pub name: String,
    /// The rows of the requirements that it proves.
    pub rows: Vec<String>,
    pub ok: bool,
    pub seconds: f64,
    pub figures: Figures,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Collects verdicts from both lanes.
#[derive(Default)]
pub struct Results {
    entries: Mutex<Vec<Entry>>,
}

#[derive(Serialize)]
struct Report<'a> {
    passed: usize,
    failed: usize,
    seconds: f64,
    lab: &'a BTreeMap<String, String>,
    scenarios: &'a [Entry],
}

impl Results {
    /// Adds a verdict and prints its line.
    pub fn add(&self, entry: Entry) {
        let word = if entry.ok { "ok    " } else { "FAILED" };
        println!(
            "{word} {:<24} {:>6.1} s  {}",
            entry.name,
            entry.seconds,
            entry.rows.join(" ")
        );
        if let Some(error) = &entry.error {
            println!("       {}", error.replace('\n', "\n       "));
        }
        lock(&self.entries).push(entry);
    }

    /// How many passed and how many failed.
    pub fn counts(&self) -> (usize, usize) {
        let entries = lock(&self.entries);
        let passed = entries.iter().filter(|e| e.ok).count();
        (passed, entries.len() - passed)
    }

    /// Writes the report.
    pub fn write(&self, file: &Path, lab: &BTreeMap<String, String>, took: Duration) -> Result<()> {
        let (passed, failed) = self.counts();
        let entries = lock(&self.entries);
        let report = Report {
            passed,
            failed,
            seconds: round(took),
            lab,
            scenarios: &entries,
        };
        write_json(file, &report)
    }
}

/// Writes a value as JSON, making the directory if need be.
pub fn write_json(file: &Path, value: &impl Serialize) -> Result<()> {
    if let Some(dir) = file.parent() {
        fs::create_dir_all(dir)?;
    }
    fs::write(file, serde_json::to_string_pretty(value)? + "\n")?;
    Ok(())
}

/// Seconds to a tenth.
pub fn round(time: Duration) -> f64 {
    (time.as_secs_f64() * 10.0).round() / 10.0
}

/// A lock whose holder panicked still holds a good list.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
