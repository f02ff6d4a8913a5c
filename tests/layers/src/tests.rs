// SPDX-License-Identifier: GPL-2.0

use super::*;

const PAGE: &str = "
Floors
======

===== ============== ====================== ======
floor place          may use                why
===== ============== ====================== ======
1     src/logic                             pure
2     ``xenbus``                            C
2     src/sys        src/logic              C
3     src/datapath   src/logic ``xenbus``
                     src/sys                prose
4     src/main.rs    src/logic src/datapath
===== ============== ====================== ======
";

/// A small module that keeps to the table.
const FILES: [(&str, &str); 11] = [
    (
        "src/main.rs",
        "use kernel::prelude::*;
mod datapath;
mod logic;
mod sys;
#[path = \"../xenbus/mod.rs\"]
mod xenbus;
use datapath::engine::Engine;
module! { type: Whole, name: \"crate::sys::bio\" }
struct Whole(Engine);",
    ),
    ("src/logic/mod.rs", "pub mod bucket;\npub mod limits;"),
    (
        "src/logic/bucket.rs",
        "use core::num;
pub enum Full { Yes, No }
use Full::*;
#[cfg(test)]
mod tests { use super::*; use std::fs; use crate::sys::bio; }",
    ),
    (
        "src/logic/limits.rs",
        "use super::bucket::Full;\nuse self::Kind::A;\nenum Kind { A }",
    ),
    ("src/sys/mod.rs", "pub(crate) mod bio;\nmod helpers;"),
    (
        "src/sys/bio.rs",
        "use super::helpers;
use crate::logic::bucket;
/// See crate::datapath::engine.
pub(in crate::sys) fn f() { helpers::g(bucket::Full::Yes, \"crate::datapath\") }",
    ),
    (
        "src/sys/helpers.rs",
        "use kernel::bindings;\npub(super) fn g() {}",
    ),
    (
        "src/datapath/mod.rs",
        "pub(crate) mod engine;\npub(crate) mod gate;",
    ),
    (
        "src/datapath/engine.rs",
        "use crate::{logic::{bucket::{self, Full}, limits as bounds}, sys::bio};
use super::gate::Gate;
mod intake;
pub(crate) struct Engine(Gate);
fn f() { bucket::g(); bounds::h(); bio::f(); crate::xenbus::is_xen_domain() }",
    ),
    (
        "src/datapath/engine/intake.rs",
        "use super::super::gate::Gate;\nuse crate::sys::bio;",
    ),
    ("src/datapath/gate.rs", "pub(crate) struct Gate;"),
];

/// The small module with `more` at the end of one file, which begins a line of its own.
fn with(file: &str, more: &str) -> Files {
    let mut files: Files = FILES
        .iter()
        .map(|(name, text)| (name.to_string(), format!("{text}\n")))
        .collect();
    files.insert("xenbus/mod.rs".into(), "pub fn is_xen_domain() {}\n".into());
    *files.entry(file.into()).or_default() += more;
    files
}

fn found_in(files: &Files, page: &str) -> Vec<String> {
    let violations = violations(files, &Table::parse(page).unwrap()).unwrap();
    violations.iter().map(ToString::to_string).collect()
}

/// What is found if `more` is added to a file.
fn found(file: &str, more: &str) -> Vec<String> {
    found_in(&with(file, more), PAGE)
}

/// What is found in the small module by another table.
fn found_by(old: &str, new: &str) -> Vec<String> {
    assert!(PAGE.contains(old));
    found_in(&with("src/main.rs", ""), &PAGE.replace(old, new))
}

#[test]
fn a_module_that_keeps_to_the_table() {
    assert_eq!(found("src/main.rs", ""), [""; 0]);
}

#[test]
fn each_forbidden_direction() {
    let cases = [
        (
            "src/sys/bio.rs",
            "datapath::gate::Gate",
            "src/sys",
            "src/datapath",
            (2, 3),
        ),
        ("src/sys/bio.rs", "Whole", "src/sys", "src/main.rs", (2, 4)),
        ("src/sys/bio.rs", "xenbus::f", "src/sys", "xenbus", (2, 2)),
        ("xenbus/mod.rs", "sys::bio", "xenbus", "src/sys", (2, 2)),
        (
            "xenbus/mod.rs",
            "logic::limits",
            "xenbus",
            "src/logic",
            (2, 1),
        ),
        (
            "xenbus/mod.rs",
            "datapath::gate",
            "xenbus",
            "src/datapath",
            (2, 3),
        ),
        ("xenbus/mod.rs", "Whole", "xenbus", "src/main.rs", (2, 4)),
        (
            "src/datapath/gate.rs",
            "Whole",
            "src/datapath",
            "src/main.rs",
            (3, 4),
        ),
        ("src/main.rs", "sys::bio", "src/main.rs", "src/sys", (4, 2)),
        ("src/main.rs", "xenbus::f", "src/main.rs", "xenbus", (4, 2)),
    ];
    for (file, path, from, to, floors) in cases {
        let line = with(file, "")[file].lines().count() + 1;
        let expected = format!(
            "{file}:{line}: {from} may not use {to} (floor {} to floor {})",
            floors.0, floors.1
        );
        let found = found(file, &format!("use crate::{path};"));
        let others: Vec<_> = found.iter().filter(|v| **v != expected).collect();
        assert!(found.contains(&expected), "{expected}: {found:?}");
        // Two files may use each other now.
        assert!(
            others.iter().all(|v| v.contains("uses and is used by")),
            "{others:?}"
        );
    }
}

#[test]
fn the_pure_code_knows_nobody() {
    let cases = [
        ("use kernel::str;", "kernel::str"),
        ("use ::kernel::str;", "kernel::str"),
        ("extern crate alloc;", "alloc"),
        ("use libc::c_int;", "libc::c_int"),
        ("fn f() { std::process::exit(0) }", "std::process::exit"),
        ("fn f() { m!(a, [kernel::g()]) }", "kernel::g"),
        ("use crate::logic::limits;", "crate::logic::limits"),
        ("use crate::sys::bio::f;", "crate::sys::bio::f"),
        (
            "fn f() -> crate::logic::limits::L {}",
            "crate::logic::limits::L",
        ),
    ];
    for (code, path) in cases {
        let found = found("src/logic/bucket.rs", code);
        let expected = format!("src/logic/bucket.rs:6: src/logic may not use {path} (floor 1");
        assert!(
            found.iter().any(|v| v.starts_with(&expected)),
            "{code}: {found:?}"
        );
    }
    let upwards = "src/logic/mod.rs:3: src/logic may not use src/sys (floor 1 to floor 2)";
    assert_eq!(
        found("src/logic/mod.rs", "use super::sys::helpers;"),
        [upwards]
    );
}

#[test]
fn wherever_a_path_stands() {
    let gate = "src/sys/bio.rs:6: src/sys may not use src/datapath (floor 2 to floor 3)";
    let cases = [
        "use kernel::{\nc::D, crate_name};use crate::{logic::limits,datapath::{gate::Gate}};",
        "use super::super::datapath::\ngate as g;",
        "fn f()\n-> Option<crate::datapath::gate::Gate> {}",
        "const N: usize =\ncrate::datapath::gate::N * 2;",
        "impl X {\n fn f() where Y: super::super::datapath::gate::T {} }",
        "fn f() { match x {\n crate::datapath::gate::Gate => 1 } }",
        "fn f() { g::<\ncrate::datapath::gate::Gate>() }",
        "fn f() { let x = <\ncrate::datapath::gate::Gate as T>::new(); }",
        "m! {\n use crate::{logic::limits, datapath::gate::{self as g}}; }",
        "macro_rules! m { () => {\n$crate::datapath::gate::G } }",
        "macro_rules! m { ($x:ident) => { pub(in crate::datapath) fn f(\nx: &crate::datapath::gate::Gate<$x::a::b>) {} } }",
        "m!(x => [\nf(<A as crate::datapath::gate::T>::B::c)]);",
        "#[made(\nwith = crate::datapath::gate::Gate)] struct X;",
        "mod inner {\n use super::super::super::datapath::gate; }",
        "use crate as top;\nuse top::datapath::gate;",
        "use crate::*;\nfn f() { datapath::gate::g() }",
    ];
    for code in cases {
        let found = found("src/sys/bio.rs", code);
        assert!(found.iter().any(|v| v == gate), "{code}: {found:?}");
    }
}

#[test]
fn what_was_imported_may_lead_on() {
    let code = "use crate::datapath;\nfn f() { datapath::gate::g() }\nfn h() { datapath::i() }";
    let line =
        |n| format!("src/sys/bio.rs:{n}: src/sys may not use src/datapath (floor 2 to floor 3)");
    assert_eq!(found("src/sys/bio.rs", code), [line(5), line(6)]);
}

#[test]
fn what_uses_nothing() {
    let cases = [
        "// crate::datapath::gate\n/* use crate::datapath::gate; */",
        "/// [`crate::datapath::gate`]\npub(in crate::datapath) struct X(pub(crate) u8);",
        "fn f() { m!(\"crate::datapath::gate\", pub(crate) x, pub(in crate::datapath) y) }",
        "#[cfg(test)]\nmod tests { use crate::datapath::gate; }",
        "#[cfg(all(test, X))]\nuse crate::datapath::gate;",
        "#[doc = \"x\"]\n#[cfg(test)]\nimpl X { fn f() { crate::datapath::gate::g() } }",
        "impl X { #[cfg(test)] fn f() { crate::datapath::gate::g() } }",
        "fn f() { #[cfg(test)] let x = crate::datapath::gate::g(); }",
        "fn f() { #[cfg(test)] crate::datapath::gate::g(); }",
        "struct X { #[cfg(test)] x: crate::datapath::gate::Gate }",
        "m!(a.crate_::datapath, $x::crate_, <A as B>::datapath::gate);",
    ];
    for code in cases {
        assert_eq!(found("src/sys/bio.rs", code), [""; 0], "{code}");
    }
    let variable = "macro_rules! m { ($xenbus:ident) => { $xenbus::f() } }";
    assert_eq!(found("src/main.rs", variable), [""; 0]);
    let on = "#[cfg(any(test, X))]\nuse crate::datapath::gate;";
    assert_eq!(found("src/sys/bio.rs", on).len(), 1);
}

#[test]
fn files_for_tests_only() {
    let mut files = with("src/sys/bio.rs", "#[cfg(test)]\nmod tests;\n");
    let code = "use crate::datapath::gate;".to_owned();
    files.insert("src/sys/bio/tests.rs".into(), code);
    assert_eq!(found_in(&files, PAGE), [""; 0]);
    let code = "#![cfg(test)]\nuse crate::datapath::gate;".to_owned();
    files.insert("src/sys/helpers.rs".into(), code);
    assert_eq!(found_in(&files, PAGE), [""; 0]);
}

#[test]
fn circles() {
    let two = "src/datapath/engine.rs: uses and is used by src/datapath/gate.rs:
    src/datapath/engine.rs:2 uses src/datapath/gate.rs
    src/datapath/gate.rs:2 uses src/datapath/engine.rs";
    assert_eq!(
        found("src/datapath/gate.rs", "use super::engine::Engine;"),
        [two]
    );

    let parent = "src/datapath/gate.rs: uses and is used by src/datapath/mod.rs:
    src/datapath/gate.rs:2 uses src/datapath/mod.rs
    src/datapath/mod.rs:3 uses src/datapath/gate.rs";
    let mut files = with("src/datapath/gate.rs", "use super::BATCH;");
    *files.get_mut("src/datapath/mod.rs").unwrap() += "pub(crate) use self::gate::Gate;";
    assert_eq!(found_in(&files, PAGE), [parent]);

    let mut files = with("src/datapath/engine.rs", "use self::intake::Intake;");
    *files.get_mut("src/datapath/gate.rs").unwrap() += "fn f(e: &super::engine::Engine) {}";
    let three = "src/datapath/engine.rs: uses and is used by \
                 src/datapath/engine/intake.rs, src/datapath/gate.rs:
    src/datapath/engine.rs:6 uses src/datapath/engine/intake.rs
    src/datapath/engine.rs:2 uses src/datapath/gate.rs
    src/datapath/engine/intake.rs:1 uses src/datapath/gate.rs
    src/datapath/gate.rs:2 uses src/datapath/engine.rs";
    assert_eq!(found_in(&files, PAGE), [three]);
}

#[test]
fn files_and_places() {
    let page = table::PAGE;
    let mut files = with("src/main.rs", "mod lost;");
    files.insert("src/lost.rs".into(), String::new());
    let lost = format!("src/lost.rs: belongs to no place of {page}");
    assert_eq!(found_in(&files, PAGE), [lost]);
    let dead = found("src/sys/dead.rs", "fn f() {}");
    assert_eq!(dead, ["src/sys/dead.rs: is declared by no module"]);

    let twice = found_by(
        "4     src/main.rs",
        "4     src/sys/bio.rs\n4     src/main.rs",
    );
    let both = "src/sys/bio.rs: belongs to more than one place: src/sys, src/sys/bio.rs";
    assert_eq!(twice, [both]);
    let empty = found_by("4     src/main.rs", "4     src/vbd\n4     src/main.rs");
    assert_eq!(empty, [format!("{page}:13: src/vbd has no files")]);
    let error = Modules::read(&with("src/main.rs", "mod gone;"))
        .err()
        .unwrap();
    assert_eq!(
        error.to_string(),
        "src/main.rs:10: module src/gone has no file"
    );
    let error = Modules::read(&with("src/sys/bio.rs", "fn ("))
        .err()
        .unwrap();
    assert!(
        error.to_string().starts_with("src/sys/bio.rs:5: "),
        "{error}"
    );
}

#[test]
fn faults_of_the_table() {
    let page = table::PAGE;
    let same = found_by(
        "``xenbus``                            C",
        "``xenbus``     src/sys                C",
    );
    let level = "xenbus on floor 2 cannot be let use src/sys on floor 2";
    assert_eq!(same, [format!("{page}:9: {level}")]);
    let unknown = found_by(
        "C\n2     src/sys        src/logic",
        "C\n2     src/sys        src/logic x",
    );
    assert_eq!(unknown, [format!("{page}:10: x has no floor")]);
    let twice = found_by("4     src/main.rs", "3     src/sys\n4     src/main.rs");
    assert!(twice.contains(&format!(
        "{page}:13: src/sys stands here for the second time"
    )));

    let bad = |old, new| {
        Table::parse(&PAGE.replace(old, new))
            .unwrap_err()
            .to_string()
    };
    assert!(bad("place", "where").contains("has no table"));
    assert!(bad("4     src", "four  src").contains(":13: \"four\" is no floor"));
    assert!(bad("src/datapath   src", "src/datapath and src").contains(":11: a cell reaches"));
    assert!(bad("src/main.rs", "           ").contains(":13: \"\" is not one place"));
}
