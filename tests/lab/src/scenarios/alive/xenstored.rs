// SPDX-License-Identifier: GPL-2.0

//! The store does not answer, is exchanged under guests, or is gone for good.

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;

use crate::check;
use crate::disk::Disk;
use crate::fio::Job;
use crate::guest::Guest;
use crate::host::Host;
use crate::lab::Backend;
use crate::results::Figures;
use crate::vbd::Vbd;

/// The module is loaded while nobody answers at xenstored's end, as before that is started. It waits for
/// nobody, and serves disks when xenstored is there.
pub fn silent(host: &Host<'_>, _figures: &mut Figures) -> Result<()> {
    let module = Backend::Rblkback;
    host.wait_unreferenced()?;
    host.ok(&format!("rmmod {}", module.module()))?;
    host.ok(&format!(
        "kill -STOP $(cat /run/xenstored.pid) && {{ timeout 20 {} & }}; loader=$!; \
         lab_until 10 '[ ! -e /proc/'$loader' ]'; stuck=$?; \
         kill -CONT $(cat /run/xenstored.pid); wait $loader && [ $stuck = 0 ]",
        module.load_command()
    ))?;
    let disk = Disk::memory(host, "nb0", 16)?;
    let guest = host.guest("early").start()?;
    guest.attach(&disk, "xvdb")?;
    Job::verified_writes("xvdb", "4k-64k", 4)
        .depth(8)
        .run(&guest)?;
    guest.destroy()?;
    disk.remove(host)
}

/// Requests a second of the disk with a limit, in a bucket of one.
const REFILL: u64 = 200;
/// Seconds of dom0's clock for which is looked at who does what.
const SECONDS: u32 = 3;
/// Nanoseconds for which threads that have nothing to do may run in that time: a thousandth of it.
const IDLE: u64 = SECONDS as u64 * 1_000_000;

/// xenstored is killed, and with it goes all by which dom0 could speak to a guest, down to its console. What runs
/// is not concerned: a guest verifies what it writes, a limit holds, and nobody is kept busy by what is not there.
/// No disk can be attached any more.
pub fn killed(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    let verified = Disk::memory(host, "nba", 16)?;
    let limited = Disk::blank(host, "nbb", 16)?;
    let note = Disk::memory(host, "nbc", 1)?;
    let guest = host.guest("orphan").start()?;
    let busy = guest.attach(&verified, "xvdb")?;
    let held = guest.attach(&limited, "xvdc")?;
    guest.attach(&note, "xvdd")?;
    held.limit(REFILL, 1)?;
    // What is published each second must not wait for who is gone.
    held.write(&[("tokens-publish", "1")])?;
    work(&guest)?;
    busy.wait_requests(20)?;
    held.wait_requests(20)?;

    let daemon = "$(cat /run/xenstored.pid)";
    host.ok(&format!(
        "kill -KILL {daemon} && lab_gone /proc/{daemon} 10"
    ))?;
    let loaded = Look::of(host, &held)?;
    let rate = loaded.reads as f64 / loaded.seconds;
    figures.insert("reads a second under the limit".into(), rate.into());
    let most = REFILL as f64;
    check::within(
        "reads a second under the limit",
        rate,
        0.97 * most..=1.01 * most,
    )?;
    check::within(
        "nanoseconds that busy threads ran",
        loaded.ran,
        IDLE + 1..=u64::MAX,
    )?;
    let read = format!(
        "dd if={} bs=512 count=1 iflag=direct status=none | tr -d '\\0' | grep .",
        note.path
    );
    let said = host.ok_within(&format!("lab_until 120 \"{read}\""), 300)?;
    let runs: u64 = said.trim().parse().with_context(|| said.clone())?;
    figures.insert("times verified".into(), runs.into());
    check::within(
        "times that the guest has verified its disk",
        runs,
        2..=u64::MAX,
    )?;

    let attach = format!(
        "timeout 10 xl block-attach {} '{}'",
        guest.name,
        note.xl("xvde")
    );
    host.refused(&attach)?;
    host.refused("ls -d /sys/bus/xen-backend/devices/vbd-*-51776")?;
    let idle = Look::of(host, &held)?;
    figures.insert("nanoseconds that idle threads ran".into(), idle.ran.into());
    check::within("nanoseconds that idle threads ran", idle.ran, 0..=IDLE)?;
    host.abandon();
    Ok(())
}

/// Has the guest read the disk with the limit, and verify another one as long, and note on a third one how
/// often it has.
fn work(guest: &Guest<'_, '_>) -> Result<()> {
    let reads = Job::random_reads("xvdc", 2 * SECONDS).depth(8).command();
    let verify = Job::verified_writes("xvdb", "4k-64k", 4).depth(8).command();
    guest
        .ok(&format!(
            "{{ {{ {reads} & reads=$!; runs=0; while kill -0 $reads; do {verify} || {{ runs=failed; break; }}; \
             runs=$((runs + 1)); done; wait $reads || runs='no reads'; \
             printf %-512s \"$runs\" | dd of=/dev/xvdd bs=512 count=1 oflag=direct; }} & }} >/dev/null 2>&1"
        ))
        .map(drop)
}

/// What was done in some seconds of dom0's clock.
struct Look {
    seconds: f64,
    /// Nanoseconds for which threads of rings, of work items and of xenbus ran.
    ran: u64,
    /// Reads that the disk with the limit has answered.
    reads: u64,
}

impl Look {
    fn of(host: &Host<'_>, disk: &Vbd<'_, '_>) -> Result<Look> {
        let text = host.ok(&format!(
            "look() {{ local dir name run reads ran=0; for dir in /proc/[0-9]*; do \
               {{ read -r name <$dir/comm && [[ $name =~ ^([0-9]+\\.xvd|kworker|xenwatch|xenbus) ]] && \
               read -r run _ <$dir/schedstat && ran=$((ran + run)); }} 2>/dev/null; done; \
               read -r reads <{}/statistics/rd_req; lab_now; echo $NOW $ran $reads; }}; \
             look; lab_rest {SECONDS}; look",
            disk.sysfs()
        ))?;
        let numbers: Vec<u64> = text
            .split_whitespace()
            .map(str::parse)
            .collect::<Result<_, _>>()?;
        let [now, ran, reads, later, more_ran, more_reads] = numbers[..] else {
            bail!("no six numbers: {text}");
        };
        Ok(Look {
            seconds: (later - now) as f64 / 100.0,
            ran: more_ran - ran,
            reads: more_reads - reads,
        })
    }
}
