// SPDX-License-Identifier: GPL-2.0

use anyhow::Result;

use crate::check;
use crate::disk::Disk;
use crate::fio::Job;
use crate::host::Host;
use crate::results::Figures;

const MEGABYTES: u32 = 32;
/// Of dom0's clock, for a neighbour's attach.
const LIMIT_MS: u64 = 5000;

/// One guest's backing device stands still, with reads, writes and a discard on it, while that
/// guest is destroyed; another guest attaches, uses and detaches a disk as usual. When the device
/// goes on, everything of the first guest ends.
pub fn slow_neighbour(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    let below = Disk::memory_with(host, "nba", MEGABYTES, "echo 1 >discard")?;
    let slow = Disk::linear(host, "slow", &below, MEGABYTES)?;
    let fast = Disk::memory(host, "nbb", MEGABYTES)?;
    let victim = host.guest("slow").disk(&slow, "xvda").start()?;
    let other = host.guest("other").start()?;
    victim.wait_disk("xvda")?;
    let vbd = victim.vbd("xvda");
    check::equal(
        "feature-discard",
        vbd.key("feature-discard")?.as_deref(),
        Some("1"),
    )?;

    let _never_ends = victim.start(&format!(
        "{} & {{ sleep 0.5; while :; do blkdiscard -o 16M -l 8M /dev/xvda; done; }}; wait",
        Job::random_reads("xvda", 100_000)
            .depth(16)
            .with("--rw=randrw --size=8M")
            .command()
    ))?;
    vbd.wait_file("statistics/ds_req", "[1-9][0-9]*")?;
    slow.suspend(host)?;
    // Whoever destroys it has to wait for the device, so that happens aside.
    host.ok(&format!(
        "xl destroy {} >/run/destroy.log 2>&1 & echo $! >/run/destroy.pid",
        victim.name
    ))?;
    host.store_wait(&format!("/local/domain/{}", victim.domid()), "absent")?;

    let took = host.timed(&format!(
        "xl block-attach {} '{}'",
        other.name,
        fast.xl("xvdb")
    ))?;
    other.wait_disk("xvdb")?;
    check::within("milliseconds to attach", took, 0..=LIMIT_MS)?;
    other.ok("dd if=/dev/xvdb of=/dev/null bs=64k count=16 iflag=direct status=none")?;
    let detached = host.timed(&format!("xl block-detach {} xvdb", other.name))?;
    check::within("milliseconds to detach", detached, 0..=LIMIT_MS)?;
    figures.insert("ms to attach".into(), took.into());
    figures.insert("ms to detach".into(), detached.into());

    slow.resume(host)?;
    host.ok("wait $(cat /run/destroy.pid)")?;
    host.store_wait(&vbd.path("state"), "absent")?;
    host.ok(&format!("lab_gone {} 30", vbd.sysfs()))?;
    victim.gone()?;
    other.destroy()?;
    slow.remove(host)?;
    below.remove(host)?;
    fast.remove(host)
}
