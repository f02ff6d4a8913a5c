// SPDX-License-Identifier: GPL-2.0

use anyhow::Context;
use anyhow::Result;

use crate::check;
use crate::disk::Disk;
use crate::fio::Job;
use crate::guest::Guest;
use crate::host::Host;
use crate::results::Figures;

/// Requests that fit a ring of one page.
const RING: u64 = 32;
/// libxl gives up on a device after this much; staying far below it is what "normal" means.
const LIBXL_TIMEOUT_MS: u64 = 10_000;

/// With a limit of 1 token/s and the ring full, `xl block-detach` and `xl destroy` take no longer
/// than they do for the same disk without a limit. Times are of dom0's own clock.
pub fn throttled_end(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    let disks = ["nba", "nbb", "nbc"].map(|name| Disk::blank(host, name, 256));
    let [disk_a, disk_b, disk_c] = disks;
    let (disk_a, disk_b, disk_c) = (disk_a?, disk_b?, disk_c?);
    let guest = host.guest("end").disk(&disk_a, "xvda").start()?;
    guest.wait_disk("xvda")?;
    guest.attach(&disk_b, "xvdb")?;
    guest.attach(&disk_c, "xvdc")?;

    run_free(&guest, "xvdb")?;
    let free_detach = detach(host, &guest, "xvdb")?;
    fill_ring(host, &guest, "xvdc")?;
    let throttled_detach = detach(host, &guest, "xvdc")?;
    run_free(&guest, "xvda")?;
    let free_destroy = destroy(host, guest)?;

    let guest = host.guest("end").disk(&disk_a, "xvda").start()?;
    guest.wait_disk("xvda")?;
    fill_ring(host, &guest, "xvda")?;
    let throttled_destroy = destroy(host, guest)?;

    for (what, free, throttled) in [
        ("block-detach", free_detach, throttled_detach),
        ("destroy", free_destroy, throttled_destroy),
    ] {
        figures.insert(format!("xl {what} ms, unlimited"), free.into());
        figures.insert(format!("xl {what} ms, throttled"), throttled.into());
        let most = (2 * free + 1000).min(LIBXL_TIMEOUT_MS - 1000);
        check::within(
            &format!("milliseconds for xl {what} at 1 token/s ({free} without a limit)"),
            throttled,
            0..=most,
        )?;
    }
    [disk_a, disk_b, disk_c]
        .into_iter()
        .try_for_each(|disk| disk.remove(host))
}

/// `xl block-detach` of a disk; gives the milliseconds that took.
fn detach(host: &Host<'_>, guest: &Guest<'_, '_>, vdev: &str) -> Result<u64> {
    let took = host.timed(&format!("xl block-detach {} {vdev}", guest.name))?;
    host.ok(&format!("lab_gone {} 10", guest.vbd(vdev).sysfs()))
        .context("the backend's device after xl block-detach")?;
    Ok(took)
}

/// `xl destroy` of a guest; gives the milliseconds that took.
fn destroy(host: &Host<'_>, guest: Guest<'_, '_>) -> Result<u64> {
    let took = host.timed(&format!("xl destroy {}", guest.name))?;
    host.store_wait(&guest.vbd("xvda").path("state"), "absent")?;
    guest.gone()?;
    Ok(took)
}

/// Random reads without a limit, killed in the midst.
fn run_free(guest: &Guest<'_, '_>, vdev: &str) -> Result<()> {
    guest.ok(&format!(
        "{} >/dev/null 2>&1 & sleep 0.7; kill -9 $!; wait",
        endless(vdev)
    ))?;
    check::within(
        "requests before the end",
        guest.vbd(vdev).number("statistics/rd_req")?,
        300..=u64::MAX,
    )
}

/// Random reads at 1 token/s, killed in the midst: the requests stay on the ring.
fn fill_ring(host: &Host<'_>, guest: &Guest<'_, '_>, vdev: &str) -> Result<()> {
    let vbd = guest.vbd(vdev);
    vbd.limit(1, 1)?;
    guest.ok(&format!(
        "{} >/dev/null 2>&1 & sleep 3; kill -9 $!",
        endless(vdev)
    ))?;
    let waiting = guest.ok(&format!(
        "awk '{{ print $1 + $2 }}' /sys/block/{vdev}/inflight"
    ))?;
    check::within(
        "requests in flight in the guest",
        waiting.parse()?,
        RING - 2..=RING,
    )?;
    check::equal(
        "qos/state",
        host.ok(&format!("cat {}/qos/state", vbd.sysfs()))?.as_str(),
        "throttled",
    )
}

fn endless(vdev: &str) -> String {
    Job::random_reads(vdev, 100_000)
        .depth(RING as u32)
        .command()
}
