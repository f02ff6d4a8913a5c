// SPDX-License-Identifier: GPL-2.0

use anyhow::Result;

use crate::check;
use crate::disk::Disk;
use crate::fio::Job;
use crate::host::Host;
use crate::results::Figures;

/// While guest B verifies its writes, guest A is throttled to a trickle and then killed in mid-I/O.
pub fn neighbour(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    let (disk_a, disk_b) = (
        Disk::memory(host, "nba", 64)?,
        Disk::memory(host, "nbb", 64)?,
    );
    let a = host.guest("a").disk(&disk_a, "xvda").start()?;
    let b = host.guest("b").disk(&disk_b, "xvda").start()?;
    a.wait_disk("xvda")?;
    b.wait_disk("xvda")?;

    let verify = Job::verified_writes("xvda", "4k-44k", 24)
        .depth(16)
        .start(&b)?;
    let _never_ends = Job::random_reads("xvda", 10_000).depth(32).start(&a)?;
    let vbd = a.vbd("xvda");
    vbd.limit(5, 1)?;
    vbd.wait_file("qos/state", "throttled")?;
    vbd.wait_file("qos/nr_throttled", "[1-9][0-9]*")?;
    check::equal(
        "guest B's qos/state",
        b.vbd("xvda").state()?.as_str(),
        "unlimited",
    )?;
    host.ok(&format!("xl destroy {}", a.name))?;

    let report = verify.finish()?;
    check::within(
        "bytes that guest B verified",
        report.read.io_bytes,
        24 << 20..=24 << 20,
    )?;
    check::equal("guest B's error node", b.vbd("xvda").error()?, None)?;
    figures.insert("guest B bytes verified".into(), report.read.io_bytes.into());
    a.gone()?;
    b.destroy()?;
    disk_a.remove(host)?;
    disk_b.remove(host)
}
