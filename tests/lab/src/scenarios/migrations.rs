// SPDX-License-Identifier: GPL-2.0

//! The real `xl migrate`, for which a guest must not be PV: again and again, and refused.

use anyhow::Context;
use anyhow::Result;
use serde_json::json;

use crate::check;
use crate::disk::Disk;
use crate::fio::Job;
use crate::guest::Guest;
use crate::host::Host;
use crate::lab::Backend;
use crate::results::Figures;
use crate::trace;
use crate::trace::Source;
use crate::trace::Trace;

const MEGABYTES: u32 = 16;
/// Of so many migrations of each driver the pause is measured.
const MEASURED: u64 = 5;
/// A limit that the guest notices.
const REFILL: u64 = 300;
/// A receiver to which nothing comes any more after so many bytes, in the midst of the memory.
const CUT: &str = "head -c 30M | xl migrate-receive";

/// A guest is migrated while it does nothing, and then many times while it verifies what it writes;
/// the same, not as often, on xen-blkback. Figures: for how long the disk saw no request.
pub fn migrations(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    let other = match host.lab.backend {
        Backend::Rblkback => Backend::Blkback,
        Backend::Blkback => Backend::Rblkback,
    };
    let times = [
        (host.lab.backend, host.lab.repeats(2, 50, 2)),
        (other, host.lab.repeats(1, 10, 1)),
    ];
    for (backend, times) in times {
        if !host.loaded(backend)? {
            host.load(backend)?;
        }
        let pauses = on_backend(host, times).with_context(|| backend.driver())?;
        figures.insert(format!("{}: migrations", backend.driver()), times.into());
        figures.insert(format!("{}: pauses, ms", backend.driver()), json!(pauses));
    }
    host.load(host.lab.backend)
}

/// Milliseconds of the first pauses.
fn on_backend(host: &Host<'_>, times: u64) -> Result<Vec<u64>> {
    let disk = Disk::memory(host, "nb0", MEGABYTES)?;
    let guest = host.guest("moved").disk(&disk, "xvda").start()?;
    guest.wait_disk("xvda")?;
    guest.migrate().context("while it does nothing")?;
    guest.vbd("xvda").wait_state("4")?;
    let boot = guest.ok("cat /proc/sys/kernel/random/boot_id")?;
    let verify = Job::verified_writes("xvda", "4k-44k", MEGABYTES)
        .depth(8)
        .repeat(&guest)?;
    let mut pauses = Vec::new();
    for number in 0..times {
        guest.vbd("xvda").wait_requests(50)?;
        let pause = migrate(host, &guest, &disk, number < MEASURED);
        pauses.extend(pause.with_context(|| format!("migration {number}"))?);
    }
    let (_, report) = verify.stop()?;
    let bytes = u64::from(MEGABYTES) << 20;
    check::equal("bytes verified", report.read.io_bytes, bytes)?;
    check::equal(
        "the guest's boot",
        guest.ok("cat /proc/sys/kernel/random/boot_id")?,
        boot,
    )?;
    guest.destroy()?;
    disk.remove(host)?;
    Ok(pauses)
}

/// Migrates it in mid-I/O. If that is to be measured: the milliseconds between the last request that
/// the device got on the old side and the first one on the new side.
fn migrate(
    host: &Host<'_>,
    guest: &Guest<'_, '_>,
    disk: &Disk,
    measured: bool,
) -> Result<Option<u64>> {
    let trace = match measured {
        true => Some(Trace::start(host, &[Source::bios(disk.dev_t(host)?)])?),
        false => None,
    };
    guest.migrate()?;
    let vbd = guest.vbd("xvda");
    vbd.wait_state("4")?;
    vbd.wait_requests(1)?;
    check::equal("the error node", vbd.error()?, None)?;
    let Some(trace) = trace else { return Ok(None) };
    let events = trace.stop()?;
    let times = trace::times(&events, 0);
    let longest = times.windows(2).map(|pair| pair[1] - pair[0]).max();
    Ok(Some(longest.context("no request")? / 1_000_000))
}

/// The receiver gives up in the midst of the memory, and after all of it, when it cannot have the
/// disk. The guest goes on where it was, under the limit that it had, and its verify does not notice.
pub fn migrate_refused(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    let disk = Disk::memory(host, "nb0", MEGABYTES)?;
    let guest = host.guest("stays").disk(&disk, "xvda").start()?;
    guest.wait_disk("xvda")?;
    let vbd = guest.vbd("xvda");
    vbd.limit(REFILL, 1)?;
    let verify = Job::verified_writes("xvda", "4k-44k", MEGABYTES)
        .depth(32)
        .repeat(&guest)?;
    let diskless = format!("/run/{}.diskless.cfg", guest.name);
    host.ok(&format!(
        "sed 's,{},/dev/nowhere,' /run/{}.cfg >{diskless} && grep -q nowhere {diskless}",
        disk.path, guest.name
    ))?;
    let receivers = [
        ("cut", String::new(), CUT),
        (
            "without the disk",
            format!("-C {diskless}"),
            "xl migrate-receive",
        ),
    ];
    let rounds = host.lab.repeats(1, 10, 1);
    for round in 0..rounds {
        for (name, options, receiver) in &receivers {
            vbd.wait_requests(50)?;
            guest
                .migration_refused(options, receiver)
                .with_context(|| format!("{name}, round {round}"))?;
            let refill: u64 = vbd.number("qos/tokens_refill")?;
            check::equal("tokens_refill", refill, REFILL)?;
            vbd.wait_requests(50)?;
        }
    }
    figures.insert("migrations refused".into(), (2 * rounds).into());
    let (_, report) = verify.stop()?;
    let bytes = u64::from(MEGABYTES) << 20;
    check::equal("bytes verified", report.read.io_bytes, bytes)?;
    check::equal("the error node", vbd.error()?, None)?;
    guest.destroy()?;
    disk.remove(host)
}
