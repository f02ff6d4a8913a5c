// SPDX-License-Identifier: GPL-2.0

use anyhow::Result;

use super::super::cycles::mapped_grants;
use crate::admission::worst_excess;
use crate::check;
use crate::disk::Disk;
use crate::host::Host;
use crate::results::Figures;
use crate::trace::Source;
use crate::trace::Trace;
use crate::trace::times;
use crate::vbd::Vbd;

const MEGABYTES: u32 = 8;
/// Requests a second, and at once.
const REFILL: u64 = 100;
const MAX: u64 = 1;
const READS: usize = 200;

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

/// The limit that block-tokens writes holds for dom0 as for any guest.
pub fn limited(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    let disk = Disk::memory(host, "nb0", MEGABYTES)?;
    host.ok("modprobe xen-blkfront")?;
    host.ok(&format!(
        "xl block-attach 0 'vdev=xvdz,access=rw,script=block-tokens,target=refill={REFILL}/max={MAX}:{}'",
        disk.path
    ))?;
    host.ok("lab_until 60 '[ -b /dev/xvdz ]'")?;
    let vbd = Vbd::new(host, 0, "xvdz");
    vbd.wait_state("4")?;
    let trace = Trace::start(host, &[Source::bios(disk.dev_t(host)?)])?;
    host.ok(&format!(
        "dd if=/dev/xvdz of=/dev/null bs=4k count={READS} iflag=direct status=none"
    ))?;
    let sent = times(&trace.stop()?, 0);
    check::equal("reads that the device got", sent.len(), READS)?;
    let most = worst_excess(&sent, REFILL).tokens;
    figures.insert("reads beyond refill * T in any window".into(), most.into());
    // Ten milliseconds of lateness, and one, as throttle.rst has it.
    let bound = MAX as f64 + REFILL as f64 / 100.0 + 1.0;
    check::within("reads beyond refill * T in any window", most, 0.0..=bound)?;
    host.ok("xl block-detach 0 xvdz && lab_gone /dev/xvdz 30")?;
    host.ok("rmmod xen_blkfront")?;
    disk.remove(host)
}
