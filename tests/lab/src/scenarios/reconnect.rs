// SPDX-License-Identifier: GPL-2.0

use anyhow::Context;
use anyhow::Result;
use serde_json::json;

use super::cycles;
use crate::check;
use crate::disk::Disk;
use crate::fio::Job;
use crate::guest::Guest;
use crate::host::Host;
use crate::results::Figures;

const RECONNECTS: u64 = 10;

/// The guest lets go of a busy disk and takes it again, many times; nothing is left behind and
/// the last connection is as good as the first.
pub fn reconnect(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    let rounds = host.lab.cycles.unwrap_or(RECONNECTS);
    let disk = Disk::memory(host, "nb0", 16)?;
    let guest = host.guest("reconnect").disk(&disk, "xvda").start()?;
    guest.wait_disk("xvda")?;
    let_go(&guest)?;
    let before = cycles::counts(host)?;
    take_again(host, &guest)?;
    for number in 1..rounds {
        let_go(&guest)
            .and_then(|()| take_again(host, &guest))
            .with_context(|| format!("reconnect {number}"))?;
    }
    let_go(&guest)?;
    check::equal("counts before and after", &cycles::counts(host)?, &before)?;
    take_again(host, &guest)?;
    let report = Job::verified_writes("xvda", "4k-44k", 16)
        .depth(16)
        .run(&guest)?;
    check::equal("bytes verified", report.read.io_bytes, 16 << 20)?;
    check::equal("the error node", guest.vbd("xvda").error()?, None)?;
    figures.insert("reconnects".into(), rounds.into());
    figures.insert("counts".into(), json!(before));
    guest.destroy()?;
    disk.remove(host)
}

/// Unbinds the guest's driver while requests are in flight.
fn let_go(guest: &Guest<'_, '_>) -> Result<()> {
    let vbd = guest.vbd("xvda");
    guest.ok(&format!(
        "{} >/dev/null 2>&1 &",
        Job::random_reads("xvda", 100_000).depth(32).command()
    ))?;
    vbd.wait_requests(50)?;
    // fio is told to end, not waited for: its requests are in flight when the driver lets go.
    guest.ok("kill -9 $!; echo vbd-51712 >/sys/bus/xen/drivers/vbd/unbind && wait")?;
    vbd.wait_state("6")
}

/// Has the disk bound again: a Linux guest probes a device anew when its state starts over.
fn take_again(host: &Host<'_>, guest: &Guest<'_, '_>) -> Result<()> {
    let vbd = guest.vbd("xvda");
    let front = format!("/local/domain/{}/device/vbd/{}/state", vbd.domid, vbd.vdev);
    host.store_write(&[(front, "1")])?;
    guest.wait_disk("xvda")
}
