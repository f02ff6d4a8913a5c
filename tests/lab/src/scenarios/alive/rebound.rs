// SPDX-License-Identifier: GPL-2.0

//! A disk that is in use is bound again under other circumstances than those in which its frontend
//! connected. The frontend knows nothing of that: it has to be served as before.

use anyhow::Context;
use anyhow::Result;

use crate::check;
use crate::disk::Disk;
use crate::fio::Job;
use crate::guest::Guest;
use crate::guest::GuestSpec;
use crate::host::Host;
use crate::lab::Backend;
use crate::results::Figures;
use crate::vbd::Vbd;

const MEGABYTES: u32 = 16;
const OURS: Backend = Backend::Rblkback;
const THEIRS: Backend = Backend::Blkback;
/// In a run of everything, at length, and on the debug kernel: half of them in each direction.
const MOVES: [u64; 3] = [10, 100, 6];
/// What the module is loaded with, one after the other, besides what the disk had first.
const CHANGES: [&str; 5] = [
    "max_queues=1",
    "max_ring_page_order=0",
    "feature_persistent=N",
    "max_guest_frames=1024",
    "",
];
/// What the disk has when its frontend connects.
const FIRST: &str = "max_queues=4 max_ring_page_order=4 feature_persistent=Y";

pub fn fewer_queues(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    rebound(host, figures, &["max_queues=1", "max_queues=4"])
}

pub fn smaller_rings(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    let changes = ["max_ring_page_order=0", "max_ring_page_order=4"];
    rebound(host, figures, &changes)
}

pub fn fewer_frames(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    rebound(host, figures, &["max_guest_frames=1024"])
}

pub fn persistence_changed(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    let changes = ["feature_persistent=N", "feature_persistent=Y"];
    rebound(host, figures, &changes)?;
    // And the other way round: a frontend that was never offered any gets its pages back.
    let disk = Disk::memory(host, "nb1", MEGABYTES)?;
    reload(host, "feature_persistent=N")?;
    let guest = host.guest("rebound").start()?;
    let vbd = guest.attach(&disk, "xvdb")?;
    busy_while(&guest, || {
        vbd.unbind(OURS)?;
        reload(host, "feature_persistent=Y")
    })?;
    guest.destroy()?;
    disk.remove(host)
}

/// A guest that has four queues of four pages where it may.
fn four_queues<'h, 'l>(guest: GuestSpec<'h, 'l>) -> GuestSpec<'h, 'l> {
    guest
        .processors(4)
        .memory(256)
        .kernel_option("xen_blkfront.max_ring_page_order=2")
}

fn has_four_queues(host: &Host<'_>, vbd: &Vbd<'_, '_>) -> Result<()> {
    let front = format!("/local/domain/{}/device/vbd/{}", vbd.domid, vbd.vdev);
    for (key, value) in [("multi-queue-num-queues", "4"), ("ring-page-order", "2")] {
        let seen = host.store_read(&format!("{front}/{key}"))?;
        check::equal(key, seen.as_deref(), Some(value))?;
    }
    Ok(())
}

/// One queue has its keys in the frontend's directory itself.
fn has_one_queue(host: &Host<'_>, vbd: &Vbd<'_, '_>) -> Result<()> {
    let front = format!("/local/domain/{}/device/vbd/{}", vbd.domid, vbd.vdev);
    let one = host.store_read(&format!("{front}/ring-page-order"))?;
    check::equal("ring-page-order", one.as_deref(), Some("2"))?;
    let port = host.store_read(&format!("{front}/event-channel"))?;
    check::that(port.is_some(), || {
        "no event channel of a single queue".into()
    })
}

/// With each of these parameters in turn, from the four queues of four pages that the guest has.
fn rebound(host: &Host<'_>, figures: &mut Figures, changes: &[&str]) -> Result<()> {
    let disk = Disk::memory(host, "nb0", MEGABYTES)?;
    reload(host, FIRST)?;
    let guest = four_queues(host.guest("rebound").disk(&disk, "xvdb")).start()?;
    guest.wait_disk("xvdb")?;
    let vbd = guest.vbd("xvdb");
    has_four_queues(host, &vbd)?;
    for change in changes {
        busy_while(&guest, || {
            vbd.unbind(OURS)?;
            // Of a parameter that is given twice the last one counts.
            reload(host, &format!("{FIRST} {change}"))
        })
        .with_context(|| format!("bound again with {change}"))?;
    }
    figures.insert("changes".into(), changes.len().into());
    guest.destroy()?;
    disk.remove(host)?;
    reload(host, "")
}

/// A device mapper device has another table, or none, for ten seconds: the disk waits for it.
pub fn device_comes_late(host: &Host<'_>, _figures: &mut Figures) -> Result<()> {
    let below = Disk::memory(host, "nb0", MEGABYTES)?;
    let disk = Disk::linear(host, "late", &below, MEGABYTES)?;
    let guest = host.guest("rebound").start()?;
    let vbd = guest.attach(&disk, "xvdb")?;
    let number = disk.physical_device(host)?;
    busy_while(&guest, || {
        vbd.unbind(OURS)?;
        host.ok("dmsetup remove --noudevsync late")?;
        vbd.bind(OURS)?;
        // Of the host's own clock, which nothing else moves on.
        host.ok("sleep 10")?;
        let again = Disk::linear(host, "late", &below, MEGABYTES)?;
        check::equal("the device's number", again.physical_device(host)?, number)
    })?;
    guest.destroy()?;
    disk.remove(host)?;
    below.remove(host)
}

