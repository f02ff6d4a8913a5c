// SPDX-License-Identifier: GPL-2.0

use anyhow::Result;

use super::super::cycles::mapped_grants;
use crate::check;
use crate::disk::Disk;
use crate::host::Host;
use crate::results::Figures;

const MEGABYTES: u32 = 8;

/// dom0 is its own guest, as when xl has pygrub read a guest's boot files: it writes to the disk and
/// the device has that, and nothing is left when it is detached.
pub fn local_disk(host: &Host<'_>, _figures: &mut Figures) -> Result<()> {
    let disk = Disk::memory(host, "nb0", MEGABYTES)?;
    let before = mapped_grants(host)?;
    host.ok("modprobe xen-blkfront")?;
    host.ok(&format!("xl block-attach 0 '{}'", disk.xl("xvdz")))?;
    host.ok("lab_until 60 '[ -b /dev/xvdz ]'")?;
    host.ok(
        "dd if=/dev/urandom of=/run/local bs=1M count=4 status=none && \
         dd if=/run/local of=/dev/xvdz bs=1M oflag=direct status=none",
    )?;
    let sum = |path: &str| {
        host.ok(&format!(
            "dd if={path} bs=1M count=4 iflag=direct status=none | sha256sum"
        ))
    };
    check::equal("the device", sum(&disk.path)?, sum("/dev/xvdz")?)?;
    check::equal(
        "what was written",
        sum("/dev/xvdz")?,
        host.ok("sha256sum </run/local")?,
    )?;
    host.ok("xl block-detach 0 xvdz && rm /run/local")?;
    host.ok("lab_gone /dev/xvdz 30")?;
    host.ok(&format!("lab_grants_are {before} 30"))?;
    host.ok("rmmod xen_blkfront")?;
    disk.remove(host)
}
