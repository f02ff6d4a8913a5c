// SPDX-License-Identifier: GPL-2.0

//! Where the module's `unsafe` is: in the folders that wrap the kernel's C, and nowhere else.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;

use crate::lab::Lab;
use crate::results::Figures;

const WRAPPERS: [&str; 2] = ["xenbus", "src/sys"];

/// Counts the lines with `unsafe` in each folder.
pub fn check(lab: &Lab, figures: &mut Figures) -> Result<()> {
    let mut counts = BTreeMap::new();
    for folder in ["src", "xenbus"] {
        count(&lab.checkout, Path::new(folder), &mut counts)?;
    }
    for (folder, count) in &counts {
        if *count > 0 && !WRAPPERS.contains(&folder.as_str()) {
            bail!("{count} lines of {folder} have `unsafe`; only {WRAPPERS:?} may");
        }
        figures.insert(folder.clone(), (*count).into());
    }
    Ok(())
}

fn count(top: &Path, folder: &Path, counts: &mut BTreeMap<String, u64>) -> Result<()> {
    let dir = top.join(folder);
    for entry in fs::read_dir(&dir).with_context(|| dir.display().to_string())? {
        let path = entry?.path();
        let name = Path::new(path.file_name().context("a file without a name")?);
        if path.is_dir() {
            count(top, &folder.join(name), counts)?;
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = fs::read_to_string(&path)?;
            *counts.entry(folder.display().to_string()).or_default() +=
                text.lines().filter(|line| is_unsafe(line)).count() as u64;
        }
    }
    Ok(())
}

/// Neither a comment nor a lint's name.
fn is_unsafe(line: &str) -> bool {
    let code = line.split("//").next().unwrap_or_default();
    code.split(|c: char| !c.is_alphanumeric() && c != '_')
        .any(|word| word == "unsafe")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_lints_are_none() {
        assert!(is_unsafe("        unsafe { f() };"));
        assert!(is_unsafe("unsafe impl Send for X {} // why"));
        assert!(!is_unsafe("// SAFETY: unsafe"));
        assert!(!is_unsafe("#![forbid(unsafe_code)]"));
    }
}
