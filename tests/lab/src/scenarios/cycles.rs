// SPDX-License-Identifier: GPL-2.0

use std::collections::BTreeMap;

use anyhow::Context;
use anyhow::Result;
use serde_json::json;

use crate::check;
use crate::disk::Disk;
use crate::fio::Job;
use crate::guest::Guest;
use crate::host::Host;
use crate::results::Figures;

const CYCLES: u64 = 100;
const KILLS: usize = 20;
/// Guests that live at the same time.
const TOGETHER: usize = 4;

type Counts = BTreeMap<String, i64>;

/// A second disk is attached, used and detached 100 times.
pub fn attach_detach(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    let disk = Disk::instant(host, "nb0", 64)?;
    let guest = host.guest("cycle").start()?;
    // The first time round, caches and the hotplug scripts' own files come into being.
    for _ in 0..3 {
        cycle(host, &guest, &disk)?;
    }
    let before = (counts(host)?, slabs(host)?);
    for number in 3..CYCLES {
        cycle(host, &guest, &disk).with_context(|| format!("cycle {number}"))?;
    }
    let after = (counts(host)?, slabs(host)?);
    check::equal("counts before and after", &after.0, &before.0)?;
    slabs_flat(&before.1, &after.1, CYCLES - 3)?;
    figures.insert("cycles".into(), CYCLES.into());
    figures.insert("counts".into(), json!(after.0));
    guest.destroy()?;
    disk.remove(host)
}

fn cycle(host: &Host<'_>, guest: &Guest<'_, '_>, disk: &Disk) -> Result<()> {
    guest.attach(disk, "xvdb")?;
    guest.ok("dd if=/dev/xvdb of=/dev/null bs=64k count=4 iflag=direct status=none")?;
    guest.detach("xvdb")?;
    host.store_wait(&guest.vbd("xvdb").path("state"), "absent")
        .map(drop)
}

/// Guests are destroyed in mid-I/O 20 times.
pub fn kills(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    let disks = (0..TOGETHER)
        .map(|i| Disk::instant(host, &format!("nb{i}"), 64))
        .collect::<Result<Vec<_>>>()?;
    kill_round(host, &disks)?;
    let before = (counts(host)?, slabs(host)?);
    for round in 1..KILLS / TOGETHER {
        kill_round(host, &disks).with_context(|| format!("round {round}"))?;
    }
    let after = (counts(host)?, slabs(host)?);
    check::equal("counts before and after", &after.0, &before.0)?;
    slabs_flat(&before.1, &after.1, (KILLS - TOGETHER) as u64)?;
    figures.insert("kills".into(), KILLS.into());
    figures.insert("counts".into(), json!(after.0));
    disks.into_iter().try_for_each(|disk| disk.remove(host))
}

fn kill_round(host: &Host<'_>, disks: &[Disk]) -> Result<()> {
    let guests = disks
        .iter()
        .map(|disk| host.guest("kill").disk(disk, "xvda").start())
        .collect::<Result<Vec<_>>>()?;
    for guest in &guests {
        guest.wait_disk("xvda")?;
        let _never_ends = Job::random_reads("xvda", 100_000)
            .depth(32)
            .with("--rw=randrw")
            .start(guest)?;
        guest
            .vbd("xvda")
            .wait_file("statistics/rd_req", "[1-9][0-9]{2,}")?;
    }
    for guest in guests {
        let state = guest.vbd("xvda").path("state");
        guest.destroy()?;
        host.store_wait(&state, "absent")?;
    }
    Ok(())
}

fn counts(host: &Host<'_>) -> Result<Counts> {
    let mut counts = pairs(&host.ok("lab_counts")?)?;
    counts.insert("module references".into(), host.references()? as i64);
    counts.insert("mapped grants".into(), mapped_grants(host)?);
    Ok(counts)
}

/// Grants that are mapped by anybody, as Xen itself counts them.
fn mapped_grants(host: &Host<'_>) -> Result<i64> {
    // The 'g' key prints each grant that is in use on a line of its own, with its reference and
    // frame; the guest's own ring pages of xenstore and console are among them, at all times.
    let text = host.ok("xl dmesg -c >/dev/null; xl debug-keys g && xl dmesg -c")?;
    check::contains(
        "Xen's grant table dump",
        &text,
        &["gnttab_usage_print_all ] done"],
    )?;
    Ok(text
        .lines()
        .filter(|line| line.contains("(XEN)") && line.contains("[0x"))
        .count() as i64)
}

fn slabs(host: &Host<'_>) -> Result<Counts> {
    pairs(&host.ok("lab_slabs")?)
}

/// No general-purpose cache may have grown by an object a cycle.
fn slabs_flat(before: &Counts, after: &Counts, cycles: u64) -> Result<()> {
    for (name, now) in after {
        let grown = now - before.get(name).copied().unwrap_or(0);
        check::within(
            &format!("objects more in slab cache {name} after {cycles} cycles"),
            grown,
            i64::MIN..=cycles as i64 - 1,
        )?;
    }
    Ok(())
}

fn pairs(text: &str) -> Result<Counts> {
    let parse = |line: &str| {
        let (name, count) = line.rsplit_once(' ')?;
        Some((name.to_string(), count.parse().ok()?))
    };
    text.lines()
        .map(|line| parse(line).with_context(|| format!("no count: {line:?}")))
        .collect()
}
