// SPDX-License-Identifier: GPL-2.0

//! `scripts/update-module` exchanges the module under guests that verify what they write.

use std::time::Duration;

use anyhow::Context;
use anyhow::Result;

use crate::check;
use crate::disk::Disk;
use crate::fio::Job;
use crate::fio::RepeatedJob;
use crate::guest::Guest;
use crate::host::Host;
use crate::lab::Backend;
use crate::results::Figures;
use crate::trace::Source;
use crate::trace::Trace;
use crate::trace::times;

const VERSION: &str = include_str!("../../../../VERSION");
/// What runs at first, and another build of it.
const FIRST: &str = "/lab/rblkback.ko";
const NEXT: &str = "/run/next.ko";
const NEXT_VERSION: &str = "9.9.9";
const MEGABYTES: u32 = 8;
const REFILL: u64 = 200;
/// Far more than what is refilled during an exchange: a bucket that came back full would show.
const MAX: u64 = 2000;
const EXCHANGES: usize = 4;
const DOMAINS: &str = "/sys/module/rblkback/parameters/domains";
const READ: &str = "dd if=/dev/xvdb of=/dev/null bs=4k count=1 iflag=direct status=none";

/// Two busy guests, one of them with a limit, and all that may be in the way of an exchange.
struct Guests<'h, 'l> {
    limited: Guest<'h, 'l>,
    free: Guest<'h, 'l>,
    disks: [Disk; 2],
}

impl<'h, 'l> Guests<'h, 'l> {
    fn start(host: &'h Host<'l>) -> Result<Self> {
        let disks = [
            Disk::memory(host, "nba", MEGABYTES)?,
            Disk::memory(host, "nbb", MEGABYTES)?,
        ];
        let (limited, free) = (host.guest("limited").start()?, host.guest("free").start()?);
        limited.attach(&disks[0], "xvdb")?.limit(REFILL, MAX)?;
        free.attach(&disks[1], "xvdb")?;
        // The same module as far as anybody can tell but by its version and its build id.
        another_build(host, "", NEXT)?;
        Ok(Guests {
            limited,
            free,
            disks,
        })
    }

    /// Both write and verify, again and again, and each has requests answered from now on.
    fn work(&self) -> Result<[RepeatedJob<'_, 'h, 'l>; 2]> {
        let job = Job::verified_writes("xvdb", "4k-44k", MEGABYTES).depth(16);
        Ok([job.repeat(&self.limited)?, job.repeat(&self.free)?])
    }

    /// Both are on rblkback, and their requests are answered.
    fn are_served(&self) -> Result<()> {
        for guest in [&self.limited, &self.free] {
            let vbd = guest.vbd("xvdb");
            check::equal(
                "the driver",
                vbd.driver()?.as_str(),
                Backend::Rblkback.driver(),
            )?;
            check::equal("the state", vbd.key("state")?.as_deref(), Some("4"))?;
            vbd.wait_requests(16)?;
            check::equal("the error node", vbd.error()?, None)?;
        }
        Ok(())
    }

    fn end(self, host: &Host<'_>) -> Result<()> {
        self.limited.destroy()?;
        self.free.destroy()?;
        self.disks
            .into_iter()
            .try_for_each(|disk| disk.remove(host))?;
        host.wait_unreferenced()?;
        host.ok(&format!(
            "rmmod rblkback && {}",
            Backend::Rblkback.load_command()
        ))
        .map(drop)
    }
}

