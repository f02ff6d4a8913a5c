// SPDX-License-Identifier: GPL-2.0

//! The Debian packages: they hold what they should, install, have DKMS build the same module as
//! this checkout, are upgraded, and leave nothing behind when they are purged.
//!
//! They are installed into an overlay of the build root, whose upper directory then is what they have changed.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use object::Object;
use object::ObjectSection;

use crate::check;
use crate::lab::Lab;
use crate::logs::last_lines;
use crate::results::Figures;

/// What a purge may leave: what apt, dpkg and DKMS themselves keep.
const KEPT: &[&str] = &[
    "etc/apt/",
    "etc/ld.so.cache",
    "tmp/",
    "usr/share/mime/",
    "var/cache/",
    "var/lib/apt/",
    "var/lib/dkms/mok.",
    "var/lib/dpkg/",
    "var/lib/systemd/",
    "var/log/",
];

/// Tries the packages that `make deb` has built.
pub fn check(lab: &Lab, figures: &mut Figures) -> Result<()> {
    let release = lab.version("KERNEL_RELEASE")?;
    let output = lab.build("deb");
    let packages = Packages::of(&output).context("in build/deb, which `make deb` makes")?;
    lint(&output)?;
    packages.hold(release)?;
    for (name, file) in &packages.files {
        figures.insert(format!("{name} bytes"), fs::metadata(file)?.len().into());
    }

    let next = lab.build("deb-dkms-next");
    let words = [
        "--version",
        &next_of(&packages.version),
        "--output",
        &next.to_string_lossy(),
    ];
    run(&lab.checkout, "scripts/make-deb", &words)?;
    let tree = Tree::new(&lab.build("packages"))?;
    tree.offer(&output)?;
    let metadata = format!("rblkback-kdir-{release}");
    by_dkms(lab, &tree, release, &packages.version, &metadata)?;
    tree.offer(&next)?;
    upgrade(&tree, release, &packages.version)?;
    tree.purge(
        release,
        &["rblkback", "rblkback-dkms", "rblkback-tools", &metadata],
    )?;

    let prebuilt = format!("rblkback-modules-{release}");
    tree.apt(&["install", "rblkback", &prebuilt])?;
    check::equal(
        "where the prebuilt module is",
        tree.modinfo(release, "filename")?.as_str(),
        format!("/lib/modules/{release}/updates/rblkback.ko"),
    )?;
    tree.purge(release, &["rblkback", "rblkback-tools", &prebuilt])
}

/// Debian's own opinion.
fn lint(output: &Path) -> Result<()> {
    let packages = files_of(output, "deb")?;
    let mut words = vec!["--allow-root", "--fail-on", "error"];
    words.extend(packages.iter().filter_map(|path| path.to_str()));
    run(output, "lintian", &words).map(drop)
}

/// DKMS builds what this checkout built against the whole kernel tree.
fn by_dkms(lab: &Lab, tree: &Tree, release: &str, version: &str, metadata: &str) -> Result<()> {
    tree.apt(&["install", "rblkback", "rblkback-dkms", metadata])?;
    let status = tree.run(&["dkms", "status", "rblkback"])?;
    check::contains("dkms status", &status, &[version, release, "installed"])?;
    check::equal(
        "the version of the module",
        tree.modinfo(release, "version")?.as_str(),
        version,
    )?;
    let unpack = format!("xz -dc $(modinfo -k {release} -n rblkback) >/module.ko");
    tree.run(&["sh", "-c", &unpack])?;
    check::that(
        code_of(&tree.root.join("module.ko"))? == code_of(&lab.module)?,
        || "DKMS built other code than this checkout".into(),
    )?;
    fs::remove_file(tree.root.join("module.ko"))?;
    tree.run(&["rblkback-check", "--kernel", release])?;
    let skips = format!("/usr/src/rblkback-{version}/scripts/dkms-kdir 6.18.9-none; test $? = 77");
    let (skipped, said) = tree.ended(&["sh", "-c", &skips])?;
    check::that(skipped, || "DKMS would not skip an old kernel".into())?;
    let sentence = [
        "not built for 6.18.9-none: the module is for Linux",
        "and later",
    ];
    check::contains("of a kernel that is too old", &said, &sentence)?;
    let (good, said) = tree.ended(&["rblkback-check", "--kernel", "7.0.0-none"])?;
    check::that(!good, || "a kernel without a module is not reported".into())?;
    check::contains(
        "of a kernel without a module",
        &said,
        &["xen-blkback serves all disks"],
    )
}

/// The next version takes the place of this one.
fn upgrade(tree: &Tree, release: &str, version: &str) -> Result<()> {
    tree.apt(&["install", "rblkback", "rblkback-dkms"])?;
    let seen = tree.modinfo(release, "version")?;
    check::equal("the version after the upgrade", seen, next_of(version))?;
    let status = tree.run(&["dkms", "status", "rblkback"])?;
    check::equal("versions that DKMS has", status.lines().count(), 1)
}

