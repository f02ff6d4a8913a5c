// SPDX-License-Identifier: GPL-2.0

//! kprobes in dom0's kernel, for what no tracepoint shows.

use anyhow::Result;

use crate::host::Host;
use crate::trace::Event;
use crate::trace::Source;
use crate::trace::Trace;

/// A place where a kprobe is set, and the event that it makes.
pub(in crate::scenarios) struct Probe {
    /// Such as `lab/begun`, as the definition has it.
    pub(in crate::scenarios) event: &'static str,
    pub(in crate::scenarios) definition: &'static str,
    /// Of the events, only these.
    pub(in crate::scenarios) filter: Option<&'static str>,
}

/// What happens at `probes` during `action`.
pub(in crate::scenarios) fn seen(
    host: &Host<'_>,
    probes: &[Probe],
    action: impl FnOnce() -> Result<()>,
) -> Result<Vec<Event>> {
    const FILE: &str = "/sys/kernel/tracing/kprobe_events";
    for probe in probes {
        host.ok(&format!("echo '{}' >>{FILE}", probe.definition))?;
    }
    let source = |probe: &Probe| Source {
        event: probe.event,
        filter: probe.filter.map(String::from),
    };
    let sources: Vec<Source> = probes.iter().map(source).collect();
    let trace = Trace::start(host, &sources)?;
    action()?;
    let events = trace.stop()?;
    for probe in probes {
        host.ok(&format!("echo '-:{}' >>{FILE}", probe.event))?;
    }
    Ok(events)
}
