// SPDX-License-Identifier: GPL-2.0

use anyhow::Result;

use super::cycles;
use crate::check;
use crate::disk::Disk;
use crate::fio::Job;
use crate::guest::Guest;
use crate::host::Host;
use crate::results::Figures;

const RECONNECTS: u64 = 14;

/// The guest lets go of a busy disk and takes it again, many times; nothing is left behind and
/// the last connection is as good as the first.
pub fn reconnect(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    let rounds = host.lab.cycles.unwrap_or(RECONNECTS).max(RECONNECTS);
    let disk = Disk::memory(host, "nb0", 16)?;
    let guest = host.guest("reconnect").disk(&disk, "xvda").start()?;
    guest.wait_disk("xvda")?;
    // From now on the disk in dom0 needs no memory any more.
    guest.ok("dd if=/dev/zero of=/dev/xvda bs=1M count=16 oflag=direct status=none")?;
    let cycles =
        |count| (0..count).try_for_each(|_| take_again(host, &guest).and_then(|()| let_go(&guest)));
    let_go(&guest)?;
    cycles(2)?;
    let half = (rounds - 4) / 2;
    cycles::flat(host, half, figures, || cycles(half))?;
    take_again(host, &guest)?;
    let report = Job::verified_writes("xvda", "4k-44k", 16)
        .depth(16)
        .run(&guest)?;
    check::equal("bytes verified", report.read.io_bytes, 16 << 20)?;
    check::equal("the error node", guest.vbd("xvda").error()?, None)?;
    figures.insert("reconnects".into(), rounds.into());
    guest.destroy()?;
    disk.remove(host)
}

/// Unbinds the guest's driver while requests are in flight.
fn let_go(guest: &Guest<'_, '_>) -> Result<()> {
    let vbd = guest.vbd("xvda");
    guest.ok(cycles::ENDLESS)?;
    vbd.wait_requests(50)?;
    guest.ok("echo vbd-51712 >/sys/bus/xen/drivers/vbd/unbind && wait")?;
    vbd.wait_state("6")
}

/// Has the disk bound again: a Linux guest probes a device anew when its state starts over.
fn take_again(host: &Host<'_>, guest: &Guest<'_, '_>) -> Result<()> {
    let vbd = guest.vbd("xvda");
    let front = format!("/local/domain/{}/device/vbd/{}/state", vbd.domid, vbd.vdev);
    host.store_write(&[(front, "1")])?;
    guest.wait_disk("xvda")
}
