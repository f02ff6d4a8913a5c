// SPDX-License-Identifier: GPL-2.0

use anyhow::Context;
use anyhow::Result;

use crate::admission::count_between;
use crate::admission::worst_excess;
use crate::check;
use crate::disk::Disk;
use crate::fio::Job;
use crate::forged::FIRST_VDEV;
use crate::forged::Forged;
use crate::guest::Guest;
use crate::host::Host;
use crate::results::Figures;
use crate::trace::Source;
use crate::trace::Trace;
use crate::trace::times;
use crate::vbd;
use crate::vbd::Vbd;

const VBDS: usize = 8;
const SECONDS: u64 = 6;
const NS: u64 = 1_000_000_000;
/// Of the guest, per second, and at once.
const CAP: (u64, u64) = (400, 40);

/// The disks of a guest share a cap that one of them carries, whatever their own limits; a ninth
/// that is plugged in does not escape it; the smallest of several caps counts; and when the disks
/// that carry one are gone, nothing of it is left to disks that come later, nor to a new domain
/// that gets the old one's number.
pub fn vm_cap(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    let disks = (0..=VBDS)
        .map(|i| Disk::blank(host, &format!("nb{i}"), 64))
        .collect::<Result<Vec<_>>>()?;
    let guest = host.guest("capped").start()?;
    let mut vbds = Vec::new();
    for (disk, name) in disks.iter().zip(names()).take(VBDS) {
        vbds.push(guest.attach(disk, &name)?);
    }
    // One is slower than its share, one has a limit out of reach.
    vbds[1].limit(20, 1)?;
    vbds[2].limit(1_000_000, 1000)?;
    cap(&vbds[5], 900, 1)?;
    cap(&vbds[3], CAP.0, CAP.1)?;
    vbds[0].wait_file("qos/vm_tokens_refill", &CAP.0.to_string())?;
    vbds[7].wait_file("qos/vm_tokens_max", &CAP.1.to_string())?;

    shared(host, &guest, &disks[..VBDS], figures).context("eight disks")?;
    let slow: u64 = vbds[1].number("statistics/rd_req")?;
    let most = 20 * (SECONDS + 2) + 2;
    check::within(
        "requests of the disk with a lower limit",
        slow,
        10 * SECONDS..=most,
    )?;
    vbds.push(guest.attach(&disks[VBDS], "xvdi")?);
    vbds[VBDS].wait_file("qos/vm_tokens_refill", &CAP.0.to_string())?;
    shared(host, &guest, &disks, figures).context("with a ninth disk")?;
    let throttled: u64 = vbds[0].number("qos/vm_throttled_usec")?;
    check::within(
        "microseconds that the cap held",
        throttled,
        1_000_000..=u64::MAX,
    )?;

    by_its_own_means(host, &guest).context("a guest that drops the disk with the cap")?;

    // The larger one remains, then none.
    vbds[3].remove("tokens-vm-refill")?;
    vbds[0].wait_file("qos/vm_tokens_refill", "900")?;
    for name in names().skip(1).take(VBDS) {
        guest.detach(&name)?;
    }
    vbds[0].wait_file("qos/vm_tokens_refill", "0")?;
    let again = guest.attach(&disks[5], "xvdf")?;
    check::equal(
        "the cap of a disk in the place of one that had it",
        again.text("qos/vm_tokens_refill")?.trim(),
        "0",
    )?;

    // Another domain with the same number, though this one's cap was never taken away.
    cap(&again, CAP.0, CAP.1)?;
    again.wait_file("qos/vm_tokens_refill", &CAP.0.to_string())?;
    guest.restore_by_number()?;
    for vbd in [&vbds[0], &again] {
        vbd.wait_state("4")?;
        check::equal(
            "the cap of a new domain with an old number",
            vbd.text("qos/vm_tokens_refill")?.trim(),
            "0",
        )?;
    }
    guest.destroy()?;
    disks.into_iter().try_for_each(|disk| disk.remove(host))?;
    beside_slow(host, figures).context("beside a slow disk")
}

