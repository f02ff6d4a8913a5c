// SPDX-License-Identifier: GPL-2.0

use anyhow::Result;
use serde_json::json;

use super::layouts;
use crate::check;
use crate::disk::Disk;
use crate::host::Host;
use crate::results::Figures;
use crate::scenarios::alive::probe::Probe;
use crate::scenarios::alive::probe::seen;
use crate::scenarios::frontend::all_held;
use crate::scenarios::frontend::frontend;
use crate::scenarios::frontend::more_queues;
use crate::scenarios::frontend::total;

/// An event that the module sends to a guest.
const NOTIFIED: Probe = Probe {
    event: "lab/notified",
    definition: "p:lab/notified xbk_notify",
    filter: None,
};
/// Microseconds of the guest's clock that no answer may keep it waiting: what somebody would notice as a stall.
const STALL: u64 = 100_000;

/// A frontend keeps 32 reads in flight and asks for an event each time that it has seen all answers: it is sent
/// one at most for that, and one for certain.
pub fn notified(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    more_queues(host, host.lab.backend)?;
    let disks = [
        Disk::memory_with(host, "nb0", 64, "echo 0 >irqmode")?,
        Disk::memory_with(
            host,
            "nb1",
            64,
            "echo 2 >irqmode && echo 80000 >completion_nsec",
        )?,
    ];
    let guest = host
        .guest("notified")
        .disk(&disks[0], "xvda")
        .disk(&disks[1], "xvdb")
        .own_frontend()
        .start()?;
    for (name, vdev) in [("at once", "xvda"), ("after 80 us", "xvdb")] {
        let mut lines = Vec::new();
        // The debug kernel has no kprobes.
        let probes: &[Probe] = host.lab.amount(&[NOTIFIED][..], &[]);
        let sent = seen(host, probes, || {
            let only = layouts(host.lab.at_length);
            let vdev = guest.vbd(vdev).vdev;
            lines = frontend(
                &guest,
                &format!("notified --vdev {vdev} --seconds 1 {only}"),
            )?;
            all_held(&lines)
        })?;
        let (asked, answered) = (total(&lines, "asked"), total(&lines, "answered"));
        let longest = lines
            .iter()
            .filter_map(|line| line.done["longest_us"].as_u64());
        let longest = longest.max().unwrap_or(u64::MAX);
        figures.insert(
            format!("device that answers {name}"),
            json!({"responses": answered, "asked": asked, "sent": sent.len(), "longest wait, us": longest}),
        );
        check::within("responses", answered, 1000..=u64::MAX)?;
        check::within("microseconds without an event", longest, 0..=STALL)?;
        if !probes.is_empty() {
            check::within("events sent", sent.len() as u64, 1..=asked.min(answered))?;
        }
    }
    guest.destroy()?;
    disks.into_iter().try_for_each(|disk| disk.remove(host))
}
