// SPDX-License-Identifier: GPL-2.0

use anyhow::Result;

use crate::check;
use crate::disk::Disk;
use crate::host::Host;
use crate::results::Figures;

/// A limit that makes no sense is reported. The disk is detached and another one attached in its
/// place, with which nothing is wrong; and when that goes, no report is left at all.
pub fn stale(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    let disk = Disk::memory(host, "nb0", 16)?;
    let guest = host.guest("stale").start()?;
    let vbd = guest.attach(&disk, "xvdb")?;
    vbd.write(&[("tokens-refill", "junk")])?;
    let error = host.store_wait(&vbd.error_path(), "junk")?;
    figures.insert("reported".into(), error.into());
    guest.detach("xvdb")?;
    guest.attach(&disk, "xvdb")?;
    check::equal("the error node of the new disk", vbd.error()?, None)?;
    vbd.write(&[("tokens-refill", "junk")])?;
    host.store_wait(&vbd.error_path(), "junk")?;
    guest.destroy()?;
    host.store_wait(&vbd.path("state"), "absent")?;
    check::equal("the error node when the guest is gone", vbd.error()?, None)?;
    disk.remove(host)
}
