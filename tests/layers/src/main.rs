// SPDX-License-Identifier: GPL-2.0

//! Who uses whom in the module: a floor uses those below it, as the table of floors says, and no
//! two files use each other.
//!
//! Every path in the code counts, wherever it stands, except for what is compiled for tests only
//! ([`code`], [`tokens`]). Declarations of modules say which file it leads to ([`modules`]).
//!
//! Run at the top of the checkout, as `make test T=layers` does; prints a line for each violation.

#![forbid(unsafe_code)]

mod circles;
mod code;
mod modules;
mod sources;
mod table;
mod tokens;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use anyhow::Result;

use crate::code::Mention;
use crate::modules::Modules;
use crate::modules::Use;
use crate::table::Place;
use crate::table::Table;

/// Files by name, with their text.
pub type Files = BTreeMap<String, String>;

/// The pure code is compiled without the kernel as well, as a crate of another name.
const PURE: &str = "src/logic";
/// What there is none of then, or what is another crate.
const IMPURE: [&str; 4] = ["crate", "kernel", "std", "alloc"];

/// Something that must not be.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Violation {
    file: String,
    /// 0 if it is the whole file.
    line: usize,
    what: String,
}

impl Violation {
    fn new(file: &str, line: usize, what: String) -> Self {
        Violation {
            file: file.into(),
            line,
            what,
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.file, self.what),
            line => write!(f, "{}:{line}: {}", self.file, self.what),
        }
    }
}

fn main() -> ExitCode {
    match check(Path::new(".")) {
        Ok(violations) if violations.is_empty() => ExitCode::SUCCESS,
        Ok(violations) => {
            violations.iter().for_each(|v| println!("{v}"));
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Holds the code of a checkout to the table.
fn check(checkout: &Path) -> Result<Vec<Violation>> {
    let page = checkout.join(table::PAGE);
    let page = fs::read_to_string(&page).with_context(|| page.display().to_string())?;
    violations(&sources::read(checkout)?, &Table::parse(&page)?)
}

/// All that is wrong, in the order of the files.
fn violations(files: &Files, table: &Table) -> Result<Vec<Violation>> {
    let mut found = BTreeSet::from_iter(table.faults());
    found.extend(table.misfits(files.keys()));
    let (modules, mentions) = Modules::read(files)?;
    for file in files.keys().filter(|file| !modules.knows(file)) {
        let what = "is declared by no module".into();
        found.insert(Violation::new(file, 0, what));
    }
    let mut uses = Vec::new();
    for mention in &mentions {
        let need = modules.needs(mention);
        let place = table.place(modules.file(mention.module));
        let violation = place.and_then(|place| {
            impure(&modules, mention, place).or_else(|| upwards(table, need.as_ref()?, place))
        });
        found.extend(violation);
        uses.extend(need);
    }
    found.extend(circles::find(&uses));
    Ok(found.into_iter().collect())
}

/// A use that the table does not allow.
fn upwards(table: &Table, need: &Use, place: &Place) -> Option<Violation> {
    let used = table.place(&need.to)?;
    let what = format!(
        "{} may not use {} (floor {} to floor {})",
        place.name, used.name, place.floor, used.floor
    );
    (!place.may_use(used)).then(|| Violation::new(&need.from, need.line, what))
}

/// A path of the pure code to what it has not everywhere that it is compiled.
fn impure(modules: &Modules, mention: &Mention, place: &Place) -> Option<Violation> {
    let path = &mention.path;
    let first = path.names.first()?.as_str();
    let is_pure = match first {
        "core" => true,
        first if IMPURE.contains(&first) => false,
        "super" | "self" => true,
        // A type may be imported from as well.
        first => {
            !path.absolute && !mention.is_import
                || first.starts_with(char::is_uppercase)
                || modules.is_own(mention.module, first)
        }
    };
    let what = format!(
        "{} may not use {} (floor {}: it is compiled elsewhere as well, with core and paths that \
         begin with super)",
        place.name,
        path.names.join("::"),
        place.floor
    );
    (place.name.starts_with(PURE) && !is_pure)
        .then(|| Violation::new(modules.file(mention.module), path.line, what))
}
