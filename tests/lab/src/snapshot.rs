// SPDX-License-Identifier: GPL-2.0

//! Hosts that are up already: booted once for each kind, saved with a few idle guests, and from
//! then on loaded in a second or two instead of booted in half a minute.
//!
//! A snapshot has nothing of the checkout in it: module, programs and shell functions come to a
//! host after it was loaded. It lies in the lab's own directory and is made again when anything
//! that it is made of has changed.

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::Hash;
use std::hash::Hasher;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;

use crate::guest;
use crate::host::Host;
use crate::lab::Lab;
use crate::qemu;
use crate::results::round;
use crate::scenario::Machine;

/// A saved host.
pub struct Snapshot {
    dir: PathBuf,
    /// The names of the idle guests in it.
    pub spares: Vec<String>,
}

impl Snapshot {
    /// The one for a kind of host; makes it if there is none.
    pub fn of(lab: &Lab, machine: Machine) -> Result<Self> {
        // Whoever else wants it waits until it is there.
        let _making = lab.making(machine)?;
        let dir = lab.snapshots().join(format!(
            "{}-{:016x}",
            title(lab, machine),
            definition(lab, machine)?.finish()
        ));
        let spares = (1..=machine.spares())
            .map(|i| format!("spare{i}"))
            .collect();
        let snapshot = Snapshot { dir, spares };
        if !snapshot.dir.exists() {
            let begin = Instant::now();
            make(lab, machine, &snapshot)
                .with_context(|| format!("making the {} host", machine.name()))?;
            let took = round(begin.elapsed());
            println!("       {} host made in {took} s", machine.name());
        }
        Ok(snapshot)
    }

    /// What QEMU saved.
    pub fn state(&self) -> PathBuf {
        self.dir.join("state")
    }

    /// What the host wrote to its disk until then.
    pub fn disk(&self) -> PathBuf {
        self.dir.join("disk.qcow2")
    }

    /// What its console had said.
    pub fn serial(&self) -> PathBuf {
        self.dir.join("serial.log")
    }
}

/// The hosts of a kernel that is not the stock one have names of their own: both are used in turn,
/// and neither is to make the other's place.
fn title(lab: &Lab, machine: Machine) -> String {
    match lab.kernel_name() {
        Some(kernel) => format!("{kernel}.{}", machine.name()),
        None => machine.name(),
    }
}

/// All that a snapshot depends on, except for what the lab's own directory stands for.
fn definition(lab: &Lab, machine: Machine) -> Result<DefaultHasher> {
    let mut hasher = DefaultHasher::new();
    qemu::definition(lab, machine).hash(&mut hasher);
    (machine.spares(), guest::definition(machine.guests)).hash(&mut hasher);
    if machine.kind.boots_its_disk() {
        lab.disk(machine.kind)?.hash(&mut hasher);
    }
    Ok(hasher)
}

fn make(lab: &Lab, machine: Machine, snapshot: &Snapshot) -> Result<()> {
    let parent = lab.snapshots();
    let title = title(lab, machine);
    let partial = parent.join(format!("partial.{title}"));
    // Of one that was interrupted.
    if partial.exists() {
        fs::remove_dir_all(&partial)?;
    }
    fs::create_dir_all(&partial)?;
    let made = fill(lab, machine, snapshot, &partial);
    if made.is_err() {
        fs::remove_dir_all(&partial)?;
        return made;
    }
    // What this checkout, or the one that was here before, has no use for any more.
    for old in fs::read_dir(&parent)? {
        let old = old?;
        let name = old.file_name().to_string_lossy().into_owned();
        if is_of(&name, &title) {
            fs::remove_dir_all(old.path())?;
        }
    }
    fs::rename(&partial, &snapshot.dir)?;
    Ok(())
}

/// Whether a directory is a saved host of this title, and not of one that only begins like it.
fn is_of(name: &str, title: &str) -> bool {
    let hash = name
        .strip_prefix(title)
        .and_then(|rest| rest.strip_prefix('-'));
    hash.is_some_and(|hash| hash.len() == 16 && hash.bytes().all(|b| b.is_ascii_hexdigit()))
}

fn fill(lab: &Lab, machine: Machine, snapshot: &Snapshot, dir: &Path) -> Result<()> {
    let disk = dir.join("disk.qcow2");
    let base = lab.disk(machine.kind)?;
    let output = Command::new("qemu-img")
        .args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"])
        .args([&base, &disk])
        .output()
        .context("qemu-img")?;
    if !output.status.success() {
        bail!("qemu-img: {}", String::from_utf8_lossy(&output.stderr));
    }
    let mut host = Host::power_on(lab, machine, &disk)?;
    for name in &snapshot.spares {
        host.guest_named(name).booted().start()?.lay_by()?;
    }
    // What it still has to write, it writes now and not each time it is loaded.
    host.ok("sync")?;
    fs::write(dir.join("serial.log"), host.qemu.serial())?;
    host.qemu.save(&dir.join("state"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_title_and_a_hash_are_ours() {
        assert!(is_of("plain-081e27982984a54f", "plain"));
        for other in [
            "plain-other-081e27982984a54f",
            "plain-other.lock",
            "plain.lock",
            "7.2.12.plain-081e27982984a54f",
        ] {
            assert!(!is_of(other, "plain"), "{other}");
        }
    }
}
