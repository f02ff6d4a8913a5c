// SPDX-License-Identifier: GPL-2.0

//! The table of floors, as a page of the documentation has it.
//!
//! It is a simple table of reStructuredText with the columns `floor`, `place` and `may use`; what
//! follows in further columns is prose.

use std::ops::Range;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;

use crate::Violation;

/// The page that the table stands in.
pub const PAGE: &str = "Documentation/architecture.rst";

const HEAD: [&str; 3] = ["floor", "place", "may use"];

/// A file or a folder of the module, and whom it may use.
#[derive(Debug)]
pub struct Place {
    /// Where the table says so.
    line: usize,
    pub floor: u32,
    pub name: String,
    may_use: Vec<String>,
}

impl Place {
    fn new(line: usize, cells: &[String]) -> Result<Self> {
        let [floor, name, may_use] = &cells[..HEAD.len()] else {
            bail!("{PAGE}:{line}: there are not {} columns", HEAD.len());
        };
        let floor = floor
            .parse()
            .with_context(|| format!("{PAGE}:{line}: {floor:?} is no floor"))?;
        let [name] = &names(name)[..] else {
            bail!("{PAGE}:{line}: {name:?} is not one place");
        };
        Ok(Place {
            line,
            floor,
            name: name.clone(),
            may_use: names(may_use),
        })
    }

    /// Is the place, or does its folder hold, this file?
    pub fn holds(&self, file: &str) -> bool {
        file.strip_prefix(&self.name)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    pub fn may_use(&self, other: &Place) -> bool {
        self.name == other.name || self.may_use.contains(&other.name)
    }
}

/// Whom each part of the module may use.
#[derive(Debug)]
pub struct Table {
    pub places: Vec<Place>,
}

impl Table {
    /// Finds it in the text of a page.
    pub fn parse(page: &str) -> Result<Self> {
        let lines: Vec<&str> = page.lines().collect();
        let begin = (0..lines.len().saturating_sub(2))
            .find(|i| {
                let columns = ruler(lines[*i]);
                let head = cells(lines[i + 1], &columns);
                lines[i + 2] == lines[*i] && head.iter().take(HEAD.len()).eq(HEAD.iter())
            })
            .with_context(|| format!("{PAGE} has no table that begins with {HEAD:?}"))?;
        let columns = ruler(lines[begin]);
        let mut places: Vec<Place> = Vec::new();
        for (index, line) in lines.iter().enumerate().skip(begin + 3) {
            if *line == lines[begin] {
                return Ok(Table { places });
            }
            if crosses(line, &columns) {
                bail!("{PAGE}:{}: a cell reaches into the next column", index + 1);
            }
            let cells = cells(line, &columns);
            match places.last_mut() {
                // The row before goes on.
                Some(place) if cells[0].is_empty() => place.may_use.extend(names(&cells[2])),
                _ => places.push(Place::new(index + 1, &cells)?),
            }
        }
        bail!("{PAGE}: the table of floors has no end");
    }

    /// What is wrong with the table itself.
    pub fn faults(&self) -> Vec<Violation> {
        let mut faults = Vec::new();
        for (index, place) in self.places.iter().enumerate() {
            let mut fault = |what: String| faults.push(Violation::new(PAGE, place.line, what));
            if self.places[..index].iter().any(|p| p.name == place.name) {
                fault(format!("{} stands here for the second time", place.name));
            }
            for name in &place.may_use {
                match self.places.iter().find(|p| p.name == *name) {
                    None => fault(format!("{name} has no floor")),
                    Some(used) if used.floor >= place.floor => fault(format!(
                        "{} on floor {} cannot be let use {name} on floor {}",
                        place.name, place.floor, used.floor
                    )),
                    Some(_) => {}
                }
            }
        }
        faults
    }

    /// Files that have no place or two, and places that have no files.
    pub fn misfits<'a>(&self, files: impl Iterator<Item = &'a String> + Clone) -> Vec<Violation> {
        let mut misfits = Vec::new();
        for file in files.clone() {
            let holders: Vec<&str> = self
                .places
                .iter()
                .filter(|p| p.holds(file))
                .map(|p| p.name.as_str())
                .collect();
            let what = match holders[..] {
                [] => format!("belongs to no place of {PAGE}"),
                [_] => continue,
                _ => format!("belongs to more than one place: {}", holders.join(", ")),
            };
            misfits.push(Violation::new(file, 0, what));
        }
        for place in &self.places {
            if !files.clone().any(|file| place.holds(file)) {
                let what = format!("{} has no files", place.name);
                misfits.push(Violation::new(PAGE, place.line, what));
            }
        }
        misfits
    }

    /// The place of a file, if it has one.
    pub fn place(&self, file: &str) -> Option<&Place> {
        self.places.iter().find(|p| p.holds(file))
    }
}

/// The columns of a line that consists of rules, or none.
fn ruler(line: &str) -> Vec<Range<usize>> {
    let mut columns: Vec<Range<usize>> = Vec::new();
    for (at, letter) in line.chars().enumerate() {
        match (letter, columns.last_mut()) {
            ('=', Some(column)) if column.end == at => column.end = at + 1,
            ('=', _) => columns.push(at..at + 1),
            (' ', _) => {}
            _ => return Vec::new(),
        }
    }
    columns
}

/// What a line has in each column; the last has no end.
fn cells(line: &str, columns: &[Range<usize>]) -> Vec<String> {
    let ends = columns.iter().skip(1).map(|c| c.start).chain([usize::MAX]);
    columns
        .iter()
        .zip(ends)
        .map(|(column, end)| {
            let letters = line.chars().skip(column.start).take(end - column.start);
            letters.collect::<String>().trim().into()
        })
        .collect()
}

fn crosses(line: &str, columns: &[Range<usize>]) -> bool {
    let between = |at: usize| {
        columns
            .windows(2)
            .any(|c| at >= c[0].end && at < c[1].start)
    };
    line.chars()
        .enumerate()
        .any(|(at, letter)| letter != ' ' && between(at))
}

/// The names of a cell, which may be marked up.
fn names(cell: &str) -> Vec<String> {
    cell.split_whitespace()
        .map(|word| word.trim_matches('`').trim_end_matches('/').into())
        .collect()
}
