// SPDX-License-Identifier: GPL-2.0

//! What the driver asks of the kernel, as kprobes see it.

use anyhow::Result;

use super::probe::Probe;
use super::probe::seen;
use crate::check;
use crate::disk::Disk;
use crate::host::Host;
use crate::lab::Backend;
use crate::results::Figures;
use crate::vbd;

const OURS: Backend = Backend::Rblkback;
const DISKS: u32 = 64;
const MEGABYTES: u32 = 16;

const BEGUN: Probe = Probe {
    event: "lab/begun",
    definition: "r:lab/begun xenbus_transaction_start",
    filter: None,
};
const ENDS: Probe = Probe {
    event: "lab/ends",
    definition: "p:lab/ends xenbus_transaction_end",
    filter: None,
};
const WAITS: Probe = Probe {
    event: "lab/waits",
    definition: "p:lab/waits synchronize_rcu",
    filter: None,
};

/// The disks of a large guest connect at the same time, each with keys to write that belong together. The driver has
/// one transaction under way at a time, for xenstored allows an unprivileged driver domain ten.
pub fn transactions(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    let mut disk = Disk::memory(host, "nb0", MEGABYTES)?;
    disk.attach_by_short_script(host)?;
    let names: Vec<String> = (1..=DISKS).map(vbd::name).collect();
    let spec = host.guest("together").memory(512);
    let guest = names
        .iter()
        .fold(spec, |spec, name| spec.disk(&disk, name))
        .start()?;
    guest.wait_disks(&names)?;
    let events = seen(host, &[BEGUN, ENDS], || {
        for name in &names {
            guest.vbd(name).unbind(OURS)?;
        }
        host.wait_unreferenced()?;
        let (module, load) = (OURS.module(), OURS.load_command());
        host.ok(&format!("rmmod {module} && {load}"))?;
        let read = "dd of=/dev/null bs=4k count=1 iflag=direct status=none";
        let each = format!("for d in {}; do", names.join(" "));
        guest
            .ok(&format!("{each} {read} if=/dev/$d || exit 1; done"))
            .map(drop)
    })?;
    let (mut open, mut most, mut all) = (0, 0, 0);
    for event in &events {
        if event.source == 0 {
            open += 1;
            all += 1;
        } else {
            open -= 1;
        }
        most = most.max(open);
    }
    figures.insert("transactions".into(), all.into());
    check::within("transactions of all disks", all, DISKS..=u32::MAX)?;
    check::equal("transactions under way at a time, at most", most, 1)?;
    guest.destroy()?;
    disk.remove(host)
}

/// How often a guest's I/O waits for a grace period of RCU when its disk is unbound does not grow with
/// its queues: on a busy host each of them takes tens of milliseconds.
pub fn grace_periods(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    /// Those of others meanwhile.
    const OTHERS: usize = 2;
    let disk = Disk::memory(host, "nb0", MEGABYTES)?;
    let limit = format!("/sys/module/{}/parameters/max_queues", OURS.module());
    let usual = host.ok(&format!("cat {limit}"))?;
    let mut counts = Vec::new();
    for queues in [1, 8] {
        host.ok(&format!("echo {queues} >{limit}"))?;
        let guest = host
            .guest("queues")
            .processors(8)
            .memory(320)
            .kernel_option("xen_blkfront.max_queues=8")
            .start()?;
        let vbd = guest.attach(&disk, "xvdb")?;
        let threads = format!("ps -eo comm= | grep -c '^{}[.]xvdb-'", guest.domid());
        check::equal("rings", host.ok(&threads)?, queues.to_string())?;
        let events = seen(host, &[WAITS], || vbd.unbind(OURS))?;
        vbd.bind(OURS)?;
        figures.insert(
            format!("grace periods, {queues} queues"),
            events.len().into(),
        );
        counts.push(events.len());
        guest.destroy()?;
    }
    check::within("grace periods", counts[0], 1..=usize::MAX)?;
    check::within(
        "grace periods of 8 queues",
        counts[1],
        1..=counts[0] + OTHERS,
    )?;
    host.ok(&format!("echo {usual} >{limit}"))?;
    disk.remove(host)
}
