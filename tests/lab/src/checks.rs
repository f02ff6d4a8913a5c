// SPDX-License-Identifier: GPL-2.0

//! Checks that need no host: the pure code's tests, style, lints, what the module imports.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::process::Stdio;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use object::Object;
use object::ObjectSymbol;

use crate::fuzz;
use crate::lab::Backend;
use crate::lab::Lab;
use crate::packages;
use crate::results::Figures;
use crate::stack_frames;
use crate::unsafe_code;

/// One check.
pub struct Check {
    pub name: &'static str,
    pub rows: &'static [&'static str],
    action: Action,
}

enum Action {
    /// Run at the top of the checkout; must end with status 0.
    Command(&'static [&'static str]),
    Function(fn(&Lab, &mut Figures) -> Result<()>),
}

/// All of them, in order.
pub const ALL: &[Check] = &[
    Check {
        name: "host-tests",
        rows: &["H01", "H21", "H22", "H23", "H24", "H26", "H54"],
        action: Action::Command(&[
            "cargo",
            "test",
            "--locked",
            "--quiet",
            "--manifest-path",
            "tests/Cargo.toml",
            "--workspace",
        ]),
    },
    Check {
        name: "fuzz",
        rows: &[],
        action: Action::Function(fuzz::check),
    },
    Check {
        name: "host-rustfmt",
        rows: &[],
        action: Action::Command(&[
            "cargo",
            "fmt",
            "--manifest-path",
            "tests/Cargo.toml",
            "--all",
            "--check",
        ]),
    },
    Check {
        name: "host-clippy",
        rows: &[],
        action: Action::Command(&[
            "cargo",
            "clippy",
            "--locked",
            "--quiet",
            "--manifest-path",
            "tests/Cargo.toml",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ]),
    },
    Check {
        name: "module-rustfmt",
        rows: &[],
        action: Action::Command(&["make", "-s", "rustfmtcheck"]),
    },
    Check {
        name: "module-clippy",
        rows: &[],
        action: Action::Command(&["make", "-s", "clippy"]),
    },
    Check {
        name: "unsafe-code",
        rows: &[],
        action: Action::Function(unsafe_code::check),
    },
    // A program of its own, or the lab's, which is copied into dom0, would be larger by half.
    Check {
        name: "layers",
        rows: &[],
        action: Action::Command(&[
            "cargo",
            "run",
            "--locked",
            "--quiet",
            "--manifest-path",
            "tests/Cargo.toml",
            "-p",
            "layers",
        ]),
    },
    Check {
        name: "no-panic",
        rows: &[],
        action: Action::Function(no_panic),
    },
    Check {
        name: "stack-frames",
        rows: &[],
        action: Action::Function(stack_frames::check),
    },
    Check {
        name: "prepare-kdir",
        rows: &["U19"],
        action: Action::Function(prepare_kdir),
    },
    Check {
        name: "packages",
        rows: &["U2"],
        action: Action::Function(packages::check),
    },
];

impl Check {
    pub fn run(&self, lab: &Lab, figures: &mut Figures) -> Result<()> {
        match self.action {
            Action::Command(words) => run_command(lab, words, figures),
            Action::Function(function) => function(lab, figures),
        }
    }
}

fn run_command(lab: &Lab, words: &[&str], figures: &mut Figures) -> Result<()> {
    let (program, arguments) = words.split_first().context("empty command")?;
    let output = Command::new(program)
        .args(arguments)
        .current_dir(&lab.checkout)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {program}"))?;
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        bail!(
            "`{}` failed: {}\n{}",
            words.join(" "),
            output.status,
            crate::logs::last_lines(&text, 60)
        );
    }
    // `cargo test` says how many it ran.
    let passed: u64 = text
        .lines()
        .filter_map(|line| {
            line.strip_prefix("test result: ok. ")?
                .split(' ')
                .next()?
                .parse::<u64>()
                .ok()
        })
        .sum();
    if passed > 0 {
        figures.insert("tests".into(), passed.into());
    }
    Ok(())
}

/// A panic in the kernel is `BUG()`: no path of the module may be able to reach one.
fn no_panic(lab: &Lab, _figures: &mut Figures) -> Result<()> {
    if lab.backend != Backend::Rblkback {
        return Ok(());
    }
    let bytes = fs::read(&lab.module)?;
    let object =
        object::File::parse(&*bytes).with_context(|| format!("{}", lab.module.display()))?;
    let imports: Vec<&str> = object
        .symbols()
        .filter(|s| s.is_undefined())
        .filter_map(|s| s.name().ok())
        .collect();
    if !imports.iter().any(|name| name.contains("xenbus")) {
        bail!(
            "{} imports nothing of xenbus: is it the module?",
            lab.module.display()
        );
    }
    // Mangled (v0) paths keep the words: `..4core9panicking5panic`.
    match imports
        .iter()
        .find(|name| name.contains("9panicking") || name.contains("rust_begin_unwind"))
    {
        Some(name) => bail!("{} imports {name}", lab.module.display()),
        None => Ok(()),
    }
}

/// An administrator's environment changes nothing of the kernel tree: that of the lab, which was made without
/// it, is still the one that would be made.
fn prepare_kdir(lab: &Lab, _figures: &mut Figures) -> Result<()> {
    let (release, tree) = (lab.version("KERNEL_RELEASE")?, lab.version("KDIR")?);
    let others = lab.build("prepare-kdir");
    // One that an interrupted run has left.
    if others.exists() {
        fs::remove_dir_all(&others)?;
    }
    fs::create_dir_all(&others)?;
    for name in ["bindgen", "rustc", "rustfmt", "gcc-14", "make"] {
        symlink("/bin/false", others.join(name))?;
    }
    let run = |destination: &Path| {
        Command::new("scripts/prepare-kdir")
            .args([release, &destination.to_string_lossy()])
            .current_dir(&lab.checkout)
            .env("PATH", format!("{}:/usr/bin:/bin", others.display()))
            .envs([
                ("LLVM", "1"),
                ("RUSTC", "/bin/false"),
                ("ARCH", "mips"),
                ("MAKEFLAGS", "-n"),
            ])
            .stdin(Stdio::null())
            .output()
            .map(|output| {
                let text = String::from_utf8_lossy(&output.stdout)
                    + String::from_utf8_lossy(&output.stderr);
                (output.status.success(), text.into_owned())
            })
    };
    let (good, said) = run(Path::new(tree))?;
    if !good || !said.contains("is ready for kernel") {
        bail!("with a different environment:\n{said}");
    }
    let blank = others.join("a blank");
    let (good, said) = run(&blank)?;
    if good || !said.contains("has a blank") || blank.exists() {
        bail!("in a path with a blank:\n{said}");
    }
    fs::remove_dir_all(&others)?;
    Ok(())
}
