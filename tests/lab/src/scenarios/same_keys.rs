// SPDX-License-Identifier: GPL-2.0

use std::collections::BTreeMap;

use anyhow::Context;
use anyhow::Result;

use crate::check;
use crate::disk::Disk;
use crate::host::Host;
use crate::lab::Backend;
use crate::results::Figures;

const MEGABYTES: u32 = 16;

/// What an administrator finds about a disk: a name for each key and file, and its value.
type View = BTreeMap<String, String>;

/// Where rblkback differs from xen-blkback, and why. Anything else that differs is a mistake.
const DIFFERENCES: &[(&str, &str)] = &[
    (
        "sysfs qos",
        "the limit and its state, which xen-blkback does not have",
    ),
    (
        "backend feature-tokens",
        "says that there may be a limit, which xen-blkback does not have",
    ),
    ("backend qos-", "says which limit there is"),
    (
        "parameter default_tokens_",
        "the limit of a disk without keys of its own",
    ),
    (
        "parameter max_guest_frames",
        "xen-blkback has no bound on what a guest may have mapped",
    ),
    (
        "parameter domains",
        "xen-blkback serves every disk that no driver before it took",
    ),
];

/// The same session of a guest on xen-blkback and on rblkback leaves the same keys with the same
/// values in both directories in xenstore, and the same files in sysfs.
pub fn same_keys(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    let swap = |from: Backend, to: Backend| {
        host.ok(&format!("rmmod {} && {}", from.module(), to.load_command()))
    };
    let ours = session(host, Backend::Rblkback)?;
    swap(Backend::Rblkback, Backend::Blkback)?;
    let theirs = session(host, Backend::Blkback)?;
    swap(Backend::Blkback, Backend::Rblkback)?;

    figures.insert("keys and files compared".into(), theirs.len().into());
    let names: Vec<&String> = ours.keys().chain(theirs.keys()).collect();
    let differ = |name: &&&String| ours.get(**name) != theirs.get(**name);
    let mut seen: Vec<&String> = names.iter().filter(differ).copied().collect();
    seen.sort();
    seen.dedup();
    let known = |name: &str| {
        DIFFERENCES
            .iter()
            .find(|(prefix, _)| name.starts_with(prefix))
    };
    let surprises: Vec<String> = seen
        .iter()
        .filter(|name| known(name).is_none())
        .map(|name| {
            format!(
                "{name}: {:?} on rblkback, {:?} on xen-blkback",
                ours.get(*name),
                theirs.get(*name)
            )
        })
        .collect();
    check::that(surprises.is_empty(), || surprises.join("\n"))?;
    for (prefix, reason) in DIFFERENCES {
        check::that(seen.iter().any(|name| name.starts_with(prefix)), || {
            format!("{prefix} is the same on both, though listed as: {reason}")
        })?;
    }
    Ok(())
}

/// A guest reads, writes, flushes and discards; then both directories and sysfs are looked at.
fn session(host: &Host<'_>, backend: Backend) -> Result<View> {
    let disk = Disk::file(host, "keys", MEGABYTES)?;
    let guest = host.guest("keys").disk(&disk, "xvda").start()?;
    guest.wait_disk("xvda")?;
    guest.ok(
        "dd if=/dev/xvda of=/dev/null bs=4k count=16 iflag=direct status=none && \
         dd if=/dev/zero of=/dev/xvda bs=64k count=16 oflag=direct conv=fsync status=none && \
         { blkdiscard -o 4M -l 4M /dev/xvda || true; }",
    )?;
    let vbd = guest.vbd("xvda");
    let front = format!("/local/domain/{}/device/vbd/{}", vbd.domid, vbd.vdev);
    let back = vbd.path("");
    let back = back.trim_end_matches('/');
    let mut view = parameters(host, backend)?;
    for (side, directory) in [("backend", back), ("frontend", &front)] {
        for line in host.ok(&format!("xenstore-ls -f {directory}"))?.lines() {
            let (path, value) = line.split_once(" = ").with_context(|| line.to_string())?;
            let key = path.trim_start_matches(directory).trim_start_matches('/');
            view.insert(
                format!("{side} {key}"),
                neutral(key, value, vbd.domid, &guest.name),
            );
        }
    }
    let files = host.ok(&format!(
        "find {}/ -type f ! -path '*/power/*' -printf '%P %m\\n'",
        vbd.sysfs()
    ))?;
    for line in files.lines() {
        let (file, mode) = line.rsplit_once(' ').with_context(|| line.to_string())?;
        let value = match file {
            "mode" | "physical_device" | "modalias" | "devtype" => vbd.text(file)?,
            // Requests are merged and split as the guest likes; flushes and discards are not.
            _ if file.starts_with("statistics/") => {
                let some = vbd.number::<u64>(file)? > 0;
                (if some { "some" } else { "none" }).to_string()
            }
            _ => String::new(),
        };
        view.insert(format!("sysfs {file}"), format!("mode {mode} {value}"));
    }
    guest.destroy()?;
    disk.remove(host)?;
    Ok(view)
}

/// The module's parameters: modes, and values as nobody has changed them.
fn parameters(host: &Host<'_>, backend: Backend) -> Result<View> {
    let lines = host.ok(&format!(
        "cd /sys/module/{}/parameters && for name in *; do echo \"$name $(stat -c %a $name) $(cat $name)\"; done",
        backend.module()
    ))?;
    let entry = |line: &str| {
        let (name, value) = line.split_once(' ')?;
        Some((format!("parameter {name}"), value.to_string()))
    };
    lines
        .lines()
        .map(|line| entry(line).with_context(|| line.to_string()))
        .collect()
}

/// A value without what no two sessions have in common.
fn neutral(key: &str, value: &str, domid: u32, name: &str) -> String {
    match key.rsplit('/').next().unwrap_or(key) {
        "event-channel" => "(a number)".into(),
        last if last.starts_with("ring-ref") => "(a number)".into(),
        "frontend-id" if value == format!("\"{domid}\"") => "(the guest's)".into(),
        _ => value
            .replace(name, "NAME")
            .replace(&format!("/{domid}/"), "/DOMID/"),
    }
}
