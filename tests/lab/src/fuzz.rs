// SPDX-License-Identifier: GPL-2.0

//! Builds the fuzzer (tests/fuzz) and runs its targets.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::process::Stdio;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use rblkback_fuzz::TARGETS;

use crate::lab::Lab;
use crate::logs;
use crate::results::Figures;

/// Inputs of the check, for each target.
const RUNS: u32 = 150_000;
/// No target makes sense of more bytes.
const LENGTH_MOST: u32 = 512;
/// What inputs and findings are kept in.
const DIRECTORY: &str = "build/fuzz";

/// Every target, the same inputs in every run: no corpus, a fixed seed.
pub fn check(_lab: &Lab, figures: &mut Figures) -> Result<()> {
    for (name, _) in TARGETS {
        let mut fuzzer = fuzzer(name)?;
        fuzzer.args(["-seed=1", "-print_final_stats=1"]);
        fuzzer.arg(format!("-runs={RUNS}"));
        let output = fuzzer.stdin(Stdio::null()).output().context("cargo")?;
        let text = String::from_utf8_lossy(&output.stderr);
        let end = logs::last_lines(&text, 40);
        if !output.status.success() {
            bail!("{name}: {}\n{end}", output.status);
        }
        let executed = number_after(&text, "stat::number_of_executed_units:")
            .with_context(|| format!("{name}: no count in\n{end}"))?;
        if executed < u64::from(RUNS) {
            bail!("{name}: ended after {executed} inputs");
        }
        let edges = text
            .lines()
            .filter_map(|line| number_after(line, " cov:"))
            .max()
            .filter(|edges| *edges > 1)
            .with_context(|| format!("{name}: the code is not instrumented"))?;
        figures.insert(format!("{name} edges"), edges.into());
    }
    figures.insert("inputs of each".into(), RUNS.into());
    Ok(())
}

/// The number that follows the first `label` in `text`.
fn number_after(text: &str, label: &str) -> Option<u64> {
    let (_, after) = text.split_once(label)?;
    after.split_whitespace().next()?.parse().ok()
}

/// What is named, or every target, for so long each; or one input. Goes on where the
/// last run ended: what it found worth keeping is below `build/fuzz`. True if nothing
/// was found.
pub fn run(only: &[String], seconds: u32, input: Option<&Path>) -> Result<bool> {
    if let Some(name) = only
        .iter()
        .find(|name| rblkback_fuzz::target(name).is_none())
    {
        let names: Vec<_> = TARGETS.iter().map(|target| target.0).collect();
        bail!("there is no target {name:?}, only {}", names.join(" "));
    }
    if input.is_some() && only.len() != 1 {
        bail!("an input is for one target: name it with T=");
    }
    let mut broken = Vec::new();
    for (name, _) in TARGETS {
        if !only.is_empty() && !only.iter().any(|o| o == name) {
            continue;
        }
        let mut fuzzer = fuzzer(name)?;
        match input {
            Some(input) => fuzzer.arg(input),
            None => fuzzer
                .arg(format!("-max_total_time={seconds}"))
                .arg(Path::new(DIRECTORY).join(name).join("corpus")),
        };
        println!("{name}");
        if !fuzzer.status().context("cargo")?.success() {
            broken.push(*name);
        }
    }
    if broken.is_empty() {
        println!("nothing found");
    } else {
        println!("broken: {}; see {DIRECTORY}", broken.join(" "));
    }
    Ok(broken.is_empty())
}

/// The command that runs libFuzzer on a target; needs only its own arguments.
fn fuzzer(target: &str) -> Result<Command> {
    let kept = Path::new(DIRECTORY).join(target);
    fs::create_dir_all(kept.join("corpus"))
        .with_context(|| format!("cannot make {}", kept.display()))?;
    let mut command = Command::new("cargo");
    command
        .args(["--config", "tests/fuzz/cargo.toml", "run"])
        .args(["--locked", "--quiet", "--manifest-path", "tests/Cargo.toml"])
        .args(["--package", "fuzz", "--features", "libfuzzer", "--"])
        .arg(format!("-artifact_prefix={}/", kept.display()))
        .arg(format!("-max_len={LENGTH_MOST}"))
        // An input takes microseconds: one that takes minutes is in an endless loop.
        .arg("-timeout=120")
        // Long inputs from the start: a slot is one.
        .arg("-len_control=0")
        .env("FUZZ_TARGET", target);
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_after_their_labels() {
        let line = "#200000\tDONE   cov: 245 ft: 611 corp: 99/8Kb lim: 512";
        assert_eq!(number_after(line, " cov:"), Some(245));
        assert_eq!(number_after(line, " exec:"), None);
    }
}
