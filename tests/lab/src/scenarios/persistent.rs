// SPDX-License-Identifier: GPL-2.0

use anyhow::Context;
use anyhow::Result;

use super::cycles::mapped_grants;
use crate::check;
use crate::disk::Disk;
use crate::fio::Job;
use crate::guest::Guest;
use crate::host::Host;
use crate::results::Figures;

const CAP: i64 = 16;
const MEGABYTES: u32 = 4;

/// Grants of an idle guest stay mapped up to the bound, also when memory is short, and are given back
/// when nobody has used them for long enough and when the disk goes. What is read and written
/// through them is right throughout.
pub fn persistent(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    let disk = Disk::memory(host, "nb0", 64)?;
    let guest = host.guest("keeps").start()?;
    set(host, "max_persistent_grants", &CAP.to_string())?;
    // Never.
    set(host, "persistent_grant_unused_seconds", "0")?;
    // And the ring itself: one, because the guest has one processor, of one page, as Linux has
    // it unless it is told otherwise.
    let idle = mapped_grants(host)? + 1;
    guest.attach(&disk, "xvdb")?;
    let kept = |count| {
        host.ok(&format!("lab_grants_are {} 60", idle + count))
            .map(drop)
    };
    use_grants(&guest)?;
    kept(CAP).context("at the bound")?;

    // A larger one is for disks that are connected afterwards.
    set(host, "max_persistent_grants", "1056")?;
    guest.detach("xvdb")?;
    guest.attach(&disk, "xvdb")?;
    use_grants(&guest)?;
    let many = mapped_grants(host)? - idle;
    check::within("grants that stay mapped", many, CAP + 1..=1056)?;
    figures.insert("grants that stayed mapped".into(), many.into());
    // Whoever looks for memory asks the drivers, too, but a mapping holds none of dom0's. The ring
    // has seen that it was asked when it has served one more request.
    host.ok("echo 2 >/proc/sys/vm/drop_caches")?;
    guest.ok("dd if=/dev/xvdb of=/dev/null bs=4k count=1 iflag=direct status=none")?;
    check::within(
        "grants mapped while memory is short",
        mapped_grants(host)? - idle,
        many..=1056,
    )?;

    set(host, "persistent_grant_unused_seconds", "1")?;
    kept(0).context("not used for a second")?;

    use_grants(&guest)?;
    guest.detach("xvdb")?;
    set(host, "feature_persistent", "N")?;
    let vbd = guest.attach(&disk, "xvdb")?;
    check::equal(
        "feature-persistent",
        vbd.key("feature-persistent")?.as_deref(),
        Some("0"),
    )?;
    use_grants(&guest)?;
    kept(0).context("not offered")?;
    guest.destroy()?;
    for (name, usual) in [
        ("feature_persistent", "Y"),
        ("persistent_grant_unused_seconds", "60"),
    ] {
        set(host, name, usual)?;
    }
    disk.remove(host)
}

fn set(host: &Host<'_>, parameter: &str, value: &str) -> Result<()> {
    host.ok(&format!(
        "echo {value} >/sys/module/rblkback/parameters/{parameter}"
    ))
    .map(drop)
}

fn use_grants(guest: &Guest<'_, '_>) -> Result<()> {
    let report = Job::verified_writes("xvdb", "4k-44k", MEGABYTES)
        .depth(16)
        .run(guest)?;
    let whole = u64::from(MEGABYTES) << 20;
    check::equal("bytes verified", report.read.io_bytes, whole)
}
