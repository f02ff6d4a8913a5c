// SPDX-License-Identifier: GPL-2.0

//! How much of the kernel's stack the module's functions take. `make` fails as well if one takes
//! too much; here the largest is written down.

use std::path::Path;
use std::process::Command;
use std::process::Stdio;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;

use crate::lab::Backend;
use crate::lab::Lab;
use crate::results::Figures;

const SCRIPT: &str = "scripts/check-frames";

/// Has `scripts/check-frames` look at the module.
pub fn check(lab: &Lab, figures: &mut Figures) -> Result<()> {
    if lab.backend != Backend::Rblkback {
        return Ok(());
    }
    let output = command(&lab.checkout).arg(&lab.module).output()?;
    let complaints = String::from_utf8_lossy(&output.stderr);
    let told = String::from_utf8_lossy(&output.stdout);
    if let Some((bytes, function)) = largest(&told) {
        figures.insert("largest".into(), bytes.into());
        figures.insert("function".into(), function.into());
    }
    if !output.status.success() {
        bail!("{}", complaints.trim_end());
    }
    largest(&told).with_context(|| format!("{SCRIPT} says {told:?}"))?;
    Ok(())
}

fn command(checkout: &Path) -> Command {
    let mut command = Command::new(checkout.join(SCRIPT));
    command.arg("-v").stdin(Stdio::null());
    command
}

/// The size and the function in `largest stack frame: 48 bytes, name`.
fn largest(told: &str) -> Option<(u64, &str)> {
    let told = told.trim_end().strip_prefix("largest stack frame: ")?;
    let (bytes, function) = told.split_once(" bytes, ")?;
    Some((bytes.parse().ok()?, function))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// What the script says of a function with these instructions: the largest frame, what it
    /// complains of, and whether it lets the function pass.
    fn of(name: &str, code: &str) -> (u64, String, bool) {
        let checkout = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
        let dir = std::env::temp_dir().join(format!("frames-{}-{name}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let (source, object) = (dir.join("code.s"), dir.join("code.o"));
        let head = format!(".globl {name}\n.type {name}, @function\n{name}:\n");
        fs::write(&source, head + &code.replace(';', "\n") + "\nret\n").unwrap();
        let mut assembler = Command::new("as");
        let status = assembler.arg("-o").arg(&object).arg(&source).status();
        assert!(status.unwrap().success());
        let output = command(checkout)
            .arg(&object)
            .env("MAX_FRAME", "1024")
            .output()
            .unwrap();
        fs::remove_dir_all(&dir).unwrap();
        let told = String::from_utf8(output.stdout).unwrap();
        let complaint = String::from_utf8(output.stderr).unwrap();
        let (bytes, _) = largest(&told).unwrap();
        (bytes, complaint, output.status.success())
    }

    #[test]
    fn sizes() {
        let cases = [
            ("nothing", "nop", 0),
            ("pushes", "push %rbx; push %r12; pop %r12; push %rbx", 16),
            ("whole", "push %rbx; sub $1016, %rsp; add $1016, %rsp", 1024),
            ("negative", "add $-128, %rsp; sub $-128, %rsp", 128),
            ("parts", "sub $0x100, %rsp; sub $0x2ab, %rsp", 0x3ab),
            (
                "address",
                "lea -0x80(%rsp), %rsp; lea 0x80(%rsp), %rsp",
                128,
            ),
            ("aligned", "push %rbp; mov %rsp, %rbp; and $-64, %rsp", 64),
            (
                "back",
                "sub $8, %rsp; lea -0x28(%rbp), %rsp; mov %rbp, %rsp",
                8,
            ),
            (
                "others",
                "sub $4096, %rax; mov %rsp, %rdi; cmp %rax, %rsp",
                0,
            ),
        ];
        for (name, code, bytes) in cases {
            assert_eq!(of(name, code), (bytes, String::new(), true), "{name}");
        }
    }

    #[test]
    fn too_large() {
        for (name, code, bytes) in [
            ("by_a_push", "push %rbx; sub $1024, %rsp", 1032),
            ("by_adding", "add $-1032, %rsp", 1032),
            ("huge", "sub $0x12a8, %rsp", 4776),
        ] {
            let complaint =
                format!("check-frames: {name}: a stack frame of {bytes} bytes, more than 1024\n");
            assert_eq!(of(name, code), (bytes, complaint, false));
        }
    }

    #[test]
    fn of_unknown_size() {
        for code in ["sub %rax,%rsp", "mov %rax,%rsp", "lea (%rsp,%rax,1),%rsp"] {
            let (_, complaint, passed) = of("array", code);
            assert!(!passed, "{code}");
            let said: String = complaint.split_whitespace().collect::<Vec<_>>().join(" ");
            let expected = "check-frames: array: a stack frame of unknown size: ";
            assert_eq!(said, format!("{expected}{code}"));
        }
    }

    #[test]
    fn names_as_they_are_written() {
        for name in [
            "_RNvNtCs6FX6p4g30bO_8rblkback3vbd5probe",
            "_ZN8rblkback3vbd5probe17h0123456789abcdefE",
        ] {
            let (_, complaint, _) = of(name, "sub $0x800,%rsp");
            let expected = "check-frames: rblkback::vbd::probe: a stack frame of 2048 bytes";
            assert!(complaint.starts_with(expected), "{complaint}");
        }
    }

    #[test]
    fn no_object() {
        let checkout = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
        let output = command(checkout).arg("no-such-object").output().unwrap();
        assert!(!output.status.success());
        assert_eq!(largest(&String::from_utf8(output.stdout).unwrap()), None);
    }
}
