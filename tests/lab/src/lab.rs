// SPDX-License-Identifier: GPL-2.0

//! Where things are: the checkout, the lab that `make lab` made, the module under test.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;

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

/// Everything a run needs to know about its surroundings.
pub struct Lab {
    pub checkout: PathBuf,
    pub images: PathBuf,
    pub backend: Backend,
    pub module: PathBuf,
    /// `lab.env`: the versions this lab was made of.
    pub versions: BTreeMap<String, String>,
    hosts: AtomicUsize,
}

impl Lab {
    pub fn new(dir: &Path, module: &Path, backend: Backend) -> Result<Self> {
        let checkout = std::env::current_dir()?;
        let env = dir.join("lab.env");
        let text = fs::read_to_string(&env)
            .with_context(|| format!("no lab at {}: run `make lab`", dir.display()))?;
        let module = checkout.join(module);
        if backend == Backend::Rblkback && !module.exists() {
            bail!("{} does not exist: run `make`", module.display());
        }
        let versions = text.lines().filter_map(parse_assignment).collect();
        let images = dir.join("images");
        Ok(Lab {
            checkout,
            images,
            backend,
            module,
            versions,
            hosts: AtomicUsize::new(0),
        })
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

    /// The tar that dom0 unpacks to /lab: the module and this program, for its samplers.
    pub fn make_payload(&self, tar: &Path) -> Result<()> {
        let own = std::env::current_exe()?;
        let mut command = Command::new("tar");
        command.arg("-cf").arg(tar);
        for file in [&own, &self.module].into_iter().filter(|f| f.exists()) {
            command
                .arg("-C")
                .arg(file.parent().unwrap_or(Path::new("/")))
                .arg(file.file_name().unwrap_or_default());
        }
        let status = command.status().context("tar")?;
        if !status.success() {
            bail!("tar could not make {}: {status}", tar.display());
        }
        Ok(())
    }
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
    fn assignments() {
        let pair = |k: &str, v: &str| Some((k.to_string(), v.to_string()));
        assert_eq!(
            parse_assignment("KERNEL_RELEASE='7.3.4'"),
            pair("KERNEL_RELEASE", "7.3.4")
        );
        assert_eq!(parse_assignment("# A=b"), None);
        assert_eq!(parse_assignment(""), None);
    }
}