/// A busy disk of four queues moves between both drivers, and is met by other parameters each time that it
/// comes back. Every fifth time its device is not there for ten seconds.
pub fn moved(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    move_again_and_again(host, figures, 4)
}

/// The same with one queue, whose keys are elsewhere.
pub fn moved_one_queue(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    move_again_and_again(host, figures, 1)
}

fn move_again_and_again(host: &Host<'_>, figures: &mut Figures, queues: u32) -> Result<()> {
    let [quick, full, debug] = MOVES;
    let moves = host.lab.repeats(quick, full, debug);
    let below = Disk::memory(host, "nb0", MEGABYTES)?;
    let disk = Disk::linear(host, "moved", &below, MEGABYTES)?;
    reload(host, FIRST)?;
    host.ok(&format!("{} max_queues=4", THEIRS.load_command()))?;
    let guest = four_queues(host.guest("moved"));
    let guest = guest.processors(queues).start()?;
    let vbd = guest.attach(&disk, "xvdb")?;
    match queues {
        1 => has_one_queue(host, &vbd)?,
        _ => has_four_queues(host, &vbd)?,
    }
    let number = disk.physical_device(host)?;
    let verify = Job::on_each_processor("xvdb", "4k-128k", MEGABYTES, queues)
        .depth(32)
        .repeat(&guest)?;
    vbd.wait_requests(32)?;
    let mut changes = CHANGES.iter().cycle();
    for round in 1..=moves / 2 {
        vbd.hand_over(8, OURS, THEIRS)?;
        vbd.wait_state("4")?;
        let change = changes.next().context("a change")?;
        reload(host, &format!("{FIRST} {change}"))?;
        if round % 5 == 0 {
            without_device(host, &vbd, &below, &number)?;
        } else {
            vbd.hand_over(8, THEIRS, OURS)?;
        }
        lives(host, &vbd).with_context(|| format!("round {round}, {change}"))?;
    }
    let (runs, report) = verify.stop()?;
    let whole = u64::from(MEGABYTES) << 20;
    check::equal("bytes verified", report.read.io_bytes, whole)?;
    check::equal("the error node", vbd.error()?, None)?;
    figures.insert("moves".into(), moves.into());
    figures.insert("bytes verified".into(), (runs * whole).into());
    guest.destroy()?;
    disk.remove(host)?;
    below.remove(host)?;
    host.ok(&format!("rmmod {}", THEIRS.module()))?;
    reload(host, "")
}

/// The disk comes back to us while its device is gone.
fn without_device(host: &Host<'_>, vbd: &Vbd<'_, '_>, below: &Disk, number: &str) -> Result<()> {
    vbd.wait_requests(8)?;
    vbd.unbind(THEIRS)?;
    // That driver lets go of the device when it has answered.
    host.ok("lab_until 60 'dmsetup remove --noudevsync moved'")?;
    vbd.bind(OURS)?;
    host.ok("sleep 10")?;
    let again = Disk::linear(host, "moved", below, MEGABYTES)?;
    check::equal("the device's number", again.physical_device(host)?, number)
}

/// Takes the module out, which nobody may use, and loads it with these parameters: it takes every
/// disk that has no driver.
fn reload(host: &Host<'_>, parameters: &str) -> Result<()> {
    host.wait_unreferenced()?;
    host.ok(&format!(
        "rmmod {} && {} {parameters}",
        OURS.module(),
        OURS.load_command()
    ))
    .map(drop)
}

/// Does something to the disk while the guest verifies what it writes there. The guest must notice
/// nothing but a pause.
fn busy_while(guest: &Guest<'_, '_>, change: impl FnOnce() -> Result<()>) -> Result<()> {
    let vbd = guest.vbd("xvdb");
    let verify = Job::verified_writes("xvdb", "4k-128k", MEGABYTES)
        .depth(32)
        .repeat(guest)?;
    vbd.wait_requests(32)?;
    change()?;
    lives(guest.host, &vbd)?;
    let (_, report) = verify.stop()?;
    let whole = u64::from(MEGABYTES) << 20;
    check::equal("bytes verified", report.read.io_bytes, whole)?;
    check::equal("the error node", vbd.error()?, None)
}

/// It is never taken away, and its requests are answered again.
fn lives(host: &Host<'_>, vbd: &Vbd<'_, '_>) -> Result<()> {
    // Counting begins anew with each driver. A disk that is lost is not waited for.
    let served = host.run(&format!(
        "lab_until 60 'lab_rest 0.2; [[ $(xenstore-read {}) == [56] ]] || \
         (($(cat {1}/statistics/rd_req) + $(cat {1}/statistics/wr_req) >= 32))'",
        vbd.path("state"),
        vbd.sysfs()
    ))?;
    let error = vbd.error()?;
    let state = vbd.key("state")?;
    check::equal(
        &format!("the state (error {error:?})"),
        state.as_deref(),
        Some("4"),
    )?;
    check::that(served.status == 0, || {
        format!("no request was answered in 60 s of the host's clock (error {error:?})")
    })
}
