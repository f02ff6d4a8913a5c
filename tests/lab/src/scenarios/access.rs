// SPDX-License-Identifier: GPL-2.0

use anyhow::Result;

use crate::check;
use crate::disk::Disk;
use crate::host::Host;
use crate::results::Figures;

const MEGABYTES: u32 = 16;
/// Bits of the key `info`.
const CDROM: u32 = 1;
const READ_ONLY: u32 = 4;

/// A disk with mode r can be read and not written, a CD-ROM says what it is, and the bytes of both
/// are the same afterwards.
pub fn read_only(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    let plain = Disk::memory(host, "nba", MEGABYTES)?.access("ro");
    let cdrom = Disk::file(host, "cd", MEGABYTES)?.access("ro,devtype=cdrom");
    let guest = host.guest("ro").start()?;
    for (disk, info) in [(&plain, READ_ONLY), (&cdrom, READ_ONLY | CDROM)] {
        host.ok(&format!(
            "dd if=/dev/urandom of={} bs=1M count={MEGABYTES} conv=notrunc,fsync status=none",
            disk.path
        ))?;
        let sum = host.ok(&format!("sha256sum <{}", disk.path))?;
        let vbd = guest.attach(disk, "xvdb")?;
        check::equal("info", vbd.key("info")?, Some(info.to_string()))?;
        check::equal("mode in sysfs", vbd.text("mode")?.as_str(), "r")?;
        check::equal(
            "what the guest reads",
            guest.ok("dd if=/dev/xvdb bs=64K iflag=direct status=none | sha256sum")?,
            sum.clone(),
        )?;
        for write in [
            "dd if=/dev/zero of=/dev/xvdb bs=4k count=1 oflag=direct",
            "dd if=/dev/zero of=/dev/xvdb bs=4k count=1 conv=fsync",
            "mkfs.ext4 -q -F /dev/xvdb",
        ] {
            guest.refused(write)?;
        }
        guest.detach("xvdb")?;
        check::equal(
            "what dom0 reads afterwards",
            host.ok(&format!("sha256sum <{}", disk.path))?,
            sum,
        )?;
        figures.insert(format!("info of {}", disk.path), info.into());
    }
    guest.destroy()?;
    plain.remove(host)?;
    cdrom.remove(host)
}
