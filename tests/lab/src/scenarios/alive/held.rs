// SPDX-License-Identifier: GPL-2.0

//! Requests that the driver has consumed and the device does not have when their guest is suspended,
//! because they wait for other requests. Those are with a device mapper device that stands still: it
//! goes on while the guest is suspended, so that nothing but the suspension holds the others back.

use anyhow::Context;
use anyhow::Result;

use super::suspended::DEPTH;
use super::suspended::GOES_ON;
use super::suspended::changes;
use super::suspended::first;
use super::suspended::judge;
use super::suspended::ms;
use super::suspended::watch;
use crate::check;
use crate::disk::Disk;
use crate::fio::Job;
use crate::guest::Guest;
use crate::host::Host;
use crate::host::quote;
use crate::results::Figures;
use crate::shell::DEADLINE;
use crate::trace;
use crate::trace::Event;
use crate::trace::Source;
use crate::trace::Trace;

const MEGABYTES: u32 = 16;
/// The disks of the guest that wants more maps than Xen has.
const DISKS: [&str; 3] = ["xvdb", "xvdc", "xvdd"];

/// A write barrier waits for a write that is with the device. The write is answered while the guest is
/// suspended, and the barrier is sent when the guest runs again.
pub fn barrier(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    // With a write cache: no other device is offered with barriers.
    let below = Disk::memory_with(host, "nba", MEGABYTES, "echo 1 >cache_size")?;
    let disk = Disk::linear(host, "still", &below, MEGABYTES)?;
    let guest = host
        .guest("held")
        .disk(&disk, "xvda")
        .own_frontend()
        .start()?;
    let vbd = guest.vbd("xvda");
    let trace = start(host, &disk, &below)?;
    disk.suspend(host)?;
    let requests = guest.start("/frontend ordered")?;
    vbd.wait_file("statistics/wr_req", "1")?;
    // It is consumed, and counted.
    vbd.wait_file("statistics/f_req", "1")?;
    suspend(host, &guest, &disk)?;
    requests.ok_within(DEADLINE)?;
    let before = judge_held(host, &trace.stop()?, "barrier", figures)?;
    check::equal("requests sent before the suspension", before, 1)?;
    guest.destroy()?;
    disk.remove(host)?;
    below.remove(host)
}

/// Reads of three disks want more grants mapped at a time than Xen lets dom0 map, and more pages for
/// copies than a ring has: some of what is consumed waits for a map. The device answers the others
/// while the guest is suspended, and what waits is sent when the guest runs again.
pub fn map(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    let below = Disk::blank(host, "nba", MEGABYTES)?;
    let mut disk = Disk::linear(host, "still", &below, MEGABYTES)?;
    disk.attach_by_short_script(host)?;
    let guest = host.guest("held").start()?;
    for vdev in DISKS {
        guest.attach(&disk, vdev)?;
    }
    let reads = || {
        DISKS.iter().try_fold(0, |sum, vdev| {
            let reads: usize = guest.vbd(vdev).number("statistics/rd_req")?;
            Ok::<_, anyhow::Error>(sum + reads)
        })
    };
    let earlier = reads()?;
    let trace = start(host, &disk, &below)?;
    disk.suspend(host)?;
    // As large as requests of Linux are: 32 frames each, and a page that lists those.
    let read = |vdev: &&str| {
        Job::of(
            &format!("/dev/{vdev}"),
            "--rw=randread --norandommap --bs=128k --time_based --runtime=1",
        )
        .depth(DEPTH)
        .repeat(&guest)
    };
    let jobs = DISKS.iter().map(read).collect::<Result<Vec<_>>>()?;
    let all = DEPTH as usize * DISKS.len();
    guest.ok(&format!(
        "until [ $(cat /sys/block/xvd[bcd]/inflight | awk '{{ n += $1 }} END {{ print n }}') -ge {all} ]; do sleep 0.1; done"
    ))?;
    let counters: Vec<String> = DISKS
        .iter()
        .map(|vdev| quote(&format!("{}/statistics/rd_req", guest.vbd(vdev).sysfs())))
        .collect();
    let consumed = format!("cat {} | paste -sd+", counters.join(" "));
    let sent = "grep -c block_bio_queue: /sys/kernel/tracing/instances/lab/trace";
    host.ok(&format!(
        "lab_until 60 '(($({consumed}) - {earlier} > $({sent})))'"
    ))?;
    let consumed = reads()? - earlier;
    suspend(host, &guest, &disk)?;
    for job in jobs {
        check::equal("errors of reads", job.stop()?.1.error, 0)?;
    }
    let before = judge_held(host, &trace.stop()?, "read", figures)?;
    figures.insert(
        "reads consumed before the suspension".into(),
        consumed.into(),
    );
    figures.insert("of those, sent".into(), before.into());
    check::within("reads that waited for a map", consumed - before, 1..=all)?;
    guest.destroy()?;
    disk.remove(host)?;
    below.remove(host)
}

/// Records what is sent to the device that stands still, and what the one below it gets.
fn start<'h, 'l>(host: &'h Host<'l>, disk: &Disk, below: &Disk) -> Result<Trace<'h, 'l>> {
    let sent = Source::bios(disk.dev_t(host)?);
    Trace::start(host, &[sent, Source::issued(below.dev_t(host)?)])
}

/// Suspends the guest, lets the device go on, and lets the guest run again.
fn suspend(host: &Host<'_>, guest: &Guest<'_, '_>, disk: &Disk) -> Result<()> {
    watch(host, guest)?;
    let domid = guest.domid();
    host.ok(&format!("/lab/frontend suspend {domid}"))?;
    disk.resume(host)?;
    // The two seconds are what is looked at, not waited for.
    host.ok(&format!("sleep 2 && /lab/frontend resume {domid}"))
        .map(drop)
}

/// Nothing is sent while the guest is suspended, though the device goes on. Gives how much was sent
/// before.
fn judge_held(
    host: &Host<'_>,
    events: &[Event],
    what: &str,
    figures: &mut Figures,
) -> Result<usize> {
    let [shut, next] = changes(host)?;
    let sent = trace::times(events, 0);
    let answered = trace::times(events, 1)
        .into_iter()
        .filter(|time| (shut.at..next.before).contains(time))
        .count();
    figures.insert("answered meanwhile".into(), answered.into());
    check::within("requests answered meanwhile", answered, 1..=usize::MAX)?;
    judge("held", what, &sent, (shut, next), figures)?;
    let on = first(&sent, next.before).with_context(|| format!("no {what} after it"))?;
    let took = on.saturating_sub(next.before);
    figures.insert(format!("{what} goes on after ms"), ms(took));
    check::within("nanoseconds until it goes on", took, 0..=GOES_ON)?;
    Ok(sent.iter().filter(|time| **time < shut.before).count())
}