/// Nothing was lost on either disk.
fn verified(jobs: [RepeatedJob<'_, '_, '_>; 2], figures: &mut Figures) -> Result<()> {
    for (name, job) in ["limited", "free"].into_iter().zip(jobs) {
        let (runs, report) = job.stop().with_context(|| name)?;
        let bytes = u64::from(MEGABYTES) << 20;
        check::equal("bytes verified", report.read.io_bytes, bytes).with_context(|| name)?;
        figures.insert(format!("verifies, {name}"), runs.into());
    }
    Ok(())
}

/// Makes a module of another version and build id of the first one, after a further edit in Perl's words.
pub(super) fn another_build(host: &Host<'_>, edit: &str, to: &str) -> Result<()> {
    let version = VERSION.trim_end();
    host.ok(&format!(
        r#"perl -0777 -pe 's/\0version=\K\Q{version}\E(?=\0)/{NEXT_VERSION}/ or die;
        s/\x14\0\0\0\x03\0\0\0GNU\0\K.{{20}}/"x" x 20/se or die; {edit}' {FIRST} >{to}"#
    ))
    .map(drop)
}

/// Runs the script. Gives what it said; it must end with `status`.
fn update(host: &Host<'_>, arguments: &str, status: i32) -> Result<String> {
    let command = format!("/lab/update-module {arguments}");
    let output = host
        .start_command(&command)?
        .finish_within(Duration::from_secs(420))?;
    check::equal(
        &format!("the status of `{command}`, which said {:?}", output.text),
        output.status,
        status,
    )?;
    Ok(output.text)
}

fn runs(host: &Host<'_>, version: &str) -> Result<()> {
    let seen = host.ok("cat /sys/module/rblkback/version")?;
    check::equal("the version that runs", seen.as_str(), version)
}

/// The module is exchanged and exchanged back under two busy guests. Parameters stay as they were set, the
/// limit is kept over all of it, and what presses a key at the wrong moment changes nothing.
pub fn update_module(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    let guests = Guests::start(host)?;
    let parameter = "/sys/module/rblkback/parameters/persistent_grant_unused_seconds";
    host.ok(&format!("modprobe xen-blkback && echo 61 >{parameter}"))?;
    let jobs = guests.work()?;
    let bios = Source::bios(guests.disks[0].dev_t(host)?);
    guests.are_served()?;
    let trace = Trace::start(host, &[bios])?;
    let (level, began) = level(host, &guests.limited)?;
    for (number, (from, to)) in [(FIRST, NEXT), (NEXT, FIRST)]
        .into_iter()
        .cycle()
        .take(EXCHANGES)
        .enumerate()
    {
        // As of the third time the guests' disks would not be taken by themselves.
        let list = if number < 2 { "" } else { "another guest,x" };
        host.ok(&format!("echo '{list}' >{DOMAINS}"))?;
        let said = if number == 1 {
            interrupted(host, &format!("--to {to} --back {from}"))?
        } else {
            update(host, &format!("--to {to} --back {from}"), 0)?
        };
        check::equal("domains", host.ok(&format!("cat {DOMAINS}"))?, list)?;
        for guest in [&guests.limited, &guests.free] {
            let line = format!("{}: its guest waited for ", guest.vbd("xvdb").device());
            check::contains("what is said", &said, &[&line])?;
        }
        figures.insert(format!("exchange {number}"), said.into());
        let version = if to == NEXT {
            NEXT_VERSION
        } else {
            VERSION.trim_end()
        };
        runs(host, version)?;
        guests.are_served()?;
        check::equal(parameter, host.ok(&format!("cat {parameter}"))?, "61")?;
        is_first(host)?;
    }
    let times = times(&trace.stop()?, 0);
    verified(jobs, figures)?;
    let most = beyond_refill(&times, began);
    // A twentieth of a second of lateness, and of what the two clocks differ.
    let bound = level as f64 + REFILL as f64 / 20.0;
    check::within("requests beyond refill * T", most, 0.0..=bound)?;
    figures.insert(
        "tokens before, requests beyond".into(),
        format!("{level}, {most}").into(),
    );
    host.ok("rmmod xen_blkback")?;
    guests.end(host)
}

/// The tokens in the bucket of the guest's disk, and when it had so many: nanoseconds of CLOCK_MONOTONIC.
fn level(host: &Host<'_>, guest: &Guest<'_, '_>) -> Result<(i64, u64)> {
    let file = format!("{}/qos/tokens", guest.vbd("xvdb").sysfs());
    let text = host.ok(&format!("cat {file}; lab_now; echo $NOW"))?;
    let (level, hundredths) = text.split_once('\n').context("no level and no time")?;
    Ok((
        level.trim().parse()?,
        hundredths.trim().parse::<u64>()? * 10_000_000,
    ))
}

/// The most requests that there were from `began` on to any moment, beyond what was refilled by then.
fn beyond_refill(times: &[u64], began: u64) -> f64 {
    let since = times.iter().filter(|&&time| time >= began);
    let beyond = |(index, &time): (usize, &u64)| {
        (index + 1) as f64 - REFILL as f64 * (time - began) as f64 / 1e9
    };
    since.enumerate().map(beyond).fold(0.0, f64::max)
}

/// The same while somebody closes the window, and so on.
fn interrupted(host: &Host<'_>, arguments: &str) -> Result<String> {
    host.ok(&format!(
        "/lab/update-module {arguments} & update=$!
        until [ -e /run/modprobe.d/rblkback-update.conf ]; do
            kill -0 $update || exit 1; lab_pause
        done
        sent=0
        while kill -HUP $update && kill -INT $update && kill -TERM $update; do
            ((++sent)); lab_pause
        done 2>/dev/null
        wait $update && ((sent > 0))"
    ))
    .context("with signals")
}

/// rblkback was loaded before xen-blkback: new disks go to it.
fn is_first(host: &Host<'_>) -> Result<()> {
    let order = host.ok("grep -oE '^(rblkback|xen_blkback) ' /proc/modules | xargs")?;
    check::equal(
        "the newest module first",
        order.as_str(),
        "xen_blkback rblkback",
    )
}

/// What cannot be loaded is refused, or the old module is back, and guests go on.
pub fn update_fails(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    let guests = Guests::start(host)?;
    let jobs = guests.work()?;
    refusals(host, &guests)?;
    update(host, &format!("--keep {FIRST}"), 0)?;

    another_build(
        host,
        "s/xenbus_dev_error/xenbus_dev_errox/g or die",
        "/run/odd.ko",
    )?;
    let said = update(host, "--to /run/odd.ko", 2).context("a module that does not load")?;
    check::contains("what is said", &said, &["cannot be loaded", "old module"])?;
    runs(host, VERSION.trim_end())?;
    guests.are_served()?;

    another_build(
        host,
        "s/event-channel\\0/evenx-channel\\0/g or die",
        "/run/odd.ko",
    )?;
    let said = update(host, "--to /run/odd.ko --seconds 5", 2).context("one that serves none")?;
    check::contains("what is said", &said, &["not served within", "old module"])?;
    runs(host, VERSION.trim_end())?;
    guests.are_served()?;

    no_answer(host, &guests)?;
    guests.are_served()?;
    verified(jobs, figures)?;
    guests.end(host)
}

/// Nothing is touched: what runs is the same module, which nobody has unbound from a disk.
fn refusals(host: &Host<'_>, guests: &Guests<'_, '_>) -> Result<()> {
    let refused = |arguments: &str, why: &str| -> Result<()> {
        let said = update(host, arguments, 1)?;
        check::contains("why it is refused", &said, &[why])
    };
    host.ok(&format!("head -c 200000 {FIRST} >/run/odd.ko"))?;
    refused(
        &format!("--to /run/odd.ko --back {FIRST}"),
        "is no rblkback module",
    )?;
    another_build(host, "s/vermagic=\\K[0-9]/9/ or die", "/run/odd.ko")?;
    refused(
        &format!("--to /run/odd.ko --back {FIRST}"),
        "is for kernel 9",
    )?;
    refused(
        &format!("--to {NEXT} --back {NEXT}"),
        "there is no way back",
    )?;
    refused(&format!("--to {NEXT}"), "there is no way back")?;
    let vbd = guests.free.vbd("xvdb");
    vbd.write(&[("online", "0")])?;
    refused(&format!("--to {NEXT} --back {FIRST}"), "is being detached")?;
    vbd.write(&[("online", "1")])?;
    guests.are_served()?;
    let said = update(host, &format!("--to {FIRST}"), 0)?;
    check::contains("what is said", &said, &["nothing to do"])
}

/// A device keeps its requests: the other disks are served again at once, and that one when it answers.
fn no_answer(host: &Host<'_>, guests: &Guests<'_, '_>) -> Result<()> {
    let below = Disk::memory(host, "nbc", MEGABYTES)?;
    let disk = Disk::linear(host, "stuck", &below, MEGABYTES)?;
    let guest = host.guest("stuck").start()?;
    let vbd = guest.attach(&disk, "xvdb")?;
    // With a limit, whatever was let through to the device is counted.
    vbd.limit(1000, 1000)?;
    disk.suspend(host)?;
    let before: u64 = vbd.number("qos/io_count")?;
    let read = guest.start(READ)?;
    host.ok(&format!(
        "lab_until 30 '(($(<{}/qos/io_count) > {before}))'",
        vbd.sysfs()
    ))?;
    let said = update(host, &format!("--to {NEXT} --seconds 2"), 3)?;
    let line = format!("{}: no answer from its device for 2 s", vbd.device());
    check::contains("what is said", &said, &[&line])?;
    runs(host, VERSION.trim_end())?;
    guests.are_served()?;
    disk.resume(host)?;
    read.ok_within(Duration::from_secs(120))?;
    host.ok(&format!(
        "lab_until 30 '[ -e /sys/bus/xen-backend/drivers/rblkback/{} ]'",
        vbd.device()
    ))?;
    vbd.wait_state("4")?;
    guest.ok(READ)?;
    guest.destroy()?;
    disk.remove(host)?;
    below.remove(host)
}
