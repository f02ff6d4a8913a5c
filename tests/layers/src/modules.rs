// SPDX-License-Identifier: GPL-2.0

//! The crate's modules: which file each is in, and what a path in one of them leads to.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use syn::Expr;
use syn::Item;
use syn::ItemMod;
use syn::Lit;
use syn::Meta;
use syn::ext::IdentExt;

use crate::Files;
use crate::code;
use crate::code::Mention;

/// The file that the crate begins with.
const TOP: &str = "src/main.rs";
const ROOT: usize = 0;
/// An import may name one that names another; one that names itself must not be followed for ever.
const DEEPEST: u32 = 8;

struct Module {
    file: String,
    parent: Option<usize>,
    children: BTreeMap<String, usize>,
    /// What `use` gives a name.
    imports: BTreeMap<String, Vec<String>>,
    /// What `use` takes in as a whole.
    globs: Vec<Vec<String>>,
}

/// All modules of the crate, by number.
#[derive(Default)]
pub struct Modules {
    list: Vec<Module>,
    sources: Vec<(usize, syn::File)>,
    /// Files that are compiled for tests only.
    tests: BTreeSet<String>,
}

/// A line of a file that needs another file.
#[derive(Debug)]
pub struct Use {
    pub from: String,
    pub line: usize,
    pub to: String,
}

impl Modules {
    /// Follows the declarations of modules through all files.
    pub fn read(files: &Files) -> Result<(Self, Vec<Mention>)> {
        let mut modules = Modules::default();
        let (dir, _) = TOP.split_once('/').context("the crate has no folder")?;
        modules.open(files, TOP, dir, None)?;
        let mut mentions = Vec::new();
        for (module, source) in std::mem::take(&mut modules.sources) {
            mentions.extend(code::read(&mut modules, module, &source));
        }
        Ok((modules, mentions))
    }

    /// Adds the module that is in `file`, and those that it declares; files of theirs are in `dir`.
    fn open(
        &mut self,
        files: &Files,
        file: &str,
        dir: &str,
        parent: Option<usize>,
    ) -> Result<usize> {
        let text = files.get(file).with_context(|| format!("no {file}"))?;
        let source = syn::parse_file(text)
            .map_err(|error| anyhow::anyhow!("{file}:{}: {error}", error.span().start().line))?;
        let module = self.add(file, parent);
        self.declare(files, &source.items, dir, module)?;
        self.sources.push((module, source));
        Ok(module)
    }

    fn add(&mut self, file: &str, parent: Option<usize>) -> usize {
        self.list.push(Module {
            file: file.into(),
            parent,
            children: BTreeMap::new(),
            imports: BTreeMap::new(),
            globs: Vec::new(),
        });
        self.list.len() - 1
    }

    fn declare(&mut self, files: &Files, items: &[Item], dir: &str, parent: usize) -> Result<()> {
        for item in items {
            let Item::Mod(item) = item else { continue };
            let name = item.ident.unraw().to_string();
            let inside = format!("{dir}/{name}");
            let is_for_tests = code::is_for_tests(item);
            let child = match &item.content {
                Some(_) if is_for_tests => continue,
                Some((_, items)) => {
                    let file = self.list[parent].file.clone();
                    let child = self.add(&file, Some(parent));
                    self.declare(files, items, &inside, child)?;
                    child
                }
                None if name.ends_with("_generated") => continue,
                None => {
                    let (file, dir) = self.find(files, item, &inside, parent)?;
                    if is_for_tests {
                        self.skip(files, &file, &dir)?;
                        continue;
                    }
                    self.open(files, &file, &dir, Some(parent))?
                }
            };
            self.list[parent].children.insert(name, child);
        }
        Ok(())
    }

    /// Where a module is, and where files of its own modules are.
    fn find(
        &self,
        files: &Files,
        item: &ItemMod,
        inside: &str,
        parent: usize,
    ) -> Result<(String, String)> {
        let declaring = &self.list[parent].file;
        if let Some(path) = path_of(item) {
            let file = joined(folder(declaring), &path);
            return Ok((file.clone(), folder(&file).into()));
        }
        for file in [format!("{inside}.rs"), format!("{inside}/mod.rs")] {
            if files.contains_key(&file) {
                return Ok((file, inside.into()));
            }
        }
        let line = item.ident.span().start().line;
        bail!("{declaring}:{line}: module {inside} has no file");
    }

