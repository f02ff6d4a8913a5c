// SPDX-License-Identifier: GPL-2.0

//! What a host gets of the checkout: the module, what is installed with it, the tests' own programs.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;

use crate::lab::Lab;

/// What the frontend is built for. Naming it keeps its flags from this host's own build scripts.
const TARGET: &str = "x86_64-unknown-linux-gnu";

impl Lab {
    /// The tar that dom0 unpacks to /lab: the module, what is installed with it, this program for its
    /// samplers, and the frontend, also as an addition to a guest's initrd.
    pub fn make_payload(&self, tar: &Path) -> Result<()> {
        let own = std::env::current_exe()?;
        let frontend = tar.with_file_name("frontend.cpio");
        let program = self.make_frontend(&frontend)?;
        let driver_domain = tar.with_file_name("driver-domain.cpio");
        if self.kernel.is_none() && self.module.exists() {
            self.make_driver_domain(&driver_domain)?;
        }
        let mut command = Command::new("tar");
        command.arg("-cf").arg(tar);
        let scripts = [
            "block-tokens",
            "modprobe.conf",
            "move-disks",
            "update-module",
        ]
        .map(|name| self.checkout.join("scripts").join(name));
        // Where there is one, see tests/cost.
        let ungated = self.build("ungated.ko");
        let holder = self.holder();
        let nvme = self.nvme();
        // Where `make deb` has built it; what only compilers need stays out.
        let packages = ["deb", "deb-next"].map(|name| self.build(name));
        command.arg("--exclude=rblkback-kdir-*");
        let files = [
            &own,
            &self.module,
            &holder,
            &frontend,
            &driver_domain,
            &program,
            &ungated,
        ];
        let files = files.into_iter().chain(&scripts).chain(&packages);
        for file in files.chain(&nvme).filter(|f| f.exists()) {
            command
                .arg("-C")
                .arg(file.parent().unwrap_or(Path::new("/")))
                .arg(file.file_name().unwrap_or_default());
        }
        let status = command.status().context("tar")?;
        if !status.success() {
            bail!("tar could not make {}: {status}", tar.display());
        }
        fs::remove_file(frontend)?;
        if driver_domain.exists() {
            fs::remove_file(driver_domain)?;
        }
        Ok(())
    }

    /// The module of dom0's that a scenario needs, for the same kernel as ours.
    fn holder(&self) -> PathBuf {
        let mut dir = self
            .module
            .parent()
            .map_or_else(PathBuf::new, PathBuf::from)
            .into_os_string();
        dir.push("-holder");
        PathBuf::from(dir).join("holder.ko")
    }

    /// The drivers of NVMe disks and of such on a network, both ends of it: dom0's image has no drivers of
    /// hardware, and these are the only ones that are asked for.
    fn nvme(&self) -> Vec<PathBuf> {
        let drivers = match &self.kernel {
            Some(kernel) => kernel.dir.join("nvme"),
            None => self.stock_modules().join("drivers/nvme"),
        };
        [
            "common/nvme-keyring",
            "common/nvme-auth",
            "host/nvme-core",
            "host/nvme",
            "host/nvme-fabrics",
            "host/nvme-tcp",
            "target/nvmet",
            "target/nvmet-tcp",
        ]
        .map(|name| drivers.join(format!("{name}.ko.xz")))
        .into()
    }

    /// What makes a guest one that serves the disks of others, in an archive behind its initrd: the module,
    /// and what mounts dom0's own disk, for the programs.
    fn make_driver_domain(&self, cpio: &Path) -> Result<()> {
        let modules = self.stock_modules().join("fs");
        let files = [
            self.module.clone(),
            self.checkout.join("scripts/block-tokens"),
            modules.join("squashfs/squashfs.ko.xz"),
            modules.join("overlayfs/overlay.ko.xz"),
        ];
        archive(cpio, &files)
    }

    /// The stock kernel's, in the build root.
    fn stock_modules(&self) -> PathBuf {
        let release = self.versions.get("KERNEL_RELEASE");
        let release = release.map_or("", String::as_str);
        Path::new("/usr/lib/modules").join(release).join("kernel")
    }

    /// The program that guests run as a frontend of their own and the module that helps it, in an
    /// archive that can follow their initrd's. It is built here, and not by who started us, because
    /// it is linked statically: a guest has no libraries but those of its few programs. Gives the
    /// program itself.
    fn make_frontend(&self, cpio: &Path) -> Result<PathBuf> {
        let status = Command::new("cargo")
            .args(["build", "--locked", "--quiet", "--release"])
            .args(["--manifest-path", "tests/Cargo.toml", "-p", "frontend"])
            .args(["--target", TARGET])
            .env("CARGO_PROFILE_RELEASE_STRIP", "symbols")
            .env("RUSTFLAGS", "-C target-feature=+crt-static")
            .current_dir(&self.checkout)
            .status()
            .context("cargo")?;
        if !status.success() {
            bail!("the frontend could not be built: {status}");
        }
        let target = std::env::var_os("CARGO_TARGET_DIR")
            .map_or_else(|| self.checkout.join("tests/target"), PathBuf::from);
        let files = [
            target.join(TARGET).join("release/frontend"),
            self.build("granter/granter.ko"),
        ];
        archive(cpio, &files).context("`make test-modules` makes what a guest needs")?;
        let [program, _] = files;
        Ok(program)
    }
}

/// An archive of files, without their directories, that can follow a guest's initrd.
fn archive(cpio: &Path, files: &[PathBuf]) -> Result<()> {
    let tree = cpio.with_extension("tree");
    fs::create_dir_all(&tree)?;
    let mut names = String::new();
    for file in files {
        let name = file.file_name().unwrap_or_default();
        fs::copy(file, tree.join(name)).with_context(|| file.display().to_string())?;
        names += &format!("{}\n", name.to_string_lossy());
    }
    let mut archiver = Command::new("cpio")
        .args(["--create", "--format=newc", "--quiet"])
        .arg("--file")
        .arg(cpio)
        .current_dir(&tree)
        .stdin(Stdio::piped())
        .spawn()
        .context("cpio")?;
    let mut input = archiver.stdin.take().context("cpio without a pipe")?;
    input.write_all(names.as_bytes())?;
    drop(input);
    let status = archiver.wait()?;
    if !status.success() {
        bail!("cpio could not make {}: {status}", cpio.display());
    }
    fs::remove_dir_all(tree)?;
    Ok(())
}
