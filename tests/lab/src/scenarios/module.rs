// SPDX-License-Identifier: GPL-2.0

use anyhow::Context;
use anyhow::Result;

use crate::check;
use crate::disk::Disk;
use crate::fio::Job;
use crate::host::Host;
use crate::results::Figures;

const REBINDS: usize = 5;
/// What one verify writes and reads back; it is repeated as long as the disk comes and goes.
const MEGABYTES: u32 = 16;
const RELOADS: usize = 10;

/// The administrator unbinds the backend from a busy disk and binds it again, five times, and the
/// guest's verify does not notice.
pub fn rebind(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    let mut disk = Disk::memory(host, "nb0", 64)?;
    disk.attach_by_short_script(host)?;
    let guest = host.guest("rebind").disk(&disk, "xvda").start()?;
    guest.wait_disk("xvda")?;
    let vbd = guest.vbd("xvda");
    let driver = format!("/sys/bus/xen-backend/drivers/{}", host.lab.backend.driver());
    let verify = Job::verified_writes("xvda", "4k-44k", MEGABYTES)
        .depth(16)
        .repeat(&guest)?;
    for round in 0..REBINDS {
        // In the middle of the I/O each time: some of it has passed since the last bind.
        vbd.wait_file("statistics/wr_req", "[1-9][0-9]+")?;
        host.ok(&format!("echo {} >{driver}/unbind", vbd.device()))
            .with_context(|| format!("unbind {round}"))?;
        host.wait_unreferenced().context("while unbound")?;
        host.ok(&format!("echo {} >{driver}/bind", vbd.device()))
            .with_context(|| format!("bind {round}"))?;
        vbd.wait_state("4")?;
    }
    let (runs, report) = verify.stop()?;
    let whole = u64::from(MEGABYTES) << 20;
    check::equal("bytes of the last verify", report.read.io_bytes, whole)?;
    check::equal("the error node", vbd.error()?, None)?;
    figures.insert("verifies".into(), runs.into());
    figures.insert("rebinds".into(), REBINDS.into());
    guest.destroy()?;
    disk.remove(host)
}

/// `rmmod` is refused while a disk is attached; otherwise the module comes and goes at will.
pub fn unload(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    let backend = host.lab.backend;
    let (load, unload) = (
        backend.load_command(),
        format!("rmmod {}", backend.module()),
    );
    let disk = Disk::memory(host, "nb0", 64)?;
    let guest = host.guest("unload").disk(&disk, "xvda").start()?;
    guest.wait_disk("xvda")?;
    check::contains(
        "rmmod with a disk attached",
        &host.refused(&unload)?,
        &["in use"],
    )?;
    guest.ok("dd if=/dev/xvda of=/dev/null bs=64k count=4 iflag=direct status=none")?;
    guest.destroy()?;
    for round in 0..RELOADS {
        host.ok(&unload)
            .with_context(|| format!("unload {round}"))?;
        check::that(!host.loaded(backend)?, || {
            "the module is still listed after rmmod".into()
        })?;
        host.ok(load).with_context(|| format!("load {round}"))?;
    }
    // What was loaded last still serves a disk.
    let guest = host.guest("reloaded").disk(&disk, "xvda").start()?;
    guest.wait_disk("xvda")?;
    Job::random_reads("xvda", 1).depth(8).run(&guest)?;
    guest.destroy()?;
    figures.insert("reloads".into(), RELOADS.into());
    disk.remove(host)
}
