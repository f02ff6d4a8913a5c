// SPDX-License-Identifier: GPL-2.0

//! Pictures, drawn by gnuplot; above all the demonstration's.

use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::process::Stdio;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;

const PLOT: &str = include_str!("demo.gp");

/// One point: seconds, requests per second, percent of the time throttled.
pub type Point = (f64, f64, f64);

/// A change of the limit: seconds, requests per second (0: none), the command in words.
pub type Step = (f64, u64, String);

/// Draws points and limits into a PNG file.
pub fn draw(file: &Path, points: &[Point], steps: &[Step]) -> Result<()> {
    gnuplot(&script(file, points, steps))
}

/// Has gnuplot run a script.
pub fn gnuplot(script: &str) -> Result<()> {
    let mut child = Command::new("gnuplot")
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot run gnuplot")?;
    child
        .stdin
        .take()
        .context("gnuplot has no input")?
        .write_all(script.as_bytes())?;
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!(
            "gnuplot failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}

fn script(file: &Path, points: &[Point], steps: &[Step]) -> String {
    let last = points.last().map_or(1.0, |p| p.0);
    let samples: Vec<String> = points
        .iter()
        .map(|(t, iops, waited)| format!("{t} {} {waited}\n", iops.max(1.0)))
        .collect();
    let end = |i: usize| steps.get(i + 1).map_or(last, |s: &Step| s.0);
    let limits: Vec<String> = steps
        .iter()
        .enumerate()
        .filter(|(_, s)| s.1 > 0)
        .map(|(i, s)| format!("{} {} {}\n", s.0, s.1, end(i)))
        .collect();
    let changes: Vec<String> = steps
        .iter()
        .map(|(t, _, words)| format!("{t} \"{words}\"\n"))
        .collect();
    let highest = points.iter().map(|p| p.1).fold(1.0, f64::max);
    let lowest = steps
        .iter()
        .filter(|s| s.1 > 0)
        .map(|s| s.1 as f64)
        .fold(highest, f64::min);
    let (low, high) = (lowest / 3.0, highest * 4.0);
    format!(
        "set output '{}'\nlast = {last}\nlow = {low}\nhigh = {high}\nlabel_at = {}\n\
         $samples << EOD\n{}EOD\n$limits << EOD\n{}EOD\n$changes << EOD\n{}EOD\n{PLOT}",
        file.display(),
        highest * 2.2,
        samples.concat(),
        limits.concat(),
        changes.concat()
    )
}
