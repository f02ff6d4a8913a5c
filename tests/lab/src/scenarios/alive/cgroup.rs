// SPDX-License-Identifier: GPL-2.0

use std::ops::RangeInclusive;

use anyhow::Result;

use crate::check;
use crate::disk::Disk;
use crate::fio::Job;
use crate::flood;
use crate::flood::Flooded;
use crate::guest::Guest;
use crate::host::Host;
use crate::results::Figures;

const GROUP: &str = "/run/cgroup/disk";

/// Reads a second that the group may have, and what is seen of that in some seconds: the kernel deals out
/// a tenth of a second at a time.
const LIMIT: u64 = 100;
const SECONDS: u32 = 4;
const READS: RangeInclusive<f64> = 92.0..=108.0;

/// An administrator moves a ring's thread into a cgroup and gives it another priority. What the
/// guest reads, writes and discards is counted and limited there, also when its frontend has
/// connected anew.
pub fn cgroup(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    host.ok(&format!(
        "mkdir -p /run/cgroup && mount -t cgroup2 none /run/cgroup && \
         echo +io >/run/cgroup/cgroup.subtree_control && mkdir {GROUP}"
    ))?;
    let disk = Disk::memory_with(host, "nb0", 64, "echo 1 >discard")?;
    let guest = host.guest("grouped").start()?;
    guest.attach(&disk, "xvdb")?;
    put_into_group(host)?;
    counted(host, &guest, &disk, figures)?;
    let reads = limited(host, &disk, || {
        let job = Job::random_reads("xvdb", SECONDS).depth(8);
        Ok(job.run(&guest)?.read.total_ios as f64 / f64::from(SECONDS))
    })?;
    figures.insert("reads a second under io.max".into(), reads.into());
    guest.destroy()?;
    after_reconnects(host, &disk, figures)?;
    disk.remove(host)?;
    host.ok(&format!("rmdir {GROUP} && umount /run/cgroup"))
        .map(drop)
}

/// The same thread serves every connection of a disk, and what it was given stays. Linux's own frontend
/// takes a disk that it has closed only once it is a new domain's.
fn after_reconnects(host: &Host<'_>, disk: &Disk, figures: &mut Figures) -> Result<()> {
    let guest = host
        .guest("again")
        .disk(disk, "xvda")
        .own_frontend()
        .start()?;
    let flood = |seconds| Flooded::parse(&guest.ok(&flood::command(0, 0, seconds))?);
    flood(1)?;
    let pid = put_into_group(host)?;
    let counters = ["rbytes", "wbytes", "dbytes"];
    let before = counters.map(|counter| bytes(host, disk, counter));
    guest.ok("/frontend run --seed 1 --requests 120 --queues 1 --order 0")?;
    for (counter, before) in counters.into_iter().zip(before) {
        let grown = bytes(host, disk, counter)? - before?;
        figures.insert(format!("{counter} after a reconnect"), grown.into());
        check::within(
            &format!("{counter} of the group after a reconnect"),
            grown,
            1..=u64::MAX,
        )?;
    }
    let reads = limited(host, disk, || Ok(flood(u64::from(SECONDS))?.iops()))?;
    figures.insert(
        "reads a second under io.max, after a reconnect".into(),
        reads.into(),
    );
    check::equal("the thread", thread(host)?, pid.clone())?;
    let nice = host.ok(&format!("ps -o ni= -p {pid}"))?;
    check::equal("the thread's priority", nice.trim(), "-5")?;
    guest.destroy()
}

/// The thread of the only ring goes into the group, and before others.
fn put_into_group(host: &Host<'_>) -> Result<String> {
    let pid = thread(host)?;
    host.ok(&format!(
        "echo {pid} >{GROUP}/cgroup.procs && renice -n -5 -p {pid}"
    ))?;
    Ok(pid)
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
        figures.insert(counter.into(), grown.into());
        check::equal(&format!("{counter} of the group"), grown, 2 << 20)?;
    }
    Ok(())
}

/// The kernel's own limit holds the guest: `read` says how many reads a second it had meanwhile.
fn limited(host: &Host<'_>, disk: &Disk, read: impl FnOnce() -> Result<f64>) -> Result<f64> {
    let device = device(host, disk)?;
    host.ok(&format!("echo {device} riops={LIMIT} >{GROUP}/io.max"))?;
    let rate = read()?;
    host.ok(&format!("echo {device} riops=max >{GROUP}/io.max"))?;
    check::within("reads a second under io.max", rate, READS)?;
    Ok(rate)
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
