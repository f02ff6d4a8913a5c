// SPDX-License-Identifier: GPL-2.0

//! What a stretch of work costs the two domains: read before and after, with nothing running in
//! dom0 meanwhile. What reading costs, and what passes the consoles, is measured by a stretch of
//! nothing and taken off.

use std::collections::BTreeMap;

use anyhow::Context;
use anyhow::Result;

use super::record;
use crate::guest::Guest;
use crate::host::Host;

/// Sums of a kernel's counters, one "name number" a line. Interrupts have a column for each
/// processor.
const COUNT: &str = "awk '$1 == \"ctxt\" || $1 == \"intr\" { print $1, $2 } \
     / (blkif|blkif-backend|rblkback)$/ { for (i = 2; $i ~ /^[0-9]+$/; i++) events += $i } \
     END { print \"events\", events + 0 }' /proc/stat /proc/interrupts";

/// Where xentrace writes to.
const TRACE: &str = "/run/bench.trace";
/// The classes of scheduling, for who runs, and of a PV guest's entries, hypercalls among them.
const TRACED: &str = "0x0022f000";

/// Counters by name.
type Counts = BTreeMap<String, f64>;

/// Two domains to look at; without a guest, dom0 alone.
pub struct Observed<'a, 'h, 'l> {
    pub host: &'h Host<'l>,
    pub guest: Option<&'a Guest<'h, 'l>>,
}

impl Observed<'_, '_, '_> {
    /// What `work` costs more than nothing, in all.
    pub fn cost(&self, work: &mut dyn FnMut(bool) -> Result<()>) -> Result<Counts> {
        let nothing = self.window(&mut || work(false))?;
        let all = self.window(&mut || work(true))?;
        Ok(difference(&all, &nothing))
    }

    /// The same of hypercalls, by xentrace. It disturbs, so nothing else is measured meanwhile.
    pub fn hypercalls(&self, work: &mut dyn FnMut(bool) -> Result<()>) -> Result<Counts> {
        let nothing = self.traced(&mut || work(false))?;
        let all = self.traced(&mut || work(true))?;
        Ok(difference(&all, &nothing))
    }

    fn window(&self, work: &mut dyn FnMut() -> Result<()>) -> Result<Counts> {
        // The times are read last before, and first after.
        let mut before = self.counters()?;
        before.extend(self.times()?);
        work()?;
        let mut after = self.times()?;
        after.extend(self.counters()?);
        Ok(difference(&after, &before))
    }

    fn counters(&self) -> Result<Counts> {
        let of_dom0 = parse(&self.host.ok(COUNT)?)?;
        let mut counts = Counts::new();
        let mut take = |from: &Counts, key: &str, figure: &str| -> Result<()> {
            let value = from.get(key).with_context(|| format!("no {key} counted"))?;
            counts.insert(figure.into(), *value);
            Ok(())
        };
        take(&of_dom0, "ctxt", record::SWITCHES)?;
        take(&of_dom0, "intr", record::INTERRUPTS)?;
        if let Some(guest) = self.guest {
            take(&of_dom0, "events", record::EVENTS_IN)?;
            let of_guest = parse(&guest.ok(COUNT)?)?;
            take(&of_guest, "events", record::EVENTS_OUT)?;
            counts.insert(record::RING.into(), self.ring_requests(guest)?);
        }
        Ok(counts)
    }

    /// As both backends count them; there may be no disk.
    fn ring_requests(&self, guest: &Guest<'_, '_>) -> Result<f64> {
        let sum = self.host.ok(&format!(
            "cat /sys/bus/xen-backend/devices/vbd-{}-*/statistics/{{rd,wr,f}}_req 2>/dev/null | \
             awk '{{ sum += $1 }} END {{ print sum + 0 }}'",
            guest.domid()
        ))?;
        Ok(sum.parse()?)
    }

    /// Nanoseconds that the domains have run, which are instructions.
    fn times(&self) -> Result<Counts> {
        let times = self.host.run_times(self.guest)?;
        let dom0 = times.first().context("no run time of dom0")?;
        Ok(Counts::from([
            (record::DOM0.into(), *dom0 as f64),
            (record::ALL.into(), times.iter().sum::<u64>() as f64),
        ]))
    }

    fn traced(&self, work: &mut dyn FnMut() -> Result<()>) -> Result<Counts> {
        // A large buffer in Xen, so that it need not be emptied before the end. Once there is
        // something in the file, xentrace waits for that.
        self.host.ok(&format!(
            ">{TRACE} && {{ xentrace -D -e {TRACED} -S 8192 -s 10000 {TRACE} >/dev/null & }} && \
             tail -f -c +1 {TRACE} | head -c 1 >/dev/null"
        ))?;
        work()?;
        let text = self.host.ok_within(
            &format!("kill -INT $! && wait $! && xenalyze -s {TRACE} 2>/dev/null && rm {TRACE}"),
            300,
        )?;
        hypercalls(&text)
    }
}

