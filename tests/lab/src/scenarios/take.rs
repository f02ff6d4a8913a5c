// SPDX-License-Identifier: GPL-2.0

//! `scripts/move-disks` moves the disks of running guests between both drivers, or leaves all where they were.

use std::time::Duration;

use anyhow::Context;
use anyhow::Result;

use super::update::another_build;
use crate::check;
use crate::disk::Disk;
use crate::fio::Job;
use crate::fio::RepeatedJob;
use crate::guest::Guest;
use crate::host::Host;
use crate::lab::Backend;
use crate::results::Figures;

const OURS: Backend = Backend::Rblkback;
const THEIRS: Backend = Backend::Blkback;
const DOMAINS: &str = "/sys/module/rblkback/parameters/domains";
const INSTALLED: &str = "/lib/modules/$(uname -r)/updates/rblkback.ko";
const MEGABYTES: u32 = 8;
const VDEVS: [&str; 2] = ["xvdb", "xvdc"];
const READ: &str = "dd if=/dev/xvdc of=/dev/null bs=4k count=1 iflag=direct status=none";

/// A guest that verifies what it writes to two disks.
struct Busy<'h, 'l> {
    guest: Guest<'h, 'l>,
    disks: [Disk; 2],
}

impl<'h, 'l> Busy<'h, 'l> {
    fn start(host: &'h Host<'l>, name: &str, devices: [&str; 2]) -> Result<Self> {
        let disks = [
            Disk::memory(host, devices[0], MEGABYTES)?,
            Disk::memory(host, devices[1], MEGABYTES)?,
        ];
        let guest = host.guest(name).start()?;
        for (disk, vdev) in disks.iter().zip(VDEVS) {
            guest.attach(disk, vdev)?;
        }
        Ok(Busy { guest, disks })
    }

    fn work(&self) -> Result<[RepeatedJob<'_, 'h, 'l>; 2]> {
        let job = |vdev| {
            Job::verified_writes(vdev, "4k-44k", MEGABYTES)
                .depth(16)
                .repeat(&self.guest)
        };
        Ok([job("xvdb")?, job("xvdc")?])
    }

    /// Each disk is on this driver, and its requests are answered.
    fn are_on(&self, drivers: [Backend; 2]) -> Result<()> {
        for (vdev, driver) in VDEVS.into_iter().zip(drivers) {
            is_on(&self.guest, vdev, driver)?;
            self.guest.vbd(vdev).wait_requests(16)?;
        }
        Ok(())
    }

    fn end(self, host: &Host<'_>) -> Result<()> {
        self.guest.destroy()?;
        self.disks
            .into_iter()
            .try_for_each(|disk| disk.remove(host))
    }
}

fn is_on(guest: &Guest<'_, '_>, vdev: &str, driver: Backend) -> Result<()> {
    let (vbd, what) = (guest.vbd(vdev), format!("{vdev} of {}", guest.name));
    check::equal(
        &format!("the driver of {what}"),
        vbd.driver()?.as_str(),
        driver.driver(),
    )?;
    check::equal(
        &format!("the state of {what}"),
        vbd.key("state")?.as_deref(),
        Some("4"),
    )?;
    check::equal(&format!("the error node of {what}"), vbd.error()?, None)
}

