// SPDX-License-Identifier: GPL-2.0

//! The Debian packages in a Debian as its package manager leaves it (tests/debian).

use anyhow::Result;

use super::ordinary::DEADLINE;
use super::ordinary::IMAGE;
use super::ordinary::guest;
use super::ordinary::is_limited;
use super::ordinary::is_well;
use crate::check;
use crate::host::Host;
use crate::lab::Backend;
use crate::results::Figures;

const APT: &str = "DEBIAN_FRONTEND=noninteractive apt-get -q -y";

/// `apt install` is enough for the next guest to be served by rblkback under its limit, and without a reboot. When
/// the package with the module is gone the next boot's guests are on xen-blkback, and the journal says so. A purge
/// under a guest that needs the hotplug script is refused; one after it leaves nothing of ours.
pub fn installed(host: &Host<'_>, _figures: &mut Figures) -> Result<()> {
    offer(host, "deb")?;
    host.ok("lab_files >/root/before")?;
    apt(host, "install rblkback rblkback-modules-$(uname -r)")?;
    host.ok(&format!("truncate -s 64M {IMAGE}"))?;
    guest(host).install()?;
    host.ok("systemctl restart xendomains")?;
    let first = guest(host).join(false)?;
    is_limited(&first)?;
    first.lost();
    if host.lab.at_length {
        host.reboot()?;
        is_well(host)?;
        journal_says(host, "every kernel has rblkback")?;
        let again = guest(host).join(true)?;
        is_limited(&again)?;
        again.lost();
    }

    // The disk stays with the driver that is loaded.
    apt(host, "remove rblkback-modules-$(uname -r)")?;
    host.reboot()?;
    is_well(host)?;
    let unlimited = guest(host).join(true)?;
    unlimited.wait_disk("xvda")?;
    let driver = unlimited.vbd("xvda").driver()?;
    check::equal("the driver", driver.as_str(), Backend::Blkback.driver())?;
    journal_says(
        host,
        "has no rblkback: under it xen-blkback serves all disks, without limits",
    )?;

    refused_with_a_disk(host)?;
    // The guest works on, and ends as any other.
    unlimited.ok("dd if=/dev/xvda of=/dev/null bs=64k count=4 iflag=direct status=none")?;
    unlimited.destroy()?;
    host.ok("lab_until 30 '[ -z \"$(losetup --list --noheadings)\" ]'")?;
    apt(
        host,
        "purge rblkback rblkback-tools rblkback-modules-$(uname -r)",
    )?;
    host.ok("lab_files >/root/after")?;
    let left = host.run("diff /root/before /root/after")?.text;
    check::equal("what a purge leaves behind", left.as_str(), "")?;
    host.power_off("systemctl poweroff", DEADLINE).map(drop)
}

/// The hotplug script of a disk that is attached stays.
fn refused_with_a_disk(host: &Host<'_>) -> Result<()> {
    let purge = host.start_command(&format!("{APT} purge rblkback-tools"))?;
    let purge = purge.finish_within(DEADLINE)?;
    check::that(purge.status != 0, || {
        "a purge with a disk attached was not refused".into()
    })?;
    check::contains(
        "the refused purge",
        &purge.text,
        &["disks of running guests have script=block-tokens", "vbd-"],
    )
}

/// Has apt use the repository in `build/` of that name, and nothing else: there is no network.
pub fn offer(host: &Host<'_>, name: &str) -> Result<()> {
    let list = "/etc/apt/sources.list.d/rblkback.list";
    host.ok(&format!(
        "if [ ! -e /lab/{name}/Packages ]; then echo 'build/{name} has no packages: make them first'; false; fi && \
         echo 'deb [trusted=yes] file:/lab/{name} ./' >{list} && \
         apt-get -q update -o Dir::Etc::sourcelist={list} -o Dir::Etc::sourceparts=-"
    ))
    .map(drop)
}

pub fn apt(host: &Host<'_>, what: &str) -> Result<()> {
    host.ok_within(&format!("{APT} {what}"), DEADLINE.as_secs())
        .map(drop)
}

/// Of the check that runs at each boot.
pub fn journal_says(host: &Host<'_>, words: &str) -> Result<()> {
    let said = host.ok("journalctl -b -u rblkback-check -o cat")?;
    check::contains("the journal of rblkback-check", &said, &[words])
}
