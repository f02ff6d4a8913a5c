// SPDX-License-Identifier: GPL-2.0

use anyhow::Result;

use crate::check;
use crate::disk::Disk;
use crate::guest::Guest;
use crate::host::Host;
use crate::results::Figures;

const MEGABYTES: u32 = 96;

/// A guest makes a file system, works on it with stress-ng's own verification, discards what it
/// deleted, and e2fsck finds nothing wrong; the file in dom0 shrinks by what was discarded.
pub fn filesystem(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    let disk = Disk::file(host, "fs", MEGABYTES)?;
    let guest = host
        .guest("fs")
        .disk(&disk, "xvda")
        .archive("stress-ng")
        .memory(320)
        .start()?;
    guest.wait_disk("xvda")?;
    let vbd = guest.vbd("xvda");
    for feature in ["feature-flush-cache", "feature-discard"] {
        check::equal(feature, vbd.key(feature)?.as_deref(), Some("1"))?;
    }
    // mkfs discards the whole disk before it writes. What it may leave to the kernel to write later,
    // journal and inode tables, it writes now: the file in dom0 is to grow by what is in files only.
    guest.ok(
        "modprobe ext4 && mkfs.ext4 -q -F -E lazy_itable_init=0,lazy_journal_init=0 /dev/xvda && \
         mount -t ext4 -o discard /dev/xvda /mnt",
    )?;
    check::within(
        "discards by mkfs",
        vbd.number("statistics/ds_req")?,
        1..=u64::MAX,
    )?;
    stress(&guest)?;
    trim(host, &guest, &disk, figures)?;
    guest.ok("umount /mnt")?;
    let fsck = guest.ok("e2fsck -fn /dev/xvda")?;
    figures.insert("e2fsck".into(), crate::logs::last_lines(&fsck, 1).into());
    for name in ["wr_req", "f_req", "ds_req"] {
        let count: u64 = vbd.number(&format!("statistics/{name}"))?;
        check::within(name, count, 1..=u64::MAX)?;
        figures.insert(name.into(), count.into());
    }
    // dom0 agrees with the guest about what is on the disk.
    guest.destroy()?;
    host.ok(&format!("e2fsck -fn {}", disk.path))?;
    disk.remove(host)
}

/// Direct, vectored, synchronous and mixed I/O on files, each read back and compared.
fn stress(guest: &Guest<'_, '_>) -> Result<()> {
    let report = guest.ok_within(
        "stress-ng --temp-path /mnt --verify --metrics \
         --hdd 1 --hdd-ops 400 --hdd-bytes 12m --hdd-opts wr-rnd,rd-rnd,direct \
         --iomix 1 --iomix-ops 400 --iomix-bytes 8m",
        420,
    )?;
    check::contains("stress-ng", &report, &["passed: 2", "failed: 0"])
}

/// A file that is deleted and trimmed gives its space back in dom0.
fn trim(host: &Host<'_>, guest: &Guest<'_, '_>, disk: &Disk, figures: &mut Figures) -> Result<()> {
    // Without the mount option, so that only fstrim can do it.
    guest.ok("mount -o remount,nodiscard /mnt && \
         dd if=/dev/urandom of=/mnt/big bs=1M count=24 conv=fsync status=none")?;
    let used = |host: &Host<'_>| -> Result<u64> {
        Ok(host
            .ok(&format!("du --block-size=1 {} | cut -f1", disk.path))?
            .parse()?)
    };
    let full = used(host)?;
    guest.ok("rm /mnt/big && sync && fstrim /mnt")?;
    let trimmed = used(host)?;
    figures.insert("bytes in dom0 before fstrim".into(), full.into());
    figures.insert("bytes in dom0 after fstrim".into(), trimmed.into());
    check::within(
        "bytes that fstrim freed in dom0",
        full.saturating_sub(trimmed),
        24 << 20..=u64::from(MEGABYTES) << 20,
    )
}
