// SPDX-License-Identifier: GPL-2.0

use anyhow::Context;
use anyhow::Result;

use super::layouts;
use crate::check;
use crate::disk::Disk;
use crate::guest::Guest;
use crate::host::Host;
use crate::results::Figures;
use crate::scenarios::cycles::mapped_grants;
use crate::scenarios::frontend::all_held;
use crate::scenarios::frontend::frontend;
use crate::scenarios::frontend::held;
use crate::scenarios::frontend::more_queues;

/// Grants that may stay mapped in each ring: fewer than the frontend has, and few enough for Xen to print all of
/// them before its console's buffer is full.
const CAP: i64 = 24;
const QUEUES: [i64; 2] = [1, 4];

/// A frontend offers persistent grants, has more of them used than may stay mapped, and takes all back: those that
/// are mapped stay so until it disconnects or dies, no more than may, and what it reads with others is right.
/// The next guest finds nothing of it in its memory.
pub fn claimed(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    more_queues(host, host.lab.backend)?;
    let usual = cap(host, &CAP.to_string())?;
    let disk = Disk::memory(host, "nb0", 64)?;
    let empty = mapped_grants(host)?;
    let guest = start(host, &disk)?;
    let idle = mapped_grants(host)?;
    let kept = |count: i64| {
        host.ok(&format!("lab_grants_are {} 60", idle + count))
            .map(drop)
    };
    // And the ring itself.
    let connected = |queues: i64| queues * (CAP + 1);
    let all: &[&str] = if host.lab.at_length {
        &["x86_64-abi", "x86_32-abi", "unsaid"]
    } else {
        &["x86_64-abi"]
    };
    for layout in all {
        for queues in QUEUES {
            let claim = format!("claim --layout {layout} --queues {queues}");
            held(&guest, &claim, || kept(connected(queues))).with_context(|| claim.clone())?;
            kept(0).with_context(|| format!("after {claim}"))?;
        }
    }
    figures.insert("grants that stayed mapped".into(), connected(4).into());

    // Nobody tells it to go on.
    guest.ok("mkfifo /tmp/never && { /frontend claim --layout x86_64-abi --queues 4 <>/tmp/never >/dev/null 2>&1 & }")?;
    kept(connected(4)).context("before the guest is destroyed")?;
    guest.destroy()?;
    host.ok(&format!("lab_grants_are {empty} 60"))
        .context("after the guest was destroyed")?;

    let next = start(host, &disk)?;
    let only = layouts(false);
    all_held(&frontend(
        &next,
        &format!("run --seed 51 --requests 200 --queues 1 --order 0 {only}"),
    )?)?;
    check::equal("the error node", next.vbd("xvda").error()?, None)?;
    next.destroy()?;
    cap(host, &usual)?;
    disk.remove(host)
}

fn start<'h, 'l>(host: &'h Host<'l>, disk: &Disk) -> Result<Guest<'h, 'l>> {
    let guest = host.guest("claims").disk(disk, "xvda").own_frontend();
    guest.start()
}

/// Sets how many grants may stay mapped; gives what it was.
fn cap(host: &Host<'_>, value: &str) -> Result<String> {
    let file = "/sys/module/rblkback/parameters/max_persistent_grants";
    host.ok(&format!("cat {file} && echo {value} >{file}"))
}