fn difference(after: &Counts, before: &Counts) -> Counts {
    let less = |(key, value): (&String, &f64)| {
        let before = before.get(key).copied().unwrap_or(0.0);
        (key.clone(), value - before)
    };
    after.iter().map(less).collect()
}

fn parse(text: &str) -> Result<Counts> {
    let pair = |line: &str| {
        let (name, number) = line.split_once(' ')?;
        Some((name.to_string(), number.parse().ok()?))
    };
    text.lines()
        .map(|line| pair(line).with_context(|| format!("no counter: {line:?}")))
        .collect()
}

/// dom0's hypercalls in xenalyze's summary, all and by what they are.
fn hypercalls(summary: &str) -> Result<Counts> {
    let mut counts = Counts::from([(record::HYPERCALLS.into(), 0.0)]);
    let (_, dom0) = summary
        .split_once("|-- Domain 0 --|")
        .context("xenalyze saw no domain 0")?;
    let dom0 = dom0.split("|-- Domain").next().unwrap_or_default();
    for line in dom0.lines().filter(|line| line.starts_with("    ")) {
        // "    grant_table_op               [20]:    123"
        let Some((name, rest)) = line.split_once('[') else {
            continue;
        };
        let Some((number, count)) = rest.split_once("]:") else {
            continue;
        };
        let (name, count) = (name.trim(), count.trim());
        if let (Ok(_), Ok(count)) = (number.trim().parse::<u32>(), count.parse::<f64>()) {
            *counts
                .entry(format!("{}: {name}", record::HYPERCALLS))
                .or_default() += count;
            *counts.entry(record::HYPERCALLS.into()).or_default() += count;
        }
    }
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters() {
        let before = parse("ctxt 10\nevents 0\n").unwrap();
        let after = parse("ctxt 15\nevents 2\n").unwrap();
        let more = difference(&after, &before);
        assert_eq!((more["ctxt"], more["events"]), (5.0, 2.0));
        assert!(parse("awk: syntax error").is_err());
    }

    #[test]
    fn xenalyze() {
        let text = "Total time: 0.83 seconds\n|-- Domain 0 --|\n Runstates:\n   blocked:      87  0.83s\n\
             -- v0 --\n cpu affinity:       1 1995361000\n   [0]:       1 1995361000\n\
             PV events:\n  page_fault  5\n  hypercall  30\n\
             \u{20}   grant_table_op               [20]:     10\n\
             \u{20}   iret                         [23]:     20\n  hypercall (subcall)  22\n\
             |-- Domain 1 --|\n\u{20}   iret                         [23]:      7\n";
        let counts = hypercalls(text).unwrap();
        assert_eq!(counts["hypercalls"], 30.0);
        assert_eq!(counts["hypercalls: iret"], 20.0);
        assert_eq!(counts.len(), 3);
        assert!(hypercalls("no CPUs").is_err());
    }
}