fn next_of(version: &str) -> String {
    format!("{version}+next")
}

/// What `scripts/make-deb` has built.
struct Packages {
    version: String,
    /// By their names.
    files: BTreeMap<String, PathBuf>,
}

impl Packages {
    fn of(output: &Path) -> Result<Self> {
        let mut files = BTreeMap::new();
        let mut version = String::new();
        for file in files_of(output, "deb")? {
            let words = [
                "--show",
                "--showformat=${Package} ${Version}",
                &file.to_string_lossy(),
            ];
            let said = run(output, "dpkg-deb", &words)?;
            let (name, its) = said.split_once(' ').context("dpkg-deb says no version")?;
            version = its.to_owned();
            files.insert(name.to_owned(), file);
        }
        Ok(Self { version, files })
    }

    /// Each holds what its users look for, and nothing elsewhere.
    fn hold(&self, release: &str) -> Result<()> {
        let names: Vec<&str> = self.files.keys().map(String::as_str).collect();
        let (kdir, modules) = (
            format!("rblkback-kdir-{release}"),
            format!("rblkback-modules-{release}"),
        );
        check::equal(
            "the packages",
            names,
            vec![
                "rblkback",
                "rblkback-dkms",
                &kdir,
                &modules,
                "rblkback-tools",
            ],
        )?;
        let version = &self.version;
        let metadata = format!("/usr/lib/rblkback/metadata/{release}/");
        let module = format!("/usr/lib/modules/{release}/updates/rblkback.ko");
        let source = format!("/usr/src/rblkback-{version}/");
        let conf = format!("{source}dkms.conf");
        let (names, target) = (
            format!("{metadata}libkernel.rmeta"),
            format!("{metadata}target.json"),
        );
        self.holds("rblkback", &[], &[])?;
        self.holds("rblkback-dkms", &[&conf], &[&source])?;
        self.holds(&kdir, &[&names, &target], &[&metadata])?;
        self.holds(&modules, &[&module], &[&module])?;
        let tools = [
            "/etc/kernel/postinst.d/zz-rblkback",
            "/etc/xen/scripts/block-tokens",
            "/usr/lib/modprobe.d/rblkback.conf",
            "/usr/lib/systemd/system/rblkback-check.service",
            "/usr/sbin/rblkback-check",
            "/usr/sbin/rblkback-take",
            "/usr/sbin/rblkback-update",
            "/usr/share/man/man8/block-tokens.8.gz",
            "/usr/share/man/man8/rblkback-check.8.gz",
            "/usr/share/man/man8/rblkback-take.8.gz",
            "/usr/share/man/man8/rblkback-update.8.gz",
        ];
        self.holds("rblkback-tools", &tools, &tools)
    }

    /// `name` has the files `some`, and none that does not begin like one of `all`, its documentation left out.
    fn holds(&self, name: &str, some: &[&str], all: &[&str]) -> Result<()> {
        let file = self.files.get(name).with_context(|| format!("no {name}"))?;
        let listing = run(
            Path::new("/"),
            "dpkg-deb",
            &["--contents", &file.to_string_lossy()],
        )?;
        let held: Vec<&str> = listing
            .lines()
            .filter_map(|line| line.split_whitespace().nth(5)?.strip_prefix('.'))
            .filter(|path| !path.ends_with('/'))
            .collect();
        for path in some {
            check::that(held.contains(path), || format!("{name} has no {path}"))?;
        }
        let documentation = format!("/usr/share/doc/{name}/");
        let other = held.iter().find(|path| {
            !path.starts_with(&documentation) && !all.iter().any(|start| path.starts_with(start))
        });
        check::that(other.is_none(), || format!("{name} has {other:?}"))
    }
}

/// A copy of the build root, in memory, and nothing in it but its packages and ours. Its mounts end with the
/// value.
struct Tree {
    base: PathBuf,
    root: PathBuf,
}

impl Tree {
    fn new(base: &Path) -> Result<Self> {
        let tree = Self {
            base: base.to_owned(),
            root: base.join("root"),
        };
        fs::create_dir_all(base)?;
        let (top, root) = (base.to_string_lossy(), tree.root.to_string_lossy());
        run(
            base,
            "mount",
            &["-t", "tmpfs", "-o", "size=3G", "tmpfs", &top],
        )?;
        for dir in ["root", "upper", "work"] {
            fs::create_dir(base.join(dir))?;
        }
        let layers = format!("lowerdir=/,upperdir={top}/upper,workdir={top}/work");
        run(
            base,
            "mount",
            &["-t", "overlay", "-o", &layers, "overlay", &root],
        )?;
        for dir in ["proc", "sys", "dev"] {
            let to = format!("{root}/{dir}");
            run(base, "mount", &["--rbind", &format!("/{dir}"), &to])?;
        }
        run(
            base,
            "mount",
            &["-t", "tmpfs", "tmpfs", &format!("{root}/run")],
        )?;
        Ok(tree)
    }