    /// Notes files that are of no interest.
    fn skip(&mut self, files: &Files, file: &str, dir: &str) -> Result<()> {
        let mut theirs = Modules::default();
        theirs.open(files, file, dir, None)?;
        self.tests.append(&mut theirs.tests);
        self.tests.extend(theirs.list.into_iter().map(|m| m.file));
        Ok(())
    }

    /// Is the file compiled at all?
    pub fn knows(&self, file: &str) -> bool {
        self.tests.contains(file) || self.list.iter().any(|module| module.file == file)
    }

    pub fn file(&self, module: usize) -> &str {
        &self.list[module].file
    }

    pub fn child(&self, module: usize, name: &str) -> Option<usize> {
        self.list[module].children.get(name).copied()
    }

    /// Notes that a module imports what a path leads to, under a name.
    pub fn import(&mut self, module: usize, name: String, path: Vec<String>) {
        self.list[module].imports.insert(name, path);
    }

    /// Notes that a module imports all that a path leads to.
    pub fn import_all(&mut self, module: usize, path: Vec<String>) {
        self.list[module].globs.push(path);
    }

    /// Does the name stand for something of this crate?
    pub fn is_own(&self, module: usize, name: &str) -> bool {
        self.named(module, name, DEEPEST).is_some()
    }

    /// The file that a mention needs, if it is another.
    pub fn needs(&self, mention: &Mention) -> Option<Use> {
        let path = &mention.path;
        if path.absolute {
            return None;
        }
        let from = &self.list[mention.module];
        let (target, _) = self.follow(mention.module, &path.names, DEEPEST)?;
        let to = &self.list[target].file;
        let first = &path.names[0];
        // What was imported counts where it is imported, unless the path leads on from there.
        let is_told = !mention.is_import
            && from.imports.contains_key(first)
            && self
                .named(mention.module, first, DEEPEST)
                .is_some_and(|(imported, _)| self.list[imported].file == *to);
        (*to != from.file && !is_told).then(|| Use {
            from: from.file.clone(),
            line: path.line,
            to: to.clone(),
        })
    }

    /// The last module on a path, and whether the path ends there.
    fn follow(&self, from: usize, path: &[String], depth: u32) -> Option<(usize, bool)> {
        let (first, rest) = path.split_first()?;
        let (mut module, mut is_whole) = match first.as_str() {
            "crate" => (ROOT, true),
            "self" => (from, true),
            "super" => (self.list[from].parent?, true),
            name => self.named(from, name, depth)?,
        };
        for name in rest {
            if !is_whole {
                break;
            }
            match name.as_str() {
                "super" => module = self.list[module].parent?,
                name => match self.child(module, name) {
                    Some(child) => module = child,
                    None => is_whole = false,
                },
            }
        }
        Some((module, is_whole))
    }

    /// As [`follow`](Self::follow), for a name that a module declares or imports.
    fn named(&self, from: usize, name: &str, depth: u32) -> Option<(usize, bool)> {
        let depth = depth.checked_sub(1)?;
        if let Some(child) = self.child(from, name) {
            return Some((child, true));
        }
        let module = &self.list[from];
        if let Some(path) = module.imports.get(name) {
            return self.follow(from, path, depth);
        }
        module.globs.iter().find_map(|path| {
            let (all, is_whole) = self.follow(from, path, depth)?;
            Some((self.child(all, name).filter(|_| is_whole)?, true))
        })
    }
}

/// What `#[path = ".."]` says.
fn path_of(item: &ItemMod) -> Option<String> {
    item.attrs.iter().find_map(|attribute| {
        let Meta::NameValue(pair) = &attribute.meta else {
            return None;
        };
        match &pair.value {
            Expr::Lit(value) if pair.path.is_ident("path") => match &value.lit {
                Lit::Str(text) => Some(text.value()),
                _ => None,
            },
            _ => None,
        }
    })
}

fn folder(file: &str) -> &str {
    file.rsplit_once('/').map_or("", |(folder, _)| folder)
}

fn joined(folder: &str, path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in folder.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}
