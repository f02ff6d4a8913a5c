// SPDX-License-Identifier: GPL-2.0

//! Where things are: the checkout, the lab that `make lab` made, the module under test.

use std::collections::BTreeMap;
use std::fs;
use std::fs::File;
use std::path::Path;
use std::path::PathBuf;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use nix::fcntl::Flock;
use nix::fcntl::FlockArg;

use crate::scenario::Kind;
use crate::scenario::Machine;

/// Which driver serves the guests' disks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Backend {
    /// The module under test.
    Rblkback,
    /// The kernel's own C driver, for comparison.
    Blkback,
}

impl Backend {
    /// Its name among the drivers of the xen-backend bus.
    pub fn driver(self) -> &'static str {
        match self {
            Backend::Rblkback => "rblkback",
            Backend::Blkback => "vbd",
        }
    }

    /// Its name in /proc/modules.
    pub fn module(self) -> &'static str {
        match self {
            Backend::Rblkback => "rblkback",
            Backend::Blkback => "xen_blkback",
        }
    }

    /// The command that loads it in dom0.
    pub fn load_command(self) -> &'static str {
        match self {
            Backend::Rblkback => "insmod /lab/rblkback.ko",
            // The lab keeps it from being loaded by alias; this asks for it by name.
            Backend::Blkback => "modprobe xen-blkback",
        }
    }
}

/// A kernel that dom0 boots instead of the stock one. Its directory has `vmlinux`, `initrd` and what it
/// is made of, in a file called after it.
pub struct Dom0Kernel {
    pub dir: PathBuf,
    /// `debug`, `rt`, or a release.
    name: String,
    versions: BTreeMap<String, String>,
}

impl Dom0Kernel {
    /// What tests/debug/kernel or tests/kernels/kernel made.
    pub fn new(dir: &Path) -> Result<Self> {
        let files = fs::read_dir(dir)
            .with_context(|| format!("no kernel at {}", dir.display()))?
            .filter_map(|entry| Some(entry.ok()?.path()));
        let env = files
            .filter(|file| file.extension().is_some_and(|e| e == "env"))
            .min()
            .with_context(|| format!("no kernel at {}", dir.display()))?;
        let name = env.file_stem().unwrap_or_default().to_string_lossy();
        Ok(Dom0Kernel {
            dir: dir.into(),
            name: name.into_owned(),
            versions: assignments(&fs::read_to_string(&env)?),
        })
    }
}

/// Everything a run needs to know about its surroundings.
pub struct Lab {
    pub checkout: PathBuf,
    images: PathBuf,
    /// What dom0 boots, if not the stock kernel.
    pub kernel: Option<Dom0Kernel>,
    /// Where the disk of the ordinary dom0 is, see tests/debian.
    pub debian: Option<PathBuf>,
    /// Where that of the one with more kernels is.
    pub kernels: Option<PathBuf>,
    pub backend: Backend,
    pub module: PathBuf,
    /// `lab.env`: the versions this lab was made of.
    pub versions: BTreeMap<String, String>,
    /// Whether scenarios take the time they need, and not just what a run of all of them has.
    pub at_length: bool,
    /// How often to repeat what scenarios repeat, if not as often as they would.
    pub cycles: Option<u64>,
    /// By how much the user wants all deadlines stretched.
    pub stretch: u32,
    hosts: AtomicUsize,
    dir: PathBuf,
}

impl Lab {
    pub fn new(
        dir: &Path,
        module: &Path,
        backend: Backend,
        kernel: Option<Dom0Kernel>,
    ) -> Result<Self> {
        let checkout = std::env::current_dir()?;
        let env = dir.join("lab.env");
        let text = fs::read_to_string(&env)
            .with_context(|| format!("no lab at {}: run `make lab`", dir.display()))?;
        let module = checkout.join(module);
        if backend == Backend::Rblkback && !module.exists() {
            bail!("{} does not exist: run `make`", module.display());
        }
        let mut versions = assignments(&text);
        if let Some(kernel) = &kernel {
            versions.extend(kernel.versions.clone());
        }
        let images = dir.join("images");
        Ok(Lab {
            checkout,
            images,
            kernel,
            debian: None,
            kernels: None,
            backend,
            module,
            versions,
            at_length: true,
            cycles: None,
            stretch: 1,
            hosts: AtomicUsize::new(0),
            dir: dir.into(),
        })
    }

    /// A file that a host boots: `xen`, `dom0.img`.
    pub fn image(&self, name: &str) -> PathBuf {
        self.images.join(name)
    }

    /// Where saved hosts are, see [`crate::snapshot`].
    pub fn snapshots(&self) -> PathBuf {
        self.dir.join("hosts")
    }

