// SPDX-License-Identifier: GPL-2.0

use anyhow::Context;
use anyhow::Result;

use super::frontend::more_queues;
use crate::check;
use crate::disk::Disk;
use crate::fio::Job;
use crate::guest::Guest;
use crate::host::Host;
use crate::lab::Backend;
use crate::results::Figures;

/// In a run of everything, at length, and on the debug kernel.
const MOVES: [u64; 3] = [4, 100, 6];
const MEGABYTES: u32 = 32;
/// Requests that each disk has under way at any moment: a full ring.
const DEPTH: u32 = 32;
/// As many as any guest here has processors; by default it is as many as dom0 has.
const QUEUES: &str = "max_queues=4";
const OURS: Backend = Backend::Rblkback;
const THEIRS: Backend = Backend::Blkback;

/// Two disks of a running guest move between rblkback and xen-blkback in mid-I/O many times:
/// one that began on rblkback and one that began on xen-blkback, with all that driver had offered.
pub fn takeover(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    let guest = host.guest("moved").start()?;
    move_both(host, figures, guest, 1)
}

/// The same with a ring for each of four processors: none may start before the other driver has
/// let go of all.
pub fn takeover_queues(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    let guest = host.guest("moved").processors(4).memory(256).start()?;
    more_queues(host, OURS)?;
    move_both(host, figures, guest, 4)
}

fn move_both(
    host: &Host<'_>,
    figures: &mut Figures,
    guest: Guest<'_, '_>,
    queues: u32,
) -> Result<()> {
    let disks = [
        Disk::memory(host, "nba", MEGABYTES)?,
        Disk::memory(host, "nbb", MEGABYTES)?,
    ];
    let boot = guest.ok("cat /proc/sys/kernel/random/boot_id")?;
    attach_one_on_each(host, &guest, &disks)?;
    for vdev in ["xvdb", "xvdc"] {
        let rings = format!("ls -d /sys/block/{vdev}/mq/* | wc -l");
        check::equal("rings", guest.ok(&rings)?, queues.to_string())?;
    }

    let verify = |vdev| {
        Job::on_each_processor(vdev, "4k-128k", MEGABYTES, queues)
            .depth(DEPTH)
            .repeat(&guest)
    };
    let jobs = [verify("xvdb")?, verify("xvdc")?];
    // Each is on xen-blkback now.
    let [quick, full, debug] = MOVES;
    let moves = host.lab.repeats(quick, full, debug);
    for number in 0..moves {
        let (from, to) = if number % 2 == 0 {
            (THEIRS, OURS)
        } else {
            (OURS, THEIRS)
        };
        for vdev in ["xvdb", "xvdc"] {
            move_disk(&guest, vdev, from, to)
                .with_context(|| format!("move {number} of {vdev} to {}", to.driver()))?;
        }
    }
    for (vdev, job) in ["xvdb", "xvdc"].into_iter().zip(jobs) {
        let (runs, report) = job.stop().with_context(|| format!("fio on {vdev}"))?;
        let bytes = u64::from(MEGABYTES) << 20;
        check::equal(
            &format!("bytes verified on {vdev}"),
            report.read.io_bytes,
            bytes,
        )?;
        check::equal("the error node", guest.vbd(vdev).error()?, None)?;
        figures.insert(format!("bytes verified on {vdev}"), (runs * bytes).into());
    }
    check::equal(
        "the guest's boot",
        guest.ok("cat /proc/sys/kernel/random/boot_id")?,
        boot,
    )?;
    figures.insert("moves of each disk".into(), moves.into());
    guest.destroy()?;
    host.ok(&format!("rmmod {}", THEIRS.module()))?;
    disks.into_iter().try_for_each(|disk| disk.remove(host))
}

/// Attaches the first disk on rblkback and the second on xen-blkback, and leaves both drivers
/// loaded and both disks on xen-blkback. The driver that was loaded first gets a new disk.
fn attach_one_on_each(host: &Host<'_>, guest: &Guest<'_, '_>, disks: &[Disk; 2]) -> Result<()> {
    let first = guest.attach(&disks[0], "xvdb")?;
    check::equal(
        "the first disk's driver",
        first.driver()?.as_str(),
        OURS.driver(),
    )?;
    first.unbind(OURS)?;
    // A driver takes all disks that have none when it is loaded, with as many queues as they have.
    host.ok(&format!(
        "rmmod {} && {} {QUEUES}",
        OURS.module(),
        THEIRS.load_command()
    ))?;
    first.wait_state("4")?;
    host.ok(&format!("{} {QUEUES}", OURS.load_command()))?;
    let second = guest.attach(&disks[1], "xvdc")?;
    for disk in [first, second] {
        check::equal(
            "the disk's driver",
            disk.driver()?.as_str(),
            THEIRS.driver(),
        )?;
    }
    Ok(())
}

/// In the middle of the I/O: some of it has passed since the last move.
fn move_disk(guest: &Guest<'_, '_>, vdev: &str, from: Backend, to: Backend) -> Result<()> {
    let vbd = guest.vbd(vdev);
    vbd.hand_over(8, from, to)?;
    check::equal("the disk's driver", vbd.driver()?.as_str(), to.driver())?;
    vbd.wait_state("4")
}
