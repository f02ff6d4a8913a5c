// SPDX-License-Identifier: GPL-2.0

//! Reads the paths and imports of a file, except for what is compiled for tests only.

use proc_macro2::TokenStream;
use proc_macro2::TokenTree;
use quote::ToTokens;
use syn::Meta;
use syn::Token;
use syn::UseTree;
use syn::ext::IdentExt;
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::visit;
use syn::visit::Visit;

use crate::modules::Modules;
use crate::tokens;
use crate::tokens::Written;

/// A path in a module.
pub struct Mention {
    pub module: usize,
    pub path: Written,
    /// Is it one of `use` or `extern crate`?
    pub is_import: bool,
}

/// Tells the paths in the source of a module, and notes what it imports.
pub fn read(modules: &mut Modules, module: usize, source: &syn::File) -> Vec<Mention> {
    let mut reader = Reader {
        modules,
        module,
        found: Vec::new(),
    };
    if !source.attrs.iter().any(|a| means_tests(&a.meta)) {
        reader.visit_file(source);
    }
    reader.found
}

struct Reader<'a> {
    modules: &'a mut Modules,
    module: usize,
    found: Vec<Mention>,
}

impl Reader<'_> {
    fn add(&mut self, path: Written, is_import: bool) {
        self.found.push(Mention {
            module: self.module,
            path,
            is_import,
        });
    }

    /// Takes an import apart.
    fn import(&mut self, tree: &UseTree, prefix: &Written) {
        let (name, path) = match tree {
            UseTree::Path(path) => return self.import(&path.tree, &prefix.with(&path.ident)),
            UseTree::Group(group) => {
                return group.items.iter().for_each(|t| self.import(t, prefix));
            }
            UseTree::Glob(glob) => {
                let names = prefix.names.clone();
                self.modules.import_all(self.module, names);
                return self.add(prefix.at(glob.span()), true);
            }
            UseTree::Name(name) if name.ident == "self" => {
                (prefix.names.last().cloned(), prefix.at(name.span()))
            }
            UseTree::Name(name) => {
                let path = prefix.with(&name.ident);
                (path.names.last().cloned(), path)
            }
            UseTree::Rename(pair) if pair.ident == "self" => {
                let path = prefix.at(pair.span());
                (Some(pair.rename.unraw().to_string()), path)
            }
            UseTree::Rename(pair) => {
                let path = prefix.with(&pair.ident);
                (Some(pair.rename.unraw().to_string()), path)
            }
        };
        if let Some(name) = name.filter(|_| !path.absolute) {
            let names = path.names.clone();
            self.modules.import(self.module, name, names);
        }
        self.add(path, true);
    }
}

/// Whatever may bear an attribute, and does not count if that says `cfg(test)`.
macro_rules! without_tests {
    ($($visit:ident: $node:ident),*) => {$(
        fn $visit(&mut self, node: &'ast syn::$node) {
            if !is_for_tests(node) {
                visit::$visit(self, node);
            }
        }
    )*};
}

impl<'ast> Visit<'ast> for Reader<'_> {
    without_tests! {
        visit_item: Item, visit_impl_item: ImplItem, visit_trait_item: TraitItem,
        visit_foreign_item: ForeignItem, visit_stmt: Stmt, visit_arm: Arm, visit_field: Field,
        visit_field_value: FieldValue, visit_variant: Variant
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        let start = Written {
            absolute: item.leading_colon.is_some(),
            ..Written::default()
        };
        self.import(&item.tree, &start);
    }

    fn visit_item_extern_crate(&mut self, item: &'ast syn::ItemExternCrate) {
        let start = Written {
            absolute: true,
            ..Written::default()
        };
        self.add(start.with(&item.ident), true);
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        let outer = self.module;
        let name = item.ident.unraw().to_string();
        if item.content.is_some() {
            self.module = self.modules.child(outer, &name).unwrap_or(outer);
        }
        visit::visit_item_mod(self, item);
        self.module = outer;
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let mut written = Written {
            absolute: path.leading_colon.is_some(),
            ..Written::default()
        };
        for segment in &path.segments {
            written = written.with(&segment.ident);
        }
        if written.names.len() > 1 {
            self.add(written, false);
        }
        visit::visit_path(self, path);
    }

    /// What a macro or an attribute is given.
    fn visit_token_stream(&mut self, tokens: &'ast TokenStream) {
        for path in tokens::paths(tokens.clone()) {
            self.add(path, false);
        }
    }

    /// It says who may use something, and uses nothing.
    fn visit_vis_restricted(&mut self, _: &'ast syn::VisRestricted) {}
}

/// Is it compiled for tests only? The attributes of anything come first.
pub fn is_for_tests(node: &impl ToTokens) -> bool {
    let mut tokens = node.to_token_stream().into_iter();
    while let Some(TokenTree::Punct(sign)) = tokens.next() {
        match tokens.next() {
            Some(TokenTree::Group(group)) if sign.as_char() == '#' => {
                if syn::parse2(group.stream()).is_ok_and(|meta| means_tests(&meta)) {
                    return true;
                }
            }
            _ => break,
        }
    }
    false
}

/// Does the attribute keep code out of all but tests?
fn means_tests(attribute: &Meta) -> bool {
    match attribute {
        Meta::List(list) if list.path.is_ident("cfg") => conditions(list).any(|c| needs_test(&c)),
        _ => false,
    }
}

fn needs_test(condition: &Meta) -> bool {
    match condition {
        Meta::Path(path) => path.is_ident("test"),
        Meta::List(list) if list.path.is_ident("all") => conditions(list).any(|c| needs_test(&c)),
        Meta::List(list) if list.path.is_ident("any") => conditions(list).all(|c| needs_test(&c)),
        _ => false,
    }
}

fn conditions(list: &syn::MetaList) -> impl Iterator<Item = Meta> + use<> {
    let parser = Punctuated::<Meta, Token![,]>::parse_terminated;
    list.parse_args_with(parser).into_iter().flatten()
}
