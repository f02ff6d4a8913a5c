// SPDX-License-Identifier: GPL-2.0

//! Paths in code that is not parsed: what stands in a macro.

use proc_macro2::Delimiter;
use proc_macro2::Ident;
use proc_macro2::Span;
use proc_macro2::TokenStream;
use proc_macro2::TokenTree;
use syn::ext::IdentExt;

/// A path as it is written.
#[derive(Clone, Default)]
pub struct Written {
    pub names: Vec<String>,
    /// Does it begin with `::`?
    pub absolute: bool,
    pub line: usize,
}

impl Written {
    /// The path with one more name.
    pub fn with(&self, name: &Ident) -> Self {
        let mut longer = self.at(name.span());
        longer.names.push(name.unraw().to_string());
        longer
    }

    /// The same path in another line.
    pub fn at(&self, span: Span) -> Self {
        let mut same = self.clone();
        same.line = span.start().line;
        same
    }
}

/// All of them, in order. A group of imports becomes a path for each.
pub fn paths(tokens: TokenStream) -> Vec<Written> {
    let mut found = Vec::new();
    search(tokens, &mut found);
    found
}

fn search(tokens: TokenStream, found: &mut Vec<Written>) {
    let list: Vec<TokenTree> = tokens.into_iter().collect();
    let mut at = 0;
    while at < list.len() {
        match &list[at] {
            TokenTree::Group(group) => {
                if !is_visibility(&list[..at], group) {
                    search(group.stream(), found);
                }
                at += 1;
            }
            TokenTree::Ident(_) => {
                let start = Written {
                    // So does the rest of `<T as Trait>::name`, which leads nowhere either.
                    absolute: is_colons(&list, at.wrapping_sub(2)),
                    ..Written::default()
                };
                let before = found.len();
                let is_variable = is_variable(&list, at);
                at = follow(&list, at, &start, found);
                if is_variable {
                    found.truncate(before);
                }
            }
            _ => at += 1,
        }
    }
}

/// Reads the path that begins with the name at `at`, and returns where it ends.
fn follow(list: &[TokenTree], at: usize, start: &Written, found: &mut Vec<Written>) -> usize {
    let mut path = start.clone();
    let mut at = at;
    let mut has_more = false;
    while let Some(TokenTree::Ident(name)) = list.get(at) {
        path = path.with(name);
        at += 1;
        if !is_colons(list, at) {
            break;
        }
        match list.get(at + 2) {
            Some(TokenTree::Ident(_)) => at += 2,
            Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
                members(group.stream(), &path, found);
                return at + 3;
            }
            // Arguments of a generic, or a glob.
            _ => {
                at += 2;
                has_more = true;
                break;
            }
        }
    }
    if path.names.len() > 1 || path.absolute || has_more {
        found.push(path);
    }
    at
}

/// The paths of `prefix::{...}`.
fn members(tokens: TokenStream, prefix: &Written, found: &mut Vec<Written>) {
    let list: Vec<TokenTree> = tokens.into_iter().collect();
    let mut at = 0;
    while at < list.len() {
        at = match &list[at] {
            TokenTree::Ident(name) if name == "as" => at + 2,
            TokenTree::Ident(name) if name == "self" => {
                found.push(prefix.at(name.span()));
                at + 1
            }
            TokenTree::Punct(punct) if punct.as_char() == '*' => {
                found.push(prefix.at(punct.span()));
                at + 1
            }
            TokenTree::Ident(_) => follow(&list, at, prefix, found),
            _ => at + 1,
        };
    }
}

fn is_punct(token: &TokenTree, sign: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == sign)
}

fn is_colons(list: &[TokenTree], at: usize) -> bool {
    let colon = |at: usize| list.get(at).is_some_and(|token| is_punct(token, ':'));
    colon(at) && colon(at.wrapping_add(1))
}

/// Is the name one of a macro's variables? `$crate` is as good as `crate`.
fn is_variable(list: &[TokenTree], at: usize) -> bool {
    let is_crate = matches!(&list[at], TokenTree::Ident(name) if name == "crate");
    at > 0 && is_punct(&list[at - 1], '$') && !is_crate
}

/// `pub(crate)`, `pub(in path)` and their like say who may use something, and use nothing.
fn is_visibility(before: &[TokenTree], group: &proc_macro2::Group) -> bool {
    let is_pub = matches!(before.last(), Some(TokenTree::Ident(name)) if name == "pub");
    let inside: Vec<String> = group.stream().into_iter().map(|t| t.to_string()).collect();
    let inside: Vec<&str> = inside.iter().map(String::as_str).collect();
    is_pub && matches!(inside[..], ["crate" | "super" | "self"] | ["in", ..])
}
