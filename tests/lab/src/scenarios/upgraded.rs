// SPDX-License-Identifier: GPL-2.0

//! What packages do while guests run, in a Debian as its package manager leaves it (tests/debian): the first
//! installation, and the next version.

use anyhow::Context;
use anyhow::Result;

use super::installed::apt;
use super::installed::offer;
use super::ordinary::DEADLINE;
use crate::check;
use crate::fio::Job;
use crate::fio::RepeatedJob;
use crate::guest::Guest;
use crate::host::Host;
use crate::host::quote;
use crate::lab::Backend;
use crate::results::Figures;

const VERSION: &str = include_str!("../../../../VERSION");
/// As the Makefile has it, of `build/deb-next`.
const NEXT: &str = "+next";
const MEGABYTES: u32 = 8;
const LIMIT: &str = "refill=100/max=20";
/// In 4 s, of what flows into that bucket and was in it.
const REQUESTS: std::ops::RangeInclusive<u64> = 390..=432;
const ODD: &str = "/root/odd.ko";

/// A running guest is taken over after `apt install` by one command, and runs on while `apt` brings the next version,
/// while `rblkback-update` exchanges the module for it, and while it tries one that does not load. Its data is
/// as it was written, and the limit of its neighbour holds under each of these.
pub fn upgraded(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    offer(host, "deb")?;
    let free = guest(host, "free", "backendtype=phy,target=")?;
    let job = Job::verified_writes("xvda", "4k-44k", MEGABYTES).depth(16);
    let work = job.repeat(&free)?;
    is_served(&free, Backend::Blkback)?;
    apt(host, "install rblkback rblkback-modules-$(uname -r)")?;
    is_served(&free, Backend::Blkback).context("nobody asked for a takeover")?;
    says(
        host,
        "rblkback-take free",
        0,
        "its guest waited for",
        figures,
    )?;
    is_served(&free, Backend::Rblkback)?;
    // xen-blkback serves nothing any more; new disks are to be rblkback's.
    host.ok("rmmod xen_blkback")?;
    let script = format!("script=block-tokens,target={LIMIT}:");
    let limited = guest(host, "limited", &script)?;
    is_limited(&limited)?;

    offer(host, "deb-next")?;
    let before = VERSION.trim_end();
    let next = format!("{before}{NEXT}");
    apt(host, "install rblkback rblkback-modules-$(uname -r)")?;
    runs(host, before)?;
    says(host, "rblkback-check", 1, &next, figures)?;
    let held = job.repeat(&limited)?;
    is_served(&limited, Backend::Rblkback)?;
    says(host, "rblkback-update", 0, "its guest waited for", figures)?;
    runs(host, &next)?;
    says(
        host,
        "rblkback-check",
        0,
        "every kernel has rblkback",
        figures,
    )?;

    host.ok(&format!(
        "perl -0777 -pe 's/xenbus_dev_error/xenbus_dev_errox/g or die; \
         s/\\x14\\0\\0\\0\\x03\\0\\0\\0GNU\\0\\K.{{20}}/\"x\" x 20/se or die' $(modinfo -n rblkback) >{ODD}"
    ))?;
    let update = format!("rblkback-update --to {ODD}");
    says(host, &update, 2, "old module", figures).context("a module that does not load")?;
    runs(host, &next)?;
    for guest in [&free, &limited] {
        is_served(guest, Backend::Rblkback).with_context(|| guest.name.clone())?;
    }
    verified(held, figures).context("limited")?;
    verified(work, figures).context("free")?;
    is_limited(&limited).context("after all")?;
    free.destroy()?;
    limited.destroy()?;
    host.power_off("systemctl poweroff", DEADLINE).map(drop)
}

/// A guest whose disk is a file.
fn guest<'h, 'l>(host: &'h Host<'l>, name: &str, how: &str) -> Result<Guest<'h, 'l>> {
    let image = format!("/srv/{name}.img");
    host.ok(&format!("truncate -s 64M {image}"))?;
    let guest = host
        .guest_named(name)
        .disk_line(&format!("vdev=xvda,format=raw,access=rw,{how}{image}"))
        .start()?;
    guest.wait_disk("xvda")?;
    Ok(guest)
}

/// The disk is that driver's, and its guest's requests are answered.
fn is_served(guest: &Guest<'_, '_>, by: Backend) -> Result<()> {
    let vbd = guest.vbd("xvda");
    check::equal("the driver", vbd.driver()?.as_str(), by.driver())?;
    vbd.wait_state("4")?;
    vbd.wait_requests(16)
}

fn is_limited(guest: &Guest<'_, '_>) -> Result<()> {
    let driver = guest.vbd("xvda").driver()?;
    check::equal("the driver", driver.as_str(), Backend::Rblkback.driver())?;
    let report = Job::random_reads("xvda", 4).depth(8).run(guest)?;
    check::within("requests in 4 s", report.read.total_ios, REQUESTS)
}

fn runs(host: &Host<'_>, version: &str) -> Result<()> {
    let seen = host.ok("cat /sys/module/rblkback/version")?;
    check::equal("the version that runs", seen.as_str(), version)
}

/// A command that ends with `status` and says `words`.
fn says(
    host: &Host<'_>,
    command: &str,
    status: i32,
    words: &str,
    figures: &mut Figures,
) -> Result<()> {
    let output = host.start_command(command)?.finish_within(DEADLINE)?;
    let what = format!("`{command}`, which said {}", quote(&output.text));
    check::equal(&format!("the status of {what}"), output.status, status)?;
    check::contains(&what, &output.text, &[words])?;
    figures.insert(command.into(), output.text.into());
    Ok(())
}

fn verified(job: RepeatedJob<'_, '_, '_>, figures: &mut Figures) -> Result<()> {
    let (runs, report) = job.stop()?;
    let bytes = u64::from(MEGABYTES) << 20;
    check::equal("bytes verified", report.read.io_bytes, bytes)?;
    figures.insert(format!("verifies of {bytes} bytes"), runs.into());
    Ok(())
}
