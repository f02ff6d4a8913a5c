// SPDX-License-Identifier: GPL-2.0

use anyhow::Context;
use anyhow::Result;

use crate::check;
use crate::disk::Disk;
use crate::fio::Job;
use crate::host::Host;
use crate::results::Figures;

const REBINDS: usize = 5;
const RELOADS: usize = 10;

/// The administrator unbinds the backend from a busy disk and binds it again, five times, and the
/// guest's verify does not notice.
pub fn rebind(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    let disk = Disk::memory(host, "nb0", 64)?;
    let guest = host.guest("rebind").disk(&disk, "xvda").start()?;
    guest.wait_disk("xvda")?;
    let vbd = guest.vbd("xvda");
    let driver = format!("/sys/bus/xen-backend/drivers/{}", host.lab.backend.driver());
    let verify = Job::verified_writes("xvda", "4k-44k", 64)
        .depth(16)
        .start(&guest)?;
    for round in 0..REBINDS {
        // In the middle of the I/O each time: some of it has passed since the last bind.
        vbd.wait_file("statistics/wr_req", "[1-9][0-9]+")?;
        host.ok(&format!("echo {} >{driver}/unbind", vbd.device()))
            .with_context(|| format!("unbind {round}"))?;
        check::equal("module references while unbound", host.references()?, 0)?;
        host.ok(&format!("echo {} >{driver}/bind", vbd.device()))
            .with_context(|| format!("bind {round}"))?;
        vbd.wait_state("4")?;
    }
    let report = verify.finish()?;
    check::within("bytes verified", report.read.io_bytes, 64 << 20..=64 << 20)?;
    check::equal("the error node", vbd.error()?, None)?;
    figures.insert("bytes verified".into(), report.read.io_bytes.into());
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
