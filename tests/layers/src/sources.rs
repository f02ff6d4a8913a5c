// SPDX-License-Identifier: GPL-2.0

//! The module's Rust files.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::Context;
use anyhow::Result;

/// Where they are.
const FOLDERS: [&str; 2] = ["src", "xenbus"];

/// Their names, from the top of the checkout, and their text. What the build makes is none of them.
pub fn read(checkout: &Path) -> Result<BTreeMap<String, String>> {
    let mut files = BTreeMap::new();
    for folder in FOLDERS {
        add(checkout, Path::new(folder), &mut files)?;
    }
    Ok(files)
}

fn add(checkout: &Path, folder: &Path, files: &mut BTreeMap<String, String>) -> Result<()> {
    let dir = checkout.join(folder);
    for entry in fs::read_dir(&dir).with_context(|| dir.display().to_string())? {
        let path = entry?.path();
        let name = folder.join(path.file_name().context("a file without a name")?);
        let text = name.display().to_string();
        if path.is_dir() {
            add(checkout, &name, files)?;
        } else if text.ends_with(".rs") && !text.ends_with("_generated.rs") {
            files.insert(text, fs::read_to_string(&path)?);
        }
    }
    Ok(())
}
