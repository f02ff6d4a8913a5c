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

/// Requests a second that the group may have, and what is seen of that in some seconds: the kernel deals out
/// a tenth of a second at a time.
const LIMIT: u64 = 100;
const SECONDS: u32 = 4;
const RATES: RangeInclusive<f64> = 92.0..=108.0;
/// Bytes of each of those requests.
const BYTES: u64 = 4096;

/// What is limited and counted, in the words of the kernel, of fio and of the tests' own frontend.
struct Kind {
    name: &'static str,
    /// Of `io.max`.
    limit: &'static str,
    /// Of `io.stat`.
    counter: &'static str,
    fio: &'static str,
    /// What `dd` or `blkdiscard` does with 2 MiB.
    command: &'static str,
}

/// For the kernel a discard is a kind of write.
const KINDS: [Kind; 3] = [
    Kind {
        name: "reads",
        limit: "riops",
        counter: "rbytes",
        fio: "randread",
        command: "dd if=/dev/xvdb of=/dev/null bs=1M count=2 iflag=direct status=none",
    },
    Kind {
        name: "writes",
        limit: "wiops",
        counter: "wbytes",
        fio: "randwrite",
        command: "dd if=/dev/zero of=/dev/xvdb bs=1M count=2 oflag=direct status=none",
    },
    Kind {
        name: "discards",
        limit: "wiops",
        counter: "dbytes",
        fio: "randtrim",
        command: "blkdiscard -o 0 -l 2M /dev/xvdb",
    },
];

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
    for kind in &KINDS {
        counted(host, &guest, &disk, kind)?;
        let limit = format!("{}={LIMIT}", kind.limit);
        let rate = limited(host, &disk, kind, &limit, || {
            let job = Job::random("xvdb", kind.fio, SECONDS).depth(8);
            let report = job.run(&guest)?;
            let all = report.read.io_bytes + report.write.io_bytes + report.trim.io_bytes;
            let requests = all / BYTES;
            Ok((requests, requests as f64 / f64::from(SECONDS)))
        })?;
        figures.insert(format!("{} a second under io.max", kind.name), rate.into());
    }
    guest.destroy()?;
    after_reconnects(host, &disk, figures)?;
    disk.remove(host)?;
    host.ok(&format!("rmdir {GROUP} && umount /run/cgroup"))
        .map(drop)
}

/// The same thread serves every connection of a disk, and what it was given stays. Linux's own frontend
/// takes a disk that it has closed only once it is a new domain's; the tests' own connects anew for each
/// flood.
fn after_reconnects(host: &Host<'_>, disk: &Disk, figures: &mut Figures) -> Result<()> {
    let guest = host
        .guest("again")
        .disk(disk, "xvda")
        .own_frontend()
        .start()?;
    let flood = |kind: &Kind, seconds| {
        Flooded::parse(&guest.ok(&flood::command_of(kind.name, 0, 0, seconds))?)
    };
    flood(&KINDS[0], 1)?;
    let pid = put_into_group(host)?;
    let limits = KINDS
        .iter()
        .map(|kind| (kind, format!("{}={LIMIT}", kind.limit), kind.name.into()));
    // A discard costs as much of a limit in bytes as the smallest write, however long it is.
    let smallest = (
        &KINDS[2],
        format!("wbps={}", LIMIT * 512),
        "discards, by bytes,".to_string(),
    );
    for (kind, limit, name) in limits.chain([smallest]) {
        let rate = limited(host, disk, kind, &limit, || {
            let flooded = flood(kind, u64::from(SECONDS))?;
            Ok((flooded.all as u64, flooded.iops()))
        })?;
        figures.insert(
            format!("{name} a second under io.max, after a reconnect"),
            rate.into(),
        );
    }
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

/// What the guest asks for makes the counter of the group grow by as much.
fn counted(host: &Host<'_>, guest: &Guest<'_, '_>, disk: &Disk, kind: &Kind) -> Result<()> {
    let before = bytes(host, disk, kind.counter)?;
    guest.ok(kind.command)?;
    let grown = bytes(host, disk, kind.counter)? - before;
    check::equal(&format!("{} of the group", kind.counter), grown, 2 << 20)
}

/// The kernel's own limit holds the guest, and its counter has every request: `ask` says how many the guest
/// sent, and how many a second were answered. Gives the latter.
fn limited(
    host: &Host<'_>,
    disk: &Disk,
    kind: &Kind,
    limit: &str,
    ask: impl FnOnce() -> Result<(u64, f64)>,
) -> Result<f64> {
    let device = device(host, disk)?;
    let before = bytes(host, disk, kind.counter)?;
    host.ok(&format!("echo {device} {limit} >{GROUP}/io.max"))?;
    let (requests, rate) = ask()?;
    let (name, _) = limit.split_once('=').unwrap_or((limit, ""));
    host.ok(&format!("echo {device} {name}=max >{GROUP}/io.max"))?;
    let what = format!("{} a second under {limit}", kind.name);
    check::within(&what, rate, RATES)?;
    let grown = bytes(host, disk, kind.counter)? - before;
    let what = format!("{} of the group under {limit}", kind.counter);
    check::equal(&what, grown, requests * BYTES)?;
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
