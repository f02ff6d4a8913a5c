// SPDX-License-Identifier: GPL-2.0

use anyhow::Context;
use anyhow::Result;
use serde_json::Value;
use serde_json::json;

use super::frontend::more_queues;
use crate::check;
use crate::disk::Disk;
use crate::guest::Guest;
use crate::host::Host;
use crate::lab::Backend;
use crate::results::Figures;

const QUEUES: u64 = 4;
const ORDER: u32 = 4;
const OURS: Backend = Backend::Rblkback;
const THEIRS: Backend = Backend::Blkback;

/// Bytes of dom0's memory.
struct Costs {
    idle_queue: u64,
    full_queue: u64,
    /// The requests are answered, and the guest does not look.
    unread_queue: u64,
}

/// What a queue with a ring of 16 pages costs dom0 while nobody uses it, and while it is full of
/// requests of 256 segments; on xen-blkback and on rblkback. What a guest may cost has a bound.
pub fn memory(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    let swap = |from: Backend, to: Backend| {
        host.ok(&format!("rmmod {} && {}", from.module(), to.load_command()))
    };
    let ours = costs(host, OURS)?;
    swap(OURS, THEIRS)?;
    let theirs = costs(host, THEIRS)?;
    swap(THEIRS, OURS)?;
    for (name, costs) in [("rblkback", &ours), ("xen-blkback", &theirs)] {
        figures.insert(
            format!("{name}: idle queue, bytes"),
            json!(costs.idle_queue),
        );
        figures.insert(
            format!("{name}: full queue, bytes"),
            json!(costs.full_queue),
        );
        figures.insert(
            format!("{name}: unread queue, bytes"),
            json!(costs.unread_queue),
        );
    }
    check::within(
        "bytes of an idle queue",
        ours.idle_queue,
        0..=theirs.idle_queue / 20,
    )?;
    check::within(
        "bytes of a full queue",
        ours.full_queue,
        0..=theirs.full_queue / 4,
    )?;
    check::within(
        "bytes of a queue whose answers nobody reads",
        ours.unread_queue,
        0..=ours.full_queue,
    )
}

fn costs(host: &Host<'_>, backend: Backend) -> Result<Costs> {
    more_queues(host, backend)?;
    let below = Disk::memory(host, "nb0", 64)?;
    let disk = Disk::linear(host, "held", &below, 64)?;
    let start = |name: &str| {
        let guest = host.guest(name).disk(&disk, "xvda").own_frontend();
        guest.start()
    };
    // What is made once, by a driver or by the kernel for it, is no cost of a queue. What stays with a disk
    // is, so this is done by another one.
    let first = start("first")?;
    held(&first, QUEUES, false, || Ok(()))?;
    first.destroy()?;
    let guest = start("memory")?;
    let before = host.memory()?;
    let idle = held(&guest, QUEUES, false, || host.memory())?;
    disk.suspend(host)?;
    let vbd = guest.vbd("xvda");
    let (full, unread) = held(&guest, 1, true, || {
        host.ok_within("lab_settled 300", 600)?;
        let full = host.memory()?;
        disk.resume(host)?;
        // While a full ring is served, as many requests as before are under way and memory stays the same.
        // xen-blkback counts a request when it is sent, hence the other half.
        let said: Value = serde_json::from_str(&guest.ok("echo \"$said\"")?)?;
        let asked = said["asked"].as_u64().context("requests on the ring")?;
        host.ok_within(
            &format!(
                "lab_until 300 '[ $(cat {}/statistics/rd_req) = {asked} ] && \
                 grep -q \"^ *0 *0$\" {}/inflight'",
                vbd.sysfs(),
                disk.sysfs(host)?
            ),
            600,
        )?;
        host.ok_within("lab_settled 300", 600)?;
        Ok((full, host.memory()?))
    })?;
    if backend == OURS {
        bounded(host, &guest)?;
    }
    guest.destroy()?;
    disk.remove(host)?;
    below.remove(host)?;
    Ok(Costs {
        idle_queue: idle.saturating_sub(before) / QUEUES,
        full_queue: full.saturating_sub(before),
        unread_queue: unread.saturating_sub(before),
    })
}

/// A connection for which the guest's frames do not suffice is served all the same, as one below
/// the bound is.
fn bounded(host: &Host<'_>, guest: &Guest<'_, '_>) -> Result<()> {
    let bound = "/sys/module/rblkback/parameters/max_guest_frames";
    let usual = host.ok(&format!("cat {bound} && echo 1024 >{bound}"))?;
    held(guest, QUEUES, false, || Ok(()))?;
    held(guest, 1, false, || Ok(()))?;
    host.ok(&format!("echo {usual} >{bound}")).map(drop)
}

/// Does something while the guest holds a connection.
pub fn held<T>(
    guest: &Guest<'_, '_>,
    queues: u64,
    full: bool,
    action: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let full = if full { "--full" } else { "" };
    super::frontend::held(
        guest,
        &format!("hold --queues {queues} --order {ORDER} {full}"),
        action,
    )
}
