// SPDX-License-Identifier: GPL-2.0

//! What must not be done on a kernel whose spinlocks sleep (PREEMPT_RT).

use anyhow::Result;

use crate::check;
use crate::disk::Disk;
use crate::fio::Job;
use crate::guest::Guest;
use crate::host::Host;
use crate::lab::Backend;
use crate::results::Figures;

const EVENTS: u64 = 2_000;
const EVENT: &str = "events/lab/spinlock";

/// No spinlock is taken with preemption disabled. Where the lock is free nobody notices, where it
/// is not the processor hangs. A guest reads with a limit and without, one sends events for
/// nothing, their disks go and come back.
pub fn spinlocks(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    let disk = Disk::memory(host, "nb0", 64)?;
    let busy = host.guest("busy").disk(&disk, "xvda").start()?;
    busy.wait_disk("xvda")?;
    watch(host, "0")?;
    Job::some_reads("xvda", 4096, 1).run(&busy)?;
    check::within("spinlocks taken", calls(host)?.0, 1..=u64::MAX)?;

    // The upper half of the field says whether the task may change its processor.
    watch(host, "common_preempt_count & 15")?;
    be_busy(&busy)?;
    busy.destroy()?;
    let idle = host.guest("storm").disk(&disk, "xvda").own_frontend();
    let idle = idle.start()?;
    idle.ok(&format!("/frontend hold --events {EVENTS} </dev/null"))?;
    let vbd = idle.vbd("xvda");
    let delayed = vbd.number::<u64>("xenbus/jiffies_eoi_delayed")?;
    check::within("jiffies that events were held", delayed, 1..=u64::MAX)?;
    idle.destroy()?;
    let (count, first) = calls(host)?;
    figures.insert("with preemption disabled".into(), count.into());
    check::equal(
        "a spinlock taken with preemption disabled",
        first.as_str(),
        "",
    )?;
    disk.remove(host)
}

fn be_busy(guest: &Guest<'_, '_>) -> Result<()> {
    let vbd = guest.vbd("xvda");
    Job::random_reads("xvda", 1).depth(4).run(guest)?;
    vbd.limit(200, 10)?;
    Job::random_reads("xvda", 1).depth(4).run(guest)?;
    vbd.unbind(Backend::Rblkback)?;
    vbd.bind(Backend::Rblkback)?;
    Job::some_reads("xvda", 4096, 1).run(guest).map(drop)
}

/// Records the calls of the function that takes a spinlock which `filter` lets through; 0: all.
fn watch(host: &Host<'_>, filter: &str) -> Result<()> {
    host.ok(&format!(
        "cd /sys/kernel/tracing && echo p:lab/spinlock rt_spin_lock >kprobe_events && \
         echo '{filter}' >{EVENT}/filter && echo >trace && echo 1 >options/stacktrace && \
         echo 1 >{EVENT}/enable; cd /"
    ))
    .map(drop)
}

/// How many calls there were since [`watch`], and who made the first.
fn calls(host: &Host<'_>) -> Result<(u64, String)> {
    let text = host.ok(&format!(
        "cd /sys/kernel/tracing && echo 0 >{EVENT}/enable && echo 0 >options/stacktrace && \
         grep -c ': spinlock:' trace; grep -v '^#' trace | head -n 20; \
         echo >trace; echo >kprobe_events; cd /"
    ))?;
    let (count, first) = text.split_once('\n').unwrap_or((&text, ""));
    Ok((count.trim().parse()?, first.into()))
}