fn verified(jobs: [RepeatedJob<'_, '_, '_>; 2]) -> Result<()> {
    for job in jobs {
        let (_, report) = job.stop()?;
        let bytes = u64::from(MEGABYTES) << 20;
        check::equal("bytes verified", report.read.io_bytes, bytes)?;
    }
    Ok(())
}

/// Runs the script, which must end with `status` and say all of `words`. Gives what it said.
fn moves(host: &Host<'_>, arguments: &str, status: i32, words: &[&str]) -> Result<String> {
    let command = format!("/lab/move-disks {arguments}");
    let output = host
        .start_command(&command)?
        .finish_within(Duration::from_secs(420))?;
    check::equal(
        &format!("the status of `{command}`, which said {:?}", output.text),
        output.status,
        status,
    )?;
    check::contains(
        &format!("what `{command}` said"),
        output.text.as_str(),
        words,
    )?;
    Ok(output.text)
}

/// Disks of two busy guests go to xen-blkback and come back, by every name that they have, and whatever
/// cannot be moved stays, with all others that were to be moved.
pub fn take(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    let one = Busy::start(host, "one", ["nba", "nbb"])?;
    let two = Busy::start(host, "two", ["nbc", "nbd"])?;
    let jobs = [one.work()?, two.work()?];
    one.are_on([OURS; 2])?;
    if host.lab.at_length {
        by_every_name(host, &one, &two, figures)?;
        interrupted(host, &one)?;
        refusals(host, &one)?;
    } else {
        there_and_back(host, &one)?;
    }
    one_has_no_device(host, &one)?;
    one.are_on([OURS; 2])?;
    if host.lab.at_length {
        for guest in [&one, &two] {
            moves(host, &format!("--give {}", guest.guest.name), 0, &[])?;
        }
        not_served(host, &one)?;
        loaded_by_the_script(host, &one, figures)?;
        two.are_on([THEIRS; 2])?;
    }
    jobs.into_iter().try_for_each(verified)?;
    one.end(host)?;
    two.end(host)?;
    host.load(OURS)?;
    if host.lab.at_length {
        no_answer(host)?;
    }
    Ok(())
}

fn there_and_back(host: &Host<'_>, busy: &Busy<'_, '_>) -> Result<()> {
    moves(host, &format!("--give {}", busy.guest.name), 0, &[])?;
    busy.are_on([THEIRS; 2])?;
    moves(host, &busy.guest.name, 0, &[])?;
    busy.are_on([OURS; 2])
}

fn by_every_name(
    host: &Host<'_>,
    one: &Busy<'_, '_>,
    two: &Busy<'_, '_>,
    figures: &mut Figures,
) -> Result<()> {
    let (name, domid) = (&one.guest.name, two.guest.domid());
    let uuid = host.ok(&format!("xenstore-read /local/domain/{domid}/vm"))?;
    let uuid = uuid.trim_start_matches("/vm/").to_uppercase();
    moves(host, name, 0, &["nothing to do"])?;

    let lines = VDEVS.map(|vdev| {
        let disk = one.guest.vbd(vdev).device();
        format!("{disk} is on xen-blkback: its guest waited for ")
    });
    let [first, second] = &lines;
    let note = "new disks go to rblkback as before";
    let words = [first.as_str(), second.as_str(), note];
    let said = moves(host, &format!("--give {name}"), 0, &words)?;
    figures.insert("given".into(), said.into());
    one.are_on([THEIRS; 2])?;
    two.are_on([OURS; 2])?;
    moves(host, &format!("--give {name}"), 0, &["nothing to do"])?;

    moves(host, &format!("--give {domid} xvdb"), 0, &[])?;
    two.are_on([THEIRS, OURS])?;
    let number = two.guest.vbd("xvdc").vdev;
    moves(host, &format!("--give {uuid} {number} xvdc"), 0, &[])?;
    two.are_on([THEIRS; 2])?;
    // The others of a guest that is there in part.
    moves(host, &format!("{domid} xvdc"), 0, &[])?;
    two.are_on([THEIRS, OURS])?;
    moves(host, &uuid, 0, &[])?;
    two.are_on([OURS; 2])
}

/// Whoever closes the window while the first disk moves.
fn interrupted(host: &Host<'_>, busy: &Busy<'_, '_>) -> Result<()> {
    let (name, disk) = (&busy.guest.name, busy.guest.vbd("xvdb").device());
    host.ok(&format!(
        "/lab/move-disks {name} & move=$!
        while [ -e /sys/bus/xen-backend/drivers/vbd/{disk} ]; do
            kill -0 $move || exit 1; lab_pause
        done
        sent=0
        while kill -HUP $move && kill -INT $move && kill -TERM $move; do
            ((++sent)); lab_pause
        done 2>/dev/null
        wait $move && ((sent > 0))"
    ))
    .context("with signals")?;
    busy.are_on([OURS; 2])
}

/// What is refused leaves all disks where they are. They are on rblkback.
fn refusals(host: &Host<'_>, busy: &Busy<'_, '_>) -> Result<()> {
    let (name, vbd) = (&busy.guest.name, busy.guest.vbd("xvdc"));
    let refused = |arguments: &str, why: &str| -> Result<()> {
        moves(host, arguments, 1, &[why])?;
        busy.are_on([OURS; 2]).with_context(|| why.to_string())
    };
    refused("--give", "usage")?;
    refused(&format!("--give --seconds 0 {name}"), "not a number")?;
    refused("--give nobody", "no guest nobody")?;
    refused("--give 4711", "no guest 4711")?;
    refused(&format!("--give {name} xvdb xvdz"), "has no disk xvdz")?;

    vbd.write(&[("online", "0")])?;
    refused(&format!("--give {name}"), "is being detached")?;
    vbd.write(&[("online", "1")])?;

    let queues = format!(
        "/local/domain/{}/device/vbd/{}/multi-queue-num-queues",
        vbd.domid, vbd.vdev
    );
    host.store_write(&[(queues.clone(), "9999")])?;
    refused(&format!("--give {name}"), "max_queues=")?;
    host.ok(&format!("xenstore-rm {queues}"))?;

    host.ok("exec 8>/run/rblkback/lock && flock 8")?;
    refused(&format!("--give {name} 8>&-"), "is under way")?;
    host.ok("exec 8>&-").map(drop)
}

/// The second disk's device cannot be found: the first one comes back to rblkback, which would not take it
/// as a new one any more.
fn one_has_no_device(host: &Host<'_>, busy: &Busy<'_, '_>) -> Result<()> {
    let (name, vbd) = (&busy.guest.name, busy.guest.vbd("xvdc"));
    let number = vbd.key("physical-device")?.context("no physical-device")?;
    host.ok(&format!("echo 'another guest' >{DOMAINS}"))?;
    vbd.write(&[("physical-device", "fff:fffff")])?;
    // It is told that the device must not change, and keeps the one it has.
    host.store_wait(&vbd.error_path(), "physical-device")?;
    let first = busy.guest.vbd("xvdb").device();
    let (there, back) = (
        format!("{first} is on xen-blkback"),
        format!("{first} is on rblkback"),
    );
    let words: [&str; 4] = [&there, "its device is not there", &back, "where they were"];
    moves(host, &format!("--give {name}"), 2, &words)?;
    vbd.write(&[("physical-device", &number)])?;
    host.store_wait(&vbd.error_path(), "^absent$")?;
    check::equal(
        "domains",
        host.ok(&format!("cat {DOMAINS}"))?,
        "another guest",
    )?;
    busy.are_on([OURS; 2])?;
    host.ok(&format!("echo >{DOMAINS}")).map(drop)
}

/// An rblkback that looks for another key than frontends write takes the disk, and does not serve it.
fn not_served(host: &Host<'_>, busy: &Busy<'_, '_>) -> Result<()> {
    another_build(
        host,
        "s/event-channel\\0/evenx-channel\\0/g or die",
        "/run/odd.ko",
    )?;
    host.wait_unreferenced()?;
    host.ok("rmmod rblkback && insmod /run/odd.ko")?;
    let words = ["rblkback does not serve it", "evenx", "where they were"];
    moves(host, &format!("--seconds 3 {}", busy.guest.name), 2, &words)?;
    busy.are_on([THEIRS; 2])?;
    host.wait_unreferenced()?;
    host.ok("rmmod rblkback").map(drop)
}

/// There is no rblkback yet. One that is not to serve the guest is not left behind.
fn loaded_by_the_script(host: &Host<'_>, busy: &Busy<'_, '_>, figures: &mut Figures) -> Result<()> {
    let (name, options) = (&busy.guest.name, "/etc/modprobe.d/take.conf");
    moves(host, name, 1, &["cannot load rblkback"])?;
    host.ok(&format!(
        "install -D -m 644 /lab/rblkback.ko {INSTALLED} && depmod && \
         echo 'options rblkback domains=x{name}' >{options}"
    ))?;
    moves(host, name, 1, &["is not to serve", name])?;
    check::that(!host.loaded(OURS)?, || "rblkback is still loaded".into())?;
    busy.are_on([THEIRS; 2])?;
    host.ok(&format!(
        "echo 'options rblkback domains=\"x,{name}\"' >{options}"
    ))?;
    let said = moves(host, name, 0, &["new disks go to xen-blkback as before"])?;
    figures.insert("taken".into(), said.into());
    busy.are_on([OURS; 2])?;
    host.ok(&format!("rm {options} {INSTALLED} && depmod"))
        .map(drop)
}

/// A device keeps a request, on either driver: that driver has the disk again when it answers, and the
/// guest's other disk at once.
fn no_answer(host: &Host<'_>) -> Result<()> {
    let mate = Disk::memory(host, "nba", MEGABYTES)?;
    let below = Disk::memory(host, "nbb", MEGABYTES)?;
    let disk = Disk::linear(host, "stuck", &below, MEGABYTES)?;
    let guest = host.guest("stuck").start()?;
    guest.attach(&mate, "xvdb")?;
    // With a limit, what was let through to the device is counted.
    guest.attach(&disk, "xvdc")?.limit(1000, 1000)?;
    keeps_a_request(host, &guest, &disk, "--give", OURS, "qos/io_count")?;
    moves(host, &format!("--give {}", guest.name), 0, &[])?;
    keeps_a_request(host, &guest, &disk, "", THEIRS, "statistics/rd_req")?;
    guest.destroy()?;
    disk.remove(host)?;
    mate.remove(host)?;
    below.remove(host)?;
    host.load(OURS)
}

/// `count` is a file that tells when the request is at the device.
fn keeps_a_request(
    host: &Host<'_>,
    guest: &Guest<'_, '_>,
    disk: &Disk,
    arguments: &str,
    from: Backend,
    count: &str,
) -> Result<()> {
    let vbd = guest.vbd("xvdc");
    disk.suspend(host)?;
    let before: u64 = vbd.number(count)?;
    let read = guest.start(READ)?;
    host.ok(&format!(
        "lab_until 30 '(($(<{}/{count}) > {before}))'",
        vbd.sysfs()
    ))?;
    let line = format!(
        "{} cannot be moved: no answer from its device for 2 s",
        vbd.device()
    );
    let arguments = format!("{arguments} --seconds 2 {}", guest.name);
    moves(host, &arguments, 3, &[&line, "NOT SERVED"])?;
    is_on(guest, "xvdb", from)?;
    disk.resume(host)?;
    read.ok_within(Duration::from_secs(120))?;
    host.ok(&format!(
        "lab_until 30 '[ -e /sys/bus/xen-backend/drivers/{}/{} ]'",
        from.driver(),
        vbd.device()
    ))?;
    vbd.wait_state("4")?;
    guest.ok(READ)?;
    is_on(guest, "xvdc", from)
}
