// SPDX-License-Identifier: GPL-2.0

//! What administrators give to the hotplug script `block-tokens` besides limits.

use anyhow::Context;
use anyhow::Result;

use crate::check;
use crate::disk::Disk;
use crate::guest::Guest;
use crate::host::Host;
use crate::results::Figures;

/// Whoever asks for this script wants a limit: one that is missing is a mistake.
pub fn no_limit(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    let disk = Disk::memory(host, "nb0", 16)?;
    let guest = host.guest("tokens").start()?;
    let said = host.refused(&attach(&guest, "xvdb", &disk.path))?;
    check::contains("what xl says", &said, &["has no limit", disk.path.as_str()])?;
    figures.insert("refused".into(), said.into());
    guest.destroy()?;
    disk.remove(host)
}

/// A file that one guest writes to is not given to another one that wants to write.
pub fn shared_file(host: &Host<'_>, _figures: &mut Figures) -> Result<()> {
    let file = Disk::file(host, "shared", 16)?;
    let [one, other] = [host.guest("one").start()?, host.guest("other").start()?];
    let target = format!("refill=100:{}", file.path);
    host.ok(&attach(&one, "xvdb", &target))?;
    one.wait_disk("xvdb")?;
    let said = host.refused(&attach(&other, "xvdb", &target))?;
    check::contains("what xl says", &said, &[file.path.as_str()])?;
    // Xen's own script says the same of a file that is used with a limit.
    host.refused(&format!(
        "xl block-attach {} '{}'",
        other.name,
        file.xl("xvdc")
    ))?;
    one.destroy()?;
    // Now that nobody has it any more.
    host.ok(&attach(&other, "xvdd", &target))?;
    other.wait_disk("xvdd")?;
    other.destroy()?;
    file.remove(host)
}

/// Names as people give them to files, and links to devices as udev makes them.
pub fn odd_names(host: &Host<'_>, _figures: &mut Figures) -> Result<()> {
    let disk = Disk::memory(host, "nb0", 16)?;
    let guest = host.guest("odd").start()?;
    host.ok(&format!(
        "mkdir -p /run/odd && cd /run/odd && truncate -s 8M 'with blank' 'with\\x20code' && \
         ln -s {} link && ln -s 'with blank' 'link to a file'",
        disk.path
    ))?;
    let names = ["with blank", r"with\x20code", "link", "link to a file"];
    let mut failed = Vec::new();
    for (name, vdev) in names.into_iter().zip(["xvdb", "xvdc", "xvdd", "xvde"]) {
        let target = format!("refill=100:/run/odd/{name}");
        let attached = host
            .ok(&attach(&guest, vdev, &target))
            .and_then(|_| guest.wait_disk(vdev))
            .and_then(|()| guest.vbd(vdev).wait_file("qos/tokens_refill", "100"))
            .and_then(|()| guest.detach(vdev));
        if let Err(error) = attached.context(name) {
            failed.push(format!("{error:#}"));
        }
    }
    check::equal("names that were not found", failed, Vec::<String>::new())?;
    guest.destroy()?;
    host.ok("rm -r /run/odd")?;
    disk.remove(host)
}

fn attach(guest: &Guest<'_, '_>, vdev: &str, target: &str) -> String {
    format!(
        "xl block-attach {} 'vdev={vdev},access=rw,script=block-tokens,target={target}'",
        guest.name
    )
}
