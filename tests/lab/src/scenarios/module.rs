// SPDX-License-Identifier: GPL-2.0

use anyhow::Context;
use anyhow::Result;

use crate::check;
use crate::disk::Disk;
use crate::fio::Job;
use crate::host::Host;
use crate::lab::Backend;
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

const VERSION: &str = include_str!("../../../../VERSION");

/// The file of the module and the loaded module are of the version that the checkout says.
pub fn version(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    for command in [
        "modinfo -F version /lab/rblkback.ko",
        "cat /sys/module/rblkback/version",
    ] {
        check::equal(command, host.ok(command)?.as_str(), VERSION.trim_end())?;
    }
    figures.insert("version".into(), VERSION.trim_end().into());
    Ok(())
}

/// What modprobe is told on a real dom0.
const SOFT_DEPENDENCY: &str = include_str!("../../../../scripts/modprobe.conf");
/// Whoever loads a backend: an init script by its name, udev by the alias of a disk's device.
const ASKED_FOR: [&str; 2] = ["xen-blkback", "xen-backend:vbd"];

/// The modules are installed as on a real dom0. Whoever asks for xen-blkback has rblkback serve the disks; on a
/// kernel for which there is no rblkback, xen-blkback does.
pub fn modprobe(host: &Host<'_>, _figures: &mut Figures) -> Result<()> {
    host.wait_unreferenced()?;
    host.ok(&format!(
        "mv /etc/modprobe.d/lab.conf /run/ && cat >/etc/modprobe.d/rblkback.conf <<'CONF'\n\
         {SOFT_DEPENDENCY}CONF\nrmmod rblkback && \
         install -D -m 644 /lab/rblkback.ko /lib/modules/$(uname -r)/updates/rblkback.ko && depmod",
    ))?;
    let mut disk = Disk::memory(host, "nb0", 64)?;
    disk.attach_by_short_script(host)?;
    for name in ASKED_FOR {
        asked_for(host, &disk, name, Backend::Rblkback).with_context(|| name)?;
    }
    host.ok("rm /lib/modules/$(uname -r)/updates/rblkback.ko && depmod")?;
    for name in ASKED_FOR {
        asked_for(host, &disk, name, Backend::Blkback)
            .with_context(|| format!("{name} without rblkback"))?;
    }
    host.ok("rm /etc/modprobe.d/rblkback.conf && mv /run/lab.conf /etc/modprobe.d/")?;
    host.load(Backend::Rblkback)?;
    disk.remove(host)
}

/// Asks modprobe for `name`, and has a guest whose disk `backend` is to serve.
fn asked_for(host: &Host<'_>, disk: &Disk, name: &str, backend: Backend) -> Result<()> {
    host.ok(&format!("modprobe {name}"))?;
    check::that(host.loaded(Backend::Blkback)?, || {
        "xen-blkback is not loaded".into()
    })?;
    let guest = host.guest("modprobe").disk(disk, "xvda").start()?;
    guest.wait_disk("xvda")?;
    check::equal(
        "the driver",
        guest.vbd("xvda").driver()?.as_str(),
        backend.driver(),
    )?;
    Job::verified_writes("xvda", "4k-64k", 4)
        .depth(8)
        .run(&guest)?;
    guest.destroy()?;
    host.ok(
        "for module in xen_blkback rblkback; do [ ! -d /sys/module/$module ] || \
         { lab_file /sys/module/$module/refcnt '^0$' 30 && rmmod $module; } || exit; done",
    )
    .map(drop)
}
