// SPDX-License-Identifier: GPL-2.0

use anyhow::Context;
use anyhow::Result;

use crate::check;
use crate::disk::Disk;
use crate::host::Host;
use crate::lab::Backend;
use crate::results::Figures;

const DIRECTORY: &str = "/sys/module/rblkback/parameters";

/// What each parameter must not take.
const BAD: &[(&str, &[&str])] = &[
    ("max_buffer_pages", &["-1", "1048577", "4294967296", "x"]),
    ("max_persistent_grants", &["-1", "16385", "1x"]),
    ("persistent_grant_unused_seconds", &["-1", "86401"]),
    ("max_queues", &["0", "65", "-1"]),
    ("buffer_squeeze_duration_ms", &["-1", "60001"]),
    ("max_guest_frames", &["1023", "16777217"]),
    ("feature_persistent", &["2", "maybe"]),
    ("log_stats", &["2", "-1", "Y"]),
];

/// Module parameters refuse what makes no sense, and do what they say.
pub fn parameters(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    for (name, values) in BAD {
        let before = host.ok(&format!("cat {DIRECTORY}/{name}"))?;
        for value in *values {
            host.refused(&format!("echo {value} >{DIRECTORY}/{name}"))
                .with_context(|| format!("{name}={value}"))?;
        }
        check::equal(name, host.ok(&format!("cat {DIRECTORY}/{name}"))?, before)?;
    }
    let unload = format!("rmmod {}", Backend::Rblkback.module());
    let load = Backend::Rblkback.load_command();
    host.ok(&unload)?;
    for bad in ["max_ring_page_order=5", "max_queues=65", "max_queues=x"] {
        host.refused(&format!("{load} {bad}"))?;
    }
    host.ok(&format!("{load} max_ring_page_order=1 max_queues=3"))?;
    offers(host)?;
    log_stats(host, figures)?;
    host.ok(&format!("{unload} && {load}")).map(drop)
}

/// The keys that a disk attached now has.
fn offers(host: &Host<'_>) -> Result<()> {
    let disk = Disk::memory(host, "nb0", 16)?;
    let guest = host.guest("offers").start()?;
    let expect = |queues: &str| -> Result<()> {
        let vbd = guest.attach(&disk, "xvdb")?;
        for (key, value) in [
            ("multi-queue-max-queues", queues),
            ("max-ring-page-order", "1"),
            ("feature-max-indirect-segments", "256"),
        ] {
            check::equal(key, vbd.key(key)?.as_deref(), Some(value))?;
        }
        guest.detach("xvdb")
    };
    expect("3")?;
    host.ok(&format!("echo 5 >{DIRECTORY}/max_queues"))?;
    expect("5")?;
    guest.destroy()?;
    disk.remove(host)
}

/// A disk's line in dom0's log, by its name in xenstore; and in `ps`, whose work it is.
fn log_stats(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    let disk = Disk::memory(host, "nb0", 16)?;
    let guest = host.guest("logged").start()?;
    let vbd = guest.attach(&disk, "xvdb")?;
    guest.ok("dd if=/dev/xvdb of=/dev/null bs=64k count=4 iflag=direct status=none")?;
    let name = format!("backend/vbd/{}/{}", vbd.domid, vbd.vdev);
    let thread = format!("{}.xvdb-0", vbd.domid);
    let threads = host.ok(r"ps -eo comm:64= | grep -E '^[0-9]+\.xvd'")?;
    check::equal("the ring's thread", threads.trim(), thread.as_str())?;
    host.ok(&format!("echo 1 >{DIRECTORY}/log_stats"))?;
    let line = host.ok(&format!("lab_until 60 'dmesg | grep \"{name}: oo \"'"))?;
    figures.insert("log_stats".into(), line.into());
    guest.destroy()?;
    disk.remove(host)
}
