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

/// A device that cannot be opened as the guest is to have it is refused with a sentence, where xl by
/// itself says nothing.
pub fn cannot_open(host: &Host<'_>, _figures: &mut Figures) -> Result<()> {
    let disk = Disk::memory(host, "nb0", 16)?;
    let guest = host.guest("opens").start()?;
    // A number that no driver has.
    host.ok("mknod /dev/nothing b 251 7")?;
    let said = host.refused(&attach(&guest, "xvdb", "refill=100:/dev/nothing"))?;
    check::contains("what xl says", &said, &["/dev/nothing", "cannot be opened"])?;
    host.ok(&format!(
        "rm /dev/nothing && blockdev --setro {}",
        disk.path
    ))?;
    let target = format!("refill=100:{}", disk.path);
    let said = host.refused(&attach(&guest, "xvdc", &target))?;
    check::contains("what xl says", &said, &[disk.path.as_str(), "read-only"])?;
    host.ok(&attach_as(&guest, "xvdd", "ro", &target))?;
    guest.wait_disk("xvdd")?;
    guest.destroy()?;
    disk.remove(host)
}

/// A file that one guest writes to is not given to another one, and the other way round. Xen's own
/// script does not see that (4.20.4 with util-linux 2.41.5), so it is not asked.
pub fn shared_file(host: &Host<'_>, _figures: &mut Figures) -> Result<()> {
    let file = Disk::file(host, "shared", 16)?;
    let [one, other] = [host.guest("one").start()?, host.guest("other").start()?];
    let target = format!("refill=100:{}", file.path);
    host.ok(&attach(&one, "xvdb", &target))?;
    one.wait_disk("xvdb")?;
    // xl leaves what failed in xenstore until it is detached: each has a device of its own.
    for (access, vdev) in [("rw", "xvdb"), ("ro", "xvdc")] {
        let said = host.refused(&attach_as(&other, vdev, access, &target))?;
        check::contains("what xl says", &said, &[file.path.as_str(), "may write"])?;
    }
    one.destroy()?;
    // Now that nobody has it any more, two may read, and none may write.
    host.ok(&attach_as(&other, "xvdd", "ro", &target))?;
    other.wait_disk("xvdd")?;
    let third = host.guest("third").start()?;
    host.ok(&attach_as(&third, "xvdb", "ro", &target))?;
    third.wait_disk("xvdb")?;
    host.refused(&attach(&third, "xvdc", &target))?;
    third.destroy()?;
    other.destroy()?;
    file.remove(host)
}

/// Names as people give them to files, and links to devices as udev makes them.
pub fn odd_names(host: &Host<'_>, _figures: &mut Figures) -> Result<()> {
    let disk = Disk::memory(host, "nb0", 16)?;
    let guest = host.guest("odd").start()?;
    host.ok(&format!(
        "mkdir -p /run/odd && cd /run/odd && truncate -s 8M 'with blank' 'with\\x20code' && \
         ln -s {0} link && ln -s {0} 'link to a device' && ln -s 'with blank' 'link to a file'",
        disk.path
    ))?;
    let names = [
        "with blank",
        r"with\x20code",
        "link",
        "link to a file",
        "link to a device",
    ];
    let mut failed = Vec::new();
    for (name, vdev) in names
        .into_iter()
        .zip(["xvdb", "xvdc", "xvdd", "xvde", "xvdf"])
    {
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
    let left = host.ok("find /run/xen-hotplug -name 'block-tokens-*'")?;
    check::equal("links that are left", left.as_str(), "")?;
    guest.destroy()?;
    host.ok("rm -r /run/odd")?;
    disk.remove(host)
}

/// The limit goes in front of another block script, which attaches and detaches the disk: Xen's
/// own `block-dummy`, whose targets are not paths.
pub fn next_script(host: &Host<'_>, _figures: &mut Figures) -> Result<()> {
    let file = Disk::file(host, "dummy", 16)?;
    let guest = host.guest("dummy").start()?;
    let target = |next| format!("refill=100/next={next}:dummy:{}", file.path);
    let said = host.refused(&attach(&guest, "xvdb", &target("block-none")))?;
    check::contains("what xl says", &said, &["no script", "block-none"])?;
    host.ok(&attach(&guest, "xvdc", &target("block-dummy")))?;
    guest.wait_disk("xvdc")?;
    guest.vbd("xvdc").wait_file("qos/tokens_refill", "100")?;
    guest.detach("xvdc")?;
    let left = host.ok(&format!("losetup --associated {}", file.path))?;
    check::equal("loop devices that the script left", left.as_str(), "")?;
    guest.destroy()?;
    file.remove(host)
}

fn attach(guest: &Guest<'_, '_>, vdev: &str, target: &str) -> String {
    attach_as(guest, vdev, "rw", target)
}

fn attach_as(guest: &Guest<'_, '_>, vdev: &str, access: &str, target: &str) -> String {
    format!(
        "xl block-attach {} 'vdev={vdev},access={access},script=block-tokens,target={target}'",
        guest.name
    )
}
