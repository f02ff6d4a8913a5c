// SPDX-License-Identifier: GPL-2.0

//! What `lvchange -an` or `dmsetup remove` finds right after xl.

use anyhow::Context;
use anyhow::Result;

use crate::disk::Disk;
use crate::fio::Job;
use crate::host::Host;
use crate::results::Figures;
use crate::shell::DEADLINE;

/// In a run of everything, at length, and on the debug kernel.
const DETACHES: [u64; 3] = [20, 200, 10];
const DESTROYS: [u64; 3] = [4, 50, 2];

/// A disk is detached and its device removed by the next command, again and again.
pub fn detach_remove(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    let [quick, full, debug] = DETACHES;
    let times = host.lab.repeats(quick, full, debug);
    let below = Disk::memory(host, "nb0", 16)?;
    let guest = host.guest("detached").start()?;
    for number in 0..times {
        let mut disk = Disk::linear(host, "removed", &below, 16)?;
        disk.attach_by_short_script(host)?;
        guest.attach(&disk, "xvdb")?;
        guest.ok("dd if=/dev/xvdb of=/dev/null bs=64k count=16 iflag=direct status=none")?;
        host.ok(&format!(
            "xl block-detach {} xvdb && dmsetup remove --noudevsync removed",
            guest.name
        ))
        .with_context(|| format!("detach {number}"))?;
    }
    figures.insert("detaches".into(), times.into());
    guest.destroy()?;
    below.remove(host)
}

/// A guest is destroyed with I/O under way and its device removed by the next command.
pub fn destroy_remove(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    let [quick, full, debug] = DESTROYS;
    let times = host.lab.repeats(quick, full, debug);
    let below = Disk::memory(host, "nb0", 16)?;
    for number in 0..times {
        let mut disk = Disk::linear(host, "removed", &below, 16)?;
        disk.attach_by_short_script(host)?;
        let guest = host.guest("destroyed").disk(&disk, "xvdb").start()?;
        guest.wait_disk("xvdb")?;
        Job::random_reads("xvdb", 600)
            .depth(32)
            .leave_running(&guest)?;
        guest.vbd("xvdb").wait_requests(32)?;
        host.ok(&format!(
            "xl destroy {} && dmsetup remove --noudevsync removed",
            guest.name
        ))
        .with_context(|| format!("destroyed guest {number}"))?;
        guest.gone()?;
    }
    figures.insert("destroyed guests".into(), times.into());
    below.remove(host)
}

/// A guest powers off, and so closes its disk by itself, which no toolstack takes away. Its device is
/// removed as soon as the disk says that it is closed.
pub fn power_off(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    let below = Disk::memory(host, "nb0", 16)?;
    let mut disk = Disk::linear(host, "removed", &below, 16)?;
    disk.attach_by_short_script(host)?;
    let guest = host.guest("off").disk(&disk, "xvdb").preserved().start()?;
    guest.wait_disk("xvdb")?;
    guest.ok("dd if=/dev/xvdb of=/dev/null bs=64k count=16 iflag=direct status=none")?;
    let state = guest.vbd("xvdb").path("state");
    let removed = host.start_command(&format!(
        "lab_wait {state} '^6|absent$' 60 && dmsetup remove --noudevsync removed"
    ))?;
    guest.power_off()?;
    removed.ok_within(DEADLINE)?;
    guest.destroy()?;
    figures.insert("guests".into(), 1.into());
    below.remove(host)
}
