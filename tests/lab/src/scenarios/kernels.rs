// SPDX-License-Identifier: GPL-2.0

//! Three kernels on one dom0: two for which DKMS built the module, and one that has no Rust
//! (tests/debian/install-kernels).

use anyhow::Context;
use anyhow::Result;

use super::installed::journal_says;
use super::ordinary::DEADLINE;
use super::ordinary::IMAGE;
use super::ordinary::guest;
use super::ordinary::is_limited;
use super::ordinary::is_well;
use crate::check;
use crate::host::Host;
use crate::lab::Backend;
use crate::results::Figures;

/// What apt, DKMS and the packages said when a kernel was installed.
const LOGS: &str = "/var/log/rblkback-";

/// The guest that starts with the host is on rblkback under its limit with the kernel that was there first and
/// with a second one. The kernel of Debian's stable release was installed without an error; under it the guest
/// is on xen-blkback, and the journal says so; so it is when a kernel that is locked down refuses the module.
pub fn kernels(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    let first = host.ok("uname -r")?;
    let second = host.ok(&format!("cat {LOGS}second"))?;
    let stable = host.ok("linux-version list | linux-version sort | head -n 1")?;
    figures.insert(
        "kernels".into(),
        [&*first, &second, &stable].join(" ").into(),
    );
    is_well(host)?;
    host.ok(&format!("truncate -s 64M {IMAGE}"))?;
    guest(host).install()?;
    host.ok("systemctl restart xendomains")?;
    by_dkms(host, false).context("the first kernel")?;
    let said = host.ok(&format!("cat {LOGS}stable.log"))?;
    let without = format!("kernel {stable} has no rblkback: under it xen-blkback serves all disks");
    check::contains("what apt said of the stable kernel", &said, &[&without])?;

    boot(host, &second)?;
    by_dkms(host, true).context("the second kernel")?;

    boot(host, &stable)?;
    by_xen_blkback(
        host,
        &format!("kernel {stable}, which runs, has no rblkback"),
    )
    .context("the stable kernel")?;

    // As Secure Boot does; nobody has told this host of the key that DKMS signed the module with.
    host.ok("sed -i 's/mitigations=off/& lockdown=integrity/' /boot/grub/grub.cfg")?;
    boot(host, &first)?;
    by_xen_blkback(host, "has rblkback, which is not loaded").context("locked down")?;
    let log = host.ok("journalctl -b -k -o cat")?;
    check::contains(
        "the kernel's log",
        &log,
        &["Lockdown: ", "unsigned module loading"],
    )?;
    host.power_off("systemctl poweroff", DEADLINE).map(drop)
}

/// The guest is there all the same, and the journal says under what.
fn by_xen_blkback(host: &Host<'_>, words: &str) -> Result<()> {
    let guest = guest(host).join(true)?;
    guest.wait_disk("xvda")?;
    let driver = guest.vbd("xvda").driver()?;
    check::equal("the driver", driver.as_str(), Backend::Blkback.driver())?;
    guest.ok("dd if=/dev/xvda of=/dev/null bs=64k count=4 iflag=direct status=none")?;
    journal_says(host, words)?;
    guest.lost();
    Ok(())
}

/// The guest has its limit, by a module that DKMS built for the kernel that runs. Xen's service has saved it when
/// the host went down, and `restored` it.
fn by_dkms(host: &Host<'_>, restored: bool) -> Result<()> {
    let file = host.ok("modinfo -n rblkback")?;
    check::contains("the module's file", &file, &["/updates/dkms/"])?;
    let guest = guest(host).join(restored)?;
    is_limited(&guest)?;
    guest.lost();
    Ok(())
}

/// Once, as an administrator chooses it (install.rst): by the titles of GRUB's menu.
fn boot(host: &Host<'_>, release: &str) -> Result<()> {
    host.ok(&format!(
        r#"titles=$(sed -nE "s/^[[:space:]]*(submenu|menuentry) '([^']*)'.*/\2/p" /boot/grub/grub.cfg)
        first() {{ grep -m1 -F -- "$1" <<<"$titles"; }}
        menu=$(first '(with Xen hypervisor)') && xen=$(first 'Xen hypervisor, version') &&
        entry=$(grep -F 'with Xen' <<<"$titles" | grep -m1 -F 'and Linux {release}') &&
        grub-reboot "$menu>$xen>$entry""#
    ))?;
    host.reboot()?;
    let runs = host.ok("uname -r")?;
    check::equal("the kernel", runs.as_str(), release)?;
    is_well(host)
}
