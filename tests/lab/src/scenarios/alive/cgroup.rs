// SPDX-License-Identifier: GPL-2.0

use std::ops::RangeInclusive;

use anyhow::Result;

use crate::check;
use crate::disk::Disk;
use crate::fio::Job;
use crate::guest::Guest;
use crate::host::Host;
use crate::results::Figures;

const GROUP: &str = "/run/cgroup/disk";

/// Reads a second that the group may have, and what that lets through in some seconds: the kernel
/// deals out a tenth of a second at a time.
const LIMIT: u64 = 100;
const SECONDS: u32 = 4;
const READS: RangeInclusive<u64> = 370..=430;

/// An administrator moves a ring's thread into a cgroup and gives it another priority. What the
/// guest reads, writes and discards is counted and limited there, also after its frontend has
/// connected anew.
pub fn cgroup(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    let disk = Disk::memory_with(host, "nb0", 64, "echo 1 >discard")?;
    let guest = host.guest("grouped").start()?;
    let vbd = guest.attach(&disk, "xvdb")?;
    host.ok(&format!(
        "mkdir -p /run/cgroup && mount -t cgroup2 none /run/cgroup && \
         echo +io >/run/cgroup/cgroup.subtree_control && mkdir {GROUP}"
    ))?;
    let pid = thread(host)?;
    host.ok(&format!(
        "echo {pid} >{GROUP}/cgroup.procs && renice -n -5 -p {pid}"
    ))?;
    counted(host, &guest, &disk, figures, "before")?;
    limited(host, &guest, &disk)?;
    guest.ok(&format!(
        "cd /sys/bus/xen/drivers/vbd && echo vbd-{0} >unbind && echo vbd-{0} >bind; cd /",
        vbd.vdev
    ))?;
    guest.wait_disk("xvdb")?;
    counted(host, &guest, &disk, figures, "after")?;
    limited(host, &guest, &disk)?;
    let pid = thread(host)?;
    let nice = host.ok(&format!("ps -o ni= -p {pid}"))?;
    check::equal("the new thread's priority", nice.trim(), "-5")?;
    guest.destroy()?;
    disk.remove(host)?;
    host.ok(&format!("rmdir {GROUP} && umount /run/cgroup"))
        .map(drop)
}

/// The thread of the only ring of the only disk.
fn thread(host: &Host<'_>) -> Result<String> {
    let pids = host.ok("ps -eo pid=,comm:64= | awk '$2 ~ /^[0-9]+\\.xvd/ { print $1 }'")?;
    check::equal("threads of one ring", pids.lines().count(), 1)?;
    Ok(pids.trim().into())
}

/// Each kind of request makes its counter of the group grow by what the guest asked for.
fn counted(
    host: &Host<'_>,
    guest: &Guest<'_, '_>,
    disk: &Disk,
    figures: &mut Figures,
    when: &str,
) -> Result<()> {
    for (counter, command) in [
        (
            "rbytes",
            "dd if=/dev/xvdb of=/dev/null bs=1M count=2 iflag=direct status=none",
        ),
        (
            "wbytes",
            "dd if=/dev/zero of=/dev/xvdb bs=1M count=2 oflag=direct status=none",
        ),
        ("dbytes", "blkdiscard -o 0 -l 2M /dev/xvdb"),
    ] {
        let before = bytes(host, disk, counter)?;
        guest.ok(command)?;
        let grown = bytes(host, disk, counter)? - before;
        figures.insert(format!("{counter}, {when}"), grown.into());
        check::equal(
            &format!("{counter} of the group {when} the reconnect"),
            grown,
            2 << 20,
        )?;
    }
    Ok(())
}

/// The kernel's own limit holds the guest.
fn limited(host: &Host<'_>, guest: &Guest<'_, '_>, disk: &Disk) -> Result<()> {
    let device = device(host, disk)?;
    host.ok(&format!("echo {device} riops={LIMIT} >{GROUP}/io.max"))?;
    let report = Job::random_reads("xvdb", SECONDS).depth(8).run(guest)?;
    host.ok(&format!("echo {device} riops=max >{GROUP}/io.max"))?;
    check::within("reads under io.max", report.read.total_ios, READS)
}

/// `major:minor`, as the files of a cgroup have it.
fn device(host: &Host<'_>, disk: &Disk) -> Result<String> {
    let name = disk.path.trim_start_matches("/dev/");
    host.ok(&format!("cat /sys/class/block/{name}/dev"))
}

/// A counter of the group's for the device; nothing was counted if there is none.
fn bytes(host: &Host<'_>, disk: &Disk, counter: &str) -> Result<u64> {
    let device = device(host, disk)?;
    let text = host.ok(&format!("cat {GROUP}/io.stat"))?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(&format!("{device} ")));
    let words = line.unwrap_or_default().split(' ');
    let number = words
        .filter_map(|word| word.strip_prefix(&format!("{counter}=")))
        .next();
    Ok(number.map_or(Ok(0), str::parse)?)
}