    /// Has apt find the packages in `repository` as well, and none of Debian's.
    fn offer(&self, repository: &Path) -> Result<()> {
        let name = name_of(repository);
        let outside = self.root.join("run").join(&name);
        fs::create_dir(&outside)?;
        let (from, to) = (repository.to_string_lossy(), outside.to_string_lossy());
        run(&self.base, "mount", &["--bind", &from, &to])?;
        let list = self.root.join("run/rblkback.list");
        let before = fs::read_to_string(&list).unwrap_or_default();
        let line = format!("deb [trusted=yes] file:/run/{name} ./\n");
        fs::write(list, before + &line)?;
        self.apt(&["update"]).map(drop)
    }

    /// apt, which cannot ask anybody.
    fn apt(&self, words: &[&str]) -> Result<String> {
        let mut all = vec![
            "env",
            "DEBIAN_FRONTEND=noninteractive",
            "apt-get",
            "--yes",
            "--no-install-recommends",
            "-oDir::Etc::SourceList=/run/rblkback.list",
            "-oDir::Etc::SourceParts=/dev/null",
            "-oAPT::Sandbox::User=root",
        ];
        all.extend(words);
        self.run(&all)
    }

    /// Purges the packages. Nothing of what was installed may be left.
    fn purge(&self, release: &str, names: &[&str]) -> Result<()> {
        self.apt(&[&["purge"], names].concat())?;
        let upper = self.base.join("upper");
        let mut left = Vec::new();
        walk(&upper, &mut |path| {
            let path = path.strip_prefix(&upper).unwrap_or(path).to_string_lossy();
            if !KEPT.iter().any(|kept| path.starts_with(kept)) && !is_index(&path) {
                left.push(path.into_owned());
            }
        })?;
        check::equal("files that a purge has left", left, Vec::<String>::new())?;
        let (found, _) = self.ended(&["modinfo", "-k", release, "-n", "rblkback"])?;
        check::that(!found, || "depmod was not run after a purge".into())
    }

    fn modinfo(&self, release: &str, field: &str) -> Result<String> {
        let said = self.run(&["modinfo", "-k", release, "-F", field, "rblkback"])?;
        Ok(said.trim().to_owned())
    }

    /// Runs a program in the tree, which must end with status 0. Returns what it said.
    fn run(&self, words: &[&str]) -> Result<String> {
        match self.ended(words)? {
            (true, said) => Ok(said),
            (false, said) => bail!("`{}` failed:\n{}", words.join(" "), last_lines(&said, 60)),
        }
    }

    /// Whether a program in the tree ended with status 0, and what it said.
    fn ended(&self, words: &[&str]) -> Result<(bool, String)> {
        let root = self.root.to_string_lossy();
        let words = [&[root.as_ref()], words].concat();
        said(Command::new("chroot").args(words).current_dir(&self.base))
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        // What is left of a tree in memory ends with the namespace of this run.
        let _ = run(
            Path::new("/"),
            "umount",
            &["--recursive", &self.base.to_string_lossy()],
        );
    }
}

/// Each file below `dir`, and what stands for one that was removed.
fn walk(dir: &Path, each: &mut impl FnMut(&Path)) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            walk(&entry.path(), each)?;
        } else {
            each(&entry.path());
        }
    }
    Ok(())
}

/// What depmod has written anew, of the modules that are there.
fn is_index(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    path.starts_with("usr/lib/modules/") && name.starts_with("modules.")
}

/// A module's instructions.
fn code_of(module: &Path) -> Result<Vec<u8>> {
    let bytes = fs::read(module)?;
    let object = object::File::parse(&*bytes).with_context(|| module.display().to_string())?;
    let section = object.section_by_name(".text").context("no .text")?;
    Ok(section.data()?.to_vec())
}

fn name_of(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

/// The files of a directory whose names end in `extension`, by name.
fn files_of(dir: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let mut files = fs::read_dir(dir)?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<_>>>()?;
    files.retain(|path| path.extension().is_some_and(|its| its == extension));
    files.sort();
    Ok(files)
}

/// Runs a program in `dir`, which must end with status 0. Returns what it said.
fn run(dir: &Path, program: &str, words: &[&str]) -> Result<String> {
    match said(Command::new(program).args(words).current_dir(dir))? {
        (true, said) => Ok(said),
        (false, said) => bail!(
            "`{program} {}` failed:\n{}",
            words.join(" "),
            last_lines(&said, 60)
        ),
    }
}

fn said(command: &mut Command) -> Result<(bool, String)> {
    let output = command.stdin(Stdio::null()).output()?;
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    Ok((output.status.success(), text.into_owned()))
}
