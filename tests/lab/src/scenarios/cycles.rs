// SPDX-License-Identifier: GPL-2.0

use std::collections::BTreeMap;

use anyhow::Context;
use anyhow::Result;
use serde_json::json;

use crate::check;
use crate::disk::Disk;
use crate::guest::Guest;
use crate::host::Host;
use crate::results::Figures;

/// In a run of everything, at length, and on the debug kernel, which finds leaks by itself.
const CYCLES: [u64; 3] = [30, 100, 20];
const KILL_ROUNDS: [u64; 3] = [1, 2, 1];
/// Of so many cycles one is with Debian's own hotplug script, which takes longer than all the rest.
const STOCK_SCRIPT: u64 = 10;
/// Guests that live at the same time: in a run of everything, and otherwise.
const TOGETHER: [u64; 2] = [2, 4];

/// Reads and writes of 1 MiB each, 24 requests at once: together they keep the ring full. Ends when
/// the disk goes.
pub(super) const ENDLESS: &str = "{ while dd if=/dev/xvda of=/dev/null bs=1M iflag=direct; do :; done & \
    while dd if=/dev/zero of=/dev/xvda bs=1M count=64 oflag=direct; do :; done & } >/dev/null 2>&1";

type Counts = BTreeMap<String, i64>;

/// A second disk is attached, used and detached many times.
pub fn attach_detach(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    let [quick, full, debug] = CYCLES;
    let total = host.lab.repeats(quick, full, debug).max(20);
    let stock = total / STOCK_SCRIPT;
    let mut disk = Disk::blank(host, "nb0", 64)?;
    let guest = host.guest("cycle").start()?;
    // The first times round, caches and the hotplug scripts' own files come into being.
    for number in 0..stock {
        cycle(host, &guest, &disk).with_context(|| format!("cycle {number}"))?;
    }
    disk.attach_by_short_script(host)?;
    let cycles = |count| {
        (0..count).try_for_each(|_| cycle(host, &guest, &disk))?;
        host.wait_unreferenced()
    };
    cycles(2)?;
    let half = (total - stock - 2) / 2;
    flat(host, half, figures, || cycles(half))?;
    figures.insert("cycles".into(), total.into());
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

/// Guests are destroyed in mid-I/O: a full ring of requests is under way on the device.
pub fn kills(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    // In each of the halves that are compared; one more comes before.
    let [quick, full, debug] = KILL_ROUNDS;
    let rounds = host.lab.repeats(quick, full, debug);
    let together = TOGETHER[usize::from(host.lab.at_length)];
    let mut disks = (0..together)
        .map(|i| Disk::slow(host, &format!("nb{i}"), 64))
        .collect::<Result<Vec<_>>>()?;
    for disk in &mut disks {
        disk.attach_by_short_script(host)?;
    }
    kill_round(host, &disks)?;
    flat(host, together * rounds, figures, || {
        (0..rounds).try_for_each(|_| kill_round(host, &disks))
    })?;
    figures.insert("kills".into(), (together * (1 + 2 * rounds)).into());
    disks.into_iter().try_for_each(|disk| disk.remove(host))
}

fn kill_round(host: &Host<'_>, disks: &[Disk]) -> Result<()> {
    let guests = disks
        .iter()
        .map(|disk| host.guest("kill").disk(disk, "xvda").start())
        .collect::<Result<Vec<_>>>()?;
    for guest in &guests {
        guest.wait_disk("xvda")?;
        guest.ok(ENDLESS)?;
        guest
            .vbd("xvda")
            .wait_file("statistics/rd_req", "[1-9][0-9]{2,}")?;
    }
    for guest in guests {
        let state = guest.vbd("xvda").path("state");
        guest.destroy()?;
        host.store_wait(&state, "absent")?;
    }
    host.wait_unreferenced()
}

/// Does `half` twice, each of them `cycles` cycles. What the backend has allocated must be the same
/// object for object. Of what others have allocated nothing may grow with every cycle of both
/// halves; that it grows a little is normal.
pub(super) fn flat(
    host: &Host<'_>,
    cycles: u64,
    figures: &mut Figures,
    mut half: impl FnMut() -> Result<()>,
) -> Result<()> {
    let before = (counts(host)?, allocations(host)?);
    half().context("first half")?;
    let middle = allocations(host)?;
    half().context("second half")?;
    let after = (counts(host)?, allocations(host)?);
    check::equal("counts before and after", &after.0, &before.0)?;
    let mut grown = Vec::new();
    for (by, now) in &after.1 {
        let earlier = |counts: &Counts| counts.get(by).copied().unwrap_or(0);
        let (first, second) = (
            earlier(&middle) - earlier(&before.1),
            now - earlier(&middle),
        );
        let leaks = if by.contains(OWN) {
            first + second > 0
        } else {
            first.min(second) >= cycles as i64
        };
        if leaks {
            grown.push(format!("{by}: {first}, then {second}"));
        }
    }
    let what = format!("allocations that grew over two times {cycles} cycles");
    check::equal(&what, grown, Vec::<String>::new())?;
    let own = |(by, _): &(&String, &i64)| by.contains(OWN);
    let own: Counts = after
        .1
        .iter()
        .filter(own)
        .map(|(by, n)| (by.clone(), *n))
        .collect();
    figures.insert("counts".into(), json!(after.0));
    figures.insert("the module's own objects".into(), json!(own));
    Ok(())
}

fn counts(host: &Host<'_>) -> Result<Counts> {
    let mut counts = pairs(&host.ok("lab_counts")?)?;
    counts.insert("mapped grants".into(), mapped_grants(host)?);
    Ok(counts)
}

/// Grants that are mapped by anybody, as Xen itself counts them.
pub fn mapped_grants(host: &Host<'_>) -> Result<i64> {
    Ok(host.ok("lab_grants")?.parse()?)
}

/// Marks what was allocated below a function of the backend.
const OWN: &str = "module:";

/// Live objects by cache and by who allocated them.
fn allocations(host: &Host<'_>) -> Result<Counts> {
    pairs(&host.ok(&format!("lab_allocations {}", host.lab.backend.module()))?)
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
