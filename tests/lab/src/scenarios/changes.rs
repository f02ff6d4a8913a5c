// SPDX-License-Identifier: GPL-2.0

use anyhow::Result;
use anyhow::bail;

use crate::check;
use crate::disk::Disk;
use crate::fio::Job;
use crate::host::Host;
use crate::results::Figures;
use crate::trace::Event;
use crate::trace::Source;
use crate::trace::Trace;

/// In a run of everything, at length, and on the debug kernel.
const CHANGES: [u64; 3] = [500, 10_000, 200];
const SEED: u64 = 4;
/// What one trace takes without losing anything.
const AT_ONCE: u64 = 500;
const NANO: i128 = 1_000_000_000;
const LATENESS: i128 = 10_000_000;

/// The limit changes at random under load: off, on, junk, tiny, huge, both keys at once and one by
/// one. sysfs shows each change; together no more is admitted than the limits allowed that were in
/// force one after the other; and the guest's requests go on.
pub fn random_changes(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    let [quick, full, debug] = CHANGES;
    let count = host.lab.repeats(quick, full, debug);
    let disk = Disk::blank(host, "nb0", 64)?;
    let guest = host.guest("changes").disk(&disk, "xvda").start()?;
    guest.wait_disk("xvda")?;
    let vbd = guest.vbd("xvda");
    let endless = Job::random_reads("xvda", 100_000).depth(32);
    endless.leave_running(&guest)?;
    let mut worst = i128::MIN;
    let mut admitted = 0;
    for number in 0..count.div_ceil(AT_ONCE) {
        let trace = Trace::start(
            host,
            &[
                Source::own("rblkback/rblkback_limit"),
                Source::own("rblkback/rblkback_admit"),
            ],
        )?;
        let some = AT_ONCE.min(count - number * AT_ONCE);
        host.ok_within(
            &format!(
                "/lab/frontend churn --keys {} --sysfs {} --count {some} --seed {}",
                vbd.path("").trim_end_matches('/'),
                vbd.sysfs(),
                SEED + number
            ),
            540,
        )?;
        let events = trace.stop()?;
        let replay = replay(&events)?;
        worst = worst.max(replay.worst);
        admitted += replay.admitted;
        // The next one begins without keys, too.
        host.ok(&format!("{}; true", vbd.unlimit_command()))?;
        vbd.wait_file("qos/state", "unlimited")?;
    }
    vbd.limit(500, 50)?;
    vbd.wait_requests(500)?;
    figures.insert("changes".into(), count.into());
    figures.insert("admitted".into(), admitted.into());
    figures.insert(
        "most tokens beyond the limits in force".into(),
        (worst as f64 / NANO as f64).into(),
    );
    guest.destroy()?;
    disk.remove(host)
}

/// What came of replaying a trace against the rules.
struct Replay {
    admitted: u64,
    /// The most that was ever admitted beyond what there was, in nano-tokens.
    worst: i128,
}

/// Keeps the largest bucket that the rules allow beside what was admitted.
fn replay(events: &[Event]) -> Result<Replay> {
    let mut limit: Option<(i128, i128)> = None;
    let mut level = 0;
    let mut last = 0;
    let mut replay = Replay {
        admitted: 0,
        worst: i128::MIN,
    };
    let mut changes = 0;
    for event in events {
        let now = i128::from(event.time);
        if let Some((refill, max)) = limit {
            level = (level + (now - last) * refill).min(max * NANO + LATENESS * refill);
        }
        last = now;
        if event.source == 0 {
            let (refill, max) = (i128::from(event.fields[1]), i128::from(event.fields[2]));
            level = match limit {
                // Whoever had no limit begins with a tenth of a second.
                None => (refill * NANO / 10).min(max * NANO),
                // No gift, and what is over spills.
                Some(_) => level.min(max * NANO + LATENESS * refill),
            };
            limit = (refill > 0).then_some((refill, max));
            changes += 1;
        } else if limit.is_some() {
            replay.admitted += u64::from(event.fields[1]);
            level -= i128::from(event.fields[1]) * NANO;
            replay.worst = replay.worst.max(-level);
        }
    }
    check::within("changes in the trace", changes, 10..=u64::MAX)?;
    if replay.worst > NANO {
        bail!(
            "{} tokens more than there were were admitted",
            replay.worst as f64 / NANO as f64
        );
    }
    Ok(replay)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(time: u64, refill: u32, max: u32) -> Event {
        Event {
            time,
            source: 0,
            fields: [51712, refill, max],
        }
    }

    fn admit(time: u64, requests: u32) -> Event {
        Event {
            time,
            source: 1,
            fields: [51712, requests, 0],
        }
    }

    #[test]
    fn a_gift_is_found() {
        let mut events: Vec<Event> = (0..20).map(|i| limit(i, 10, 5)).collect();
        events.push(admit(100, 1));
        assert!(replay(&events).is_ok());
        events.push(limit(200, 10, 100));
        events.push(admit(300, 100));
        assert!(replay(&events).is_err());
    }

    #[test]
    fn what_time_brings_is_no_gift() {
        let second = 1_000_000_000;
        let mut events: Vec<Event> = (0..20).map(|i| limit(i, 10, 50)).collect();
        events.push(admit(2 * second, 20));
        assert!(replay(&events).is_ok());
    }
}
