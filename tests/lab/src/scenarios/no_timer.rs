// SPDX-License-Identifier: GPL-2.0

use anyhow::Context;
use anyhow::Result;

use crate::check;
use crate::disk::Disk;
use crate::fio::Job;
use crate::guest::Guest;
use crate::host::Host;
use crate::results::Figures;
use crate::trace::Source;
use crate::trace::Trace;
use crate::trace::times;

/// The kernel's own tracepoint of every timer that is armed shows none of a disk's while a disk
/// without a limit is busy, nor while a limit is out of reach; and many once a limit makes requests
/// wait. The one slow round over all disks of the host is told apart by its callback.
pub fn no_timer(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    let disk = Disk::instant(host, "nb0", 256)?;
    let guest = host.guest("timer").disk(&disk, "xvda").start()?;
    guest.wait_disk("xvda")?;
    let vbd = guest.vbd("xvda");
    let unlimited = observe(host, &guest, &disk)?;
    check::within(
        "requests of the unlimited disk",
        unlimited.requests,
        500..=usize::MAX,
    )?;
    check::equal(
        "timers that the module armed for an unlimited disk",
        unlimited.timers,
        0,
    )?;
    check::within(
        "rounds over all disks while fio ran for 2 s",
        unlimited.rounds,
        0..=ROUNDS,
    )?;

    // Far above what the guest can reach: the bucket counts, but nobody waits.
    vbd.limit(1_000_000, 100_000)?;
    let unreached = observe(host, &guest, &disk)?;
    check::equal(
        "timers that the module armed for a limit out of reach",
        unreached.timers,
        0,
    )?;

    vbd.limit(200, 1)?;
    let limited = observe(host, &guest, &disk)?;
    check::within(
        "timers that the module armed at 200 tokens/s",
        limited.timers,
        50..=usize::MAX,
    )?;

    figures.insert("unlimited requests".into(), unlimited.requests.into());
    figures.insert("unlimited timers".into(), unlimited.timers.into());
    figures.insert("limited requests".into(), limited.requests.into());
    figures.insert("limited timers".into(), limited.timers.into());
    guest.destroy()?;
    disk.remove(host)
}

struct Seen {
    requests: usize,
    /// Those of disks.
    timers: usize,
    rounds: usize,
}

/// One in two seconds, and fio takes some to start and end.
const ROUNDS: usize = 4;

fn observe(host: &Host<'_>, guest: &Guest<'_, '_>, disk: &Disk) -> Result<Seen> {
    let round = round_callback(host)?;
    let timers = Source {
        event: "timer/hrtimer_start",
        filter: Some(format!("{} && function != {round}", in_module(host)?)),
    };
    let rounds = Source {
        event: "timer/hrtimer_expire_entry",
        filter: Some(format!("function == {round}")),
    };
    let bios = Source::bios(disk.dev_t(host)?);
    let trace = Trace::start(host, &[bios, timers, rounds])?;
    Job::random_reads("xvda", 2).depth(32).run(guest)?;
    let events = trace.stop()?;
    Ok(Seen {
        requests: times(&events, 0).len(),
        timers: times(&events, 1).len(),
        rounds: times(&events, 2).len(),
    })
}

/// The callback of the one timer that serves all disks (`src/sys/periodic.rs`): that of the generic
/// timer for the objects that are served.
fn round_callback(host: &Host<'_>) -> Result<String> {
    let line =
        host.ok("grep '7OneShot.*8periodic7Objects.*8callback' /proc/kallsyms | grep -v __pfx")?;
    let address = line.split(' ').next().unwrap_or_default();
    check::equal("callbacks of the round", line.lines().count(), 1)?;
    Ok(format!("0x{address}"))
}

/// A filter for timers whose callback lies in the module.
fn in_module(host: &Host<'_>) -> Result<String> {
    let line = host.ok("grep '^rblkback ' /proc/modules")?;
    let fields: Vec<&str> = line.split_whitespace().collect();
    let parse = |at: usize| {
        fields
            .get(at)
            .and_then(|f| u64::from_str_radix(f.trim_start_matches("0x"), 16).ok())
    };
    let size: u64 = fields
        .get(1)
        .and_then(|f| f.parse().ok())
        .context("no size in /proc/modules")?;
    let base = parse(5).context("no address in /proc/modules")?;
    Ok(format!(
        "function >= {base:#x} && function < {:#x}",
        base + size
    ))
}