    /// Held by who makes the saved host of a kind, or looks for it; other checkouts use the same lab.
    pub fn making(&self, machine: Machine) -> Result<Flock<File>> {
        let parent = self.snapshots();
        fs::create_dir_all(&parent)?;
        let file = File::create(parent.join(format!("{}.lock", machine.name())))?;
        Flock::lock(file, FlockArg::LockExclusive)
            .map_err(|(_, error)| error)
            .context("locking the saved hosts")
    }

    /// What the disk of a host begins as.
    pub fn disk(&self, kind: Kind) -> Result<PathBuf> {
        let dir = match kind {
            Kind::Debian => &self.debian,
            Kind::Kernels => &self.kernels,
            _ => return Ok(self.image("dom0.img")),
        };
        let dir = dir
            .as_deref()
            .context("there is no ordinary dom0: tests/debian/dom0 makes it")?;
        Ok(dir.join("disk.raw"))
    }

    /// dom0's kernel and the initrd that goes with it.
    pub fn dom0_kernel(&self) -> (PathBuf, PathBuf) {
        match &self.kernel {
            Some(Dom0Kernel { dir, .. }) => (dir.join("vmlinux"), dir.join("initrd")),
            None => (self.image("vmlinux"), self.image("dom0-initrd")),
        }
    }

    /// The name of dom0's kernel, if it is not the stock one.
    pub fn kernel_name(&self) -> Option<&str> {
        self.kernel.as_ref().map(|kernel| kernel.name.as_str())
    }

    /// Is it the one that watches itself, see [`crate::debug`]?
    pub fn is_debug(&self) -> bool {
        self.kernel_name() == Some("debug")
    }

    /// Do spinlocks sleep in it? Debian calls such kernels `7.3.4+deb13-rt-amd64`.
    pub fn is_realtime(&self) -> bool {
        let release = self.versions.get("KERNEL_RELEASE");
        release.is_some_and(|release| release.contains("-rt-"))
    }

    /// How much of something to do: the debug kernel takes several times as long for it.
    pub fn amount<T>(&self, usual: T, debug: T) -> T {
        if self.is_debug() { debug } else { usual }
    }

    /// How often to do something: in a run of everything, in one that takes its time, and on the
    /// debug kernel, unless a number was asked for.
    pub fn repeats(&self, quick: u64, full: u64, debug: u64) -> u64 {
        let usual = if self.at_length { full } else { quick };
        self.cycles.unwrap_or(self.amount(usual, debug))
    }

    /// By how much deadlines in host time are stretched.
    pub fn patience(&self) -> u32 {
        self.amount(1, 4) * self.stretch
    }

    /// A line of `lab.env`.
    pub fn version(&self, name: &str) -> Result<&str> {
        let value = self.versions.get(name);
        Ok(value.with_context(|| format!("lab.env has no {name}"))?)
    }

    /// A file or directory below `build/`.
    pub fn build(&self, name: &str) -> PathBuf {
        self.checkout.join("build").join(name)
    }

    /// A fresh directory for one host's logs and payload.
    pub fn host_dir(&self, kind: &str) -> Result<PathBuf> {
        let number = self.hosts.fetch_add(1, Ordering::Relaxed);
        let dir = self
            .build("logs")
            .join(format!("host-{}-{number}-{kind}", std::process::id()));
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        Ok(dir)
    }
}

fn assignments(text: &str) -> BTreeMap<String, String> {
    text.lines().filter_map(parse_assignment).collect()
}

fn parse_assignment(line: &str) -> Option<(String, String)> {
    let (key, value) = line.trim().split_once('=')?;
    let value = value.trim_matches(['"', '\'']);
    (!key.starts_with('#')).then(|| (key.to_string(), value.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_is_called_after_its_file() {
        let dir = std::env::temp_dir().join(format!("rblkback-kernel-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        assert!(Dom0Kernel::new(&dir).is_err());
        fs::write(dir.join("7.2.12+deb13-amd64.env"), "KDIR=/a\n").unwrap();
        let kernel = Dom0Kernel::new(&dir).unwrap();
        fs::remove_dir_all(&dir).unwrap();
        assert_eq!(kernel.name, "7.2.12+deb13-amd64");
        assert_eq!(kernel.versions["KDIR"], "/a");
    }

    #[test]
    fn assignment_lines() {
        let pair = |k: &str, v: &str| Some((k.to_string(), v.to_string()));
        assert_eq!(
            parse_assignment("KERNEL_RELEASE='7.3.4'"),
            pair("KERNEL_RELEASE", "7.3.4")
        );
        assert_eq!(parse_assignment("# A=b"), None);
        assert_eq!(parse_assignment(""), None);
    }
}