/// A disk whose device takes its time, and has room for one request, does not use up the cap: the
/// guest's other disk gets the rest of it meanwhile.
fn beside_slow(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    let (refill, seconds) = (200, 6);
    let setting = "echo 2 >irqmode && echo 100000000 >completion_nsec && echo 1 >hw_queue_depth";
    let slow = Disk::memory_with(host, "slow", 64, setting)?;
    let quick = Disk::blank(host, "quick", 64)?;
    let guest = host
        .guest("uneven")
        .disk(&slow, "xvda")
        .disk(&quick, "xvdb")
        .start()?;
    for name in ["xvda", "xvdb"] {
        guest.wait_disk(name)?;
    }
    cap(&guest.vbd("xvda"), refill, 1)?;
    guest
        .vbd("xvdb")
        .wait_file("qos/vm_tokens_refill", &refill.to_string())?;
    let endless = Job::random_reads("xvda", 600).depth(32);
    endless.leave_running(&guest)?;
    guest.vbd("xvda").wait_requests(10)?;
    let report = Job::random_reads("xvdb", seconds).depth(8).run(&guest)?;
    // The slow one can use ten a second.
    let due = u64::from(seconds) * (refill - 10);
    figures.insert(
        "requests beside a slow disk".into(),
        report.read.total_ios.into(),
    );
    check::within(
        "requests beside a slow disk",
        report.read.total_ios,
        due * 95 / 100..=due + due / 10,
    )?;
    guest.destroy()?;
    slow.remove(host)?;
    quick.remove(host)
}

/// What a guest can write is its own directory. It pretends that the disk which carries the smallest
/// cap is gone, and stays under that cap all the same.
fn by_its_own_means(host: &Host<'_>, guest: &Guest<'_, '_>) -> Result<()> {
    let first = guest.vbd("xvda");
    let carrier = Forged::new(host, first.sibling(FIRST_VDEV));
    carrier.appear(vec![])?;
    carrier.vbd.wait_state("2")?;
    cap(&carrier.vbd, 50, 5)?;
    first.wait_file("qos/vm_tokens_refill", "50")?;
    for (state, answer) in [("0", "2"), ("6", "6"), ("0", "6"), ("1", "2")] {
        carrier.front("state", state)?;
        // A disk that is still there shows a limit; by then it has also seen the state.
        carrier.vbd.limit(1000, 10)?;
        carrier.vbd.unlimit()?;
        carrier.vbd.wait_state(answer)?;
        let refill = first.text("qos/vm_tokens_refill")?;
        check::equal("the cap", refill.trim(), "50")?;
    }
    // For the toolstack it goes, and so does the cap.
    carrier.remove()?;
    first.wait_file("qos/vm_tokens_refill", &CAP.0.to_string())
}

fn names() -> impl Iterator<Item = String> {
    (0..=VBDS as u32).map(vbd::name)
}

fn cap(vbd: &Vbd<'_, '_>, refill: u64, max: u64) -> Result<()> {
    vbd.write(&[
        ("tokens-vm-refill", &refill.to_string()),
        ("tokens-vm-max", &max.to_string()),
    ])
}

/// All disks at once get no more than the cap, and all of it.
fn shared(
    host: &Host<'_>,
    guest: &Guest<'_, '_>,
    disks: &[Disk],
    figures: &mut Figures,
) -> Result<()> {
    let devices = disks
        .iter()
        .map(|disk| disk.dev_t(host))
        .collect::<Result<Vec<_>>>()?;
    let trace = Trace::start(host, &[Source::bios_of(&devices)])?;
    let jobs: Vec<String> = names()
        .take(disks.len())
        .map(|name| format!("--name={name} --filename=/dev/{name}"))
        .collect();
    guest.ok_within(
        &format!(
            "fio --output=/dev/null --ioengine=libaio --direct=1 --thread --rw=randread --bs=4k \
             --norandommap --time_based --runtime={} --iodepth=8 {}",
            SECONDS + 1,
            jobs.join(" ")
        ),
        300,
    )?;
    let times = times(&trace.stop()?, 0);
    let first = *times.first().context("no request")?;
    let served = count_between(&times, first, first + SECONDS * NS);
    let (refill, max) = CAP;
    let excess = worst_excess(&times, refill).tokens;
    let bound = max as f64 + refill as f64 / 100.0 + 1.0;
    check::within("requests beyond the cap in any window", excess, 0.0..=bound)?;
    let due = SECONDS * refill;
    check::within(
        "requests of all disks",
        served,
        due - due / 200..=due + max + due / 200,
    )?;
    figures.insert(format!("requests of {} disks", disks.len()), served.into());
    figures.insert(format!("due to {} disks", disks.len()), due.into());
    Ok(())
}
