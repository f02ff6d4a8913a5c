// SPDX-License-Identifier: GPL-2.0

use std::time::Duration;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use serde_json::json;

use crate::admission::count_between;
use crate::check;
use crate::disk::Disk;
use crate::fio::Job;
use crate::guest::Guest;
use crate::host::Host;
use crate::results::Figures;
use crate::trace::Event;
use crate::trace::Source;
use crate::trace::Trace;
use crate::trace::times;
use crate::vbd::Vbd;

/// A change must have taken effect this long after dom0 received the watch.
const REACTION: u64 = 10_000_000;
const NS: u64 = 1_000_000_000;
const DEPTH: u64 = 32;

/// One change of the limit under load, and what has to come of it.
struct Change {
    what: &'static str,
    command: String,
    /// Requests per second from then on; `None` is unlimited.
    rate: Option<u64>,
    /// Tokens that may be there besides the refill.
    level: u64,
    /// Whether requests that waited must get through at once.
    frees: bool,
}

impl Change {
    /// How long it lasts, in tenths of a second: unlimited I/O is dear to emulate.
    fn tenths(&self) -> u32 {
        if self.rate.is_none() { 4 } else { 20 }
    }
}

/// The limit goes up, down, away and back by plain xenstore writes while a guest has 32 requests
/// waiting. Times are those at which dom0's kernel received the watch event and queued the bios.
pub fn live_change(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    let disk = Disk::blank(host, "nb0", 1024)?;
    let guest = host.guest("live").disk(&disk, "xvda").start()?;
    guest.wait_disk("xvda")?;
    let vbd = guest.vbd("xvda");
    let changes = schedule(&vbd);
    let events = record(host, &guest, &disk, &changes)?;
    let bios = times(&events, 0);
    let moments = moments(&events, &vbd, changes.len())?;
    let end = *bios.last().context("no request was traced")?;
    let before = count_between(&bios, moments[0] - NS / 2, moments[0]);
    check::within(
        "requests in the half second before the first limit",
        before,
        500..=u64::MAX,
    )?;
    for (i, change) in changes.iter().enumerate() {
        let until = moments.get(i + 1).copied().unwrap_or(end);
        let figure = judge(change, &bios, moments[i], until)
            .with_context(|| format!("after the change \"{}\"", change.what))?;
        figures.insert(change.what.into(), figure);
    }
    guest.destroy()?;
    disk.remove(host)
}

fn schedule(vbd: &Vbd<'_, '_>) -> Vec<Change> {
    let change = |what, command, rate, level, frees| Change {
        what,
        command,
        rate,
        level,
        frees,
    };
    let refill = vbd.path("tokens-refill");
    vec![
        change("none to 10/s", vbd.limit_command(10, 1), Some(10), 1, false),
        change(
            "10/s to 1000/s",
            vbd.limit_command(1000, 1),
            Some(1000),
            1,
            true,
        ),
        // No gift: the larger bucket starts with what the small one held.
        change(
            "1000/s to 50/s, bucket 1 to 1000",
            vbd.limit_command(50, 1000),
            Some(50),
            1,
            false,
        ),
        change(
            "junk as refill",
            format!("xenstore-write {refill} junk"),
            Some(50),
            1,
            false,
        ),
        change(
            "refill valid again",
            format!("xenstore-write {refill} 50"),
            Some(50),
            1,
            false,
        ),
        change("limit removed", vbd.unlimit_command(), None, DEPTH, true),
        // Off and on again mints no burst: a tenth of a second's worth at most.
        change(
            "none to 100/s, bucket 100000",
            vbd.limit_command(100, 100_000),
            Some(100),
            10,
            false,
        ),
        change(
            "refill 0",
            format!("xenstore-write {refill} 0"),
            None,
            DEPTH,
            true,
        ),
        change("none to 20/s", vbd.limit_command(20, 1), Some(20), 1, false),
    ]
}

/// Runs the whole schedule in one dom0 command.
fn record(
    host: &Host<'_>,
    guest: &Guest<'_, '_>,
    disk: &Disk,
    changes: &[Change],
) -> Result<Vec<Event>> {
    let dev_t = disk.dev_t(host)?;
    // A watch event is handled by the one thread of that name, which sleeps until there is one.
    let watch = Source {
        event: "sched/sched_waking",
        filter: Some("comm == \"xenwatch\"".into()),
    };
    let trace = Trace::start(host, &[Source::bios(dev_t), watch])?;
    host.ok(&format!("lab_gate {dev_t}"))?;
    let steps: Vec<String> = changes
        .iter()
        .map(|c| {
            format!(
                "{} && sleep {}.{}",
                c.command,
                c.tenths() / 10,
                c.tenths() % 10
            )
        })
        .collect();
    let script = host.start_command(&format!("lab_first_io; sleep 0.6; {}", steps.join(" && ")))?;
    let seconds = 2 + changes.iter().map(Change::tenths).sum::<u32>() / 10;
    let job = Job::random_reads("xvda", seconds)
        .depth(DEPTH as u32)
        .start(guest)?;
    script.ok_within(Duration::from_secs(400))?;
    let events = trace.stop()?;
    job.finish()?;
    Ok(events)
}

/// When dom0 learned of each change: the first watch event of each group.
fn moments(events: &[Event], vbd: &Vbd<'_, '_>, expected: usize) -> Result<Vec<u64>> {
    let mut moments: Vec<u64> = Vec::new();
    for time in times(events, 1) {
        if moments.last().is_none_or(|&last| time > last + NS / 5) {
            moments.push(time);
        }
    }
    if moments.len() != expected {
        bail!(
            "expected {expected} changes of {}, the trace has {}",
            vbd.path("tokens-*"),
            moments.len()
        );
    }
    Ok(moments)
}

fn judge(change: &Change, bios: &[u64], from: u64, to: u64) -> Result<serde_json::Value> {
    let next = bios
        .iter()
        .find(|&&t| t >= from)
        .map_or(u64::MAX, |&t| t - from);
    if change.frees {
        check::within("nanoseconds to the next request", next, 0..=REACTION)?;
    }
    let settled = from + REACTION;
    let window = to.saturating_sub(settled);
    let served = count_between(bios, settled, to);
    match change.rate {
        None => {
            let freed = count_between(bios, from, settled);
            check::within(
                "requests let through in the first 10 ms",
                freed,
                DEPTH..=u64::MAX,
            )?;
            check::within("requests after a limit's end", served, 300..=u64::MAX)?;
        }
        Some(rate) => {
            let due = (u128::from(rate) * u128::from(window) / u128::from(NS)) as u64;
            let least = (due - due / 200).saturating_sub(2);
            // What came in during the reaction time at the old rate is not counted here, but up to
            // 10 ms of lateness may be made up for.
            let most = due + due / 200 + change.level + rate / 100 + 1;
            check::within(
                "requests from 10 ms after the change to the next",
                served,
                least..=most,
            )?;
        }
    }
    Ok(json!({ "next_request_us": next / 1000, "served": served, "seconds": window as f64 / 1e9 }))
}
