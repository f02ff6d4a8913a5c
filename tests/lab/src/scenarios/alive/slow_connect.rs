// SPDX-License-Identifier: GPL-2.0

//! What happens while a disk connects whose device takes long to write its page cache back: here, for
//! as long as the test likes.

use anyhow::Context;
use anyhow::Result;

use crate::check;
use crate::disk::Disk;
use crate::fio::Job;
use crate::forged::FIRST_VDEV;
use crate::forged::Forged;
use crate::guest::Guest;
use crate::host::Host;
use crate::host::quote;
use crate::results::Figures;
use crate::vbd::Vbd;

const MEGABYTES: u32 = 16;
/// How often the module is taken out as a disk appears.
const ROUNDS: usize = 20;
/// By how many milliseconds the disk is later each time.
const STEP_MS: usize = 5;
const READ: &str = "dd if=/dev/xvdb of=/dev/null bs=64k count=4 iflag=direct status=none";

/// A disk whose connection is under way: its rings are bound, and what dom0 wrote to its device is not
/// written back.
struct Connecting<'h, 'l> {
    vbd: Vbd<'h, 'l>,
    disk: Disk,
    below: Disk,
}

impl<'h, 'l> Connecting<'h, 'l> {
    fn new(host: &'h Host<'l>, guest: &Guest<'h, 'l>) -> Result<Self> {
        let below = Disk::memory(host, "nba", MEGABYTES)?;
        let mut disk = Disk::linear(host, "slow", &below, MEGABYTES)?;
        disk.attach_by_short_script(host)?;
        // It would be written back when nobody has the device open any more.
        host.ok(&format!(
            "exec {{LAB_OPEN}}<>{0} && dd if=/dev/zero of={0} bs=1M count=4 status=none",
            disk.path
        ))?;
        disk.suspend(host)?;
        let before = channels(host)?;
        guest.offer(&disk, "xvdb")?;
        host.ok(&format!("lab_until 60 '(($({CHANNELS}) > {before}))'"))?;
        let vbd = guest.vbd("xvdb");
        check::equal("the state", vbd.key("state")?.as_deref(), Some("2"))?;
        Ok(Connecting { vbd, disk, below })
    }

    /// Lets the device go on; the disk connects.
    fn finish(&self, host: &Host<'_>, guest: &Guest<'_, '_>) -> Result<()> {
        self.disk.resume(host)?;
        host.ok("exec {LAB_OPEN}>&-")?;
        guest.wait_disk("xvdb")
    }

    fn remove(self, host: &Host<'_>, guest: &Guest<'_, '_>) -> Result<()> {
        guest.detach("xvdb")?;
        host.ok(&format!("lab_gone {} 30", self.vbd.sysfs()))?;
        self.disk.remove(host)?;
        self.below.remove(host)
    }
}

/// Event channels of rings, by the name that either driver gives them.
const CHANNELS: &str = "grep -cE \"(rblkback|blkif-backend)$\" /proc/interrupts";

fn channels(host: &Host<'_>) -> Result<usize> {
    // grep fails if there is none.
    Ok(host.run(CHANNELS)?.text.trim().parse()?)
}

/// The parameter changes while a disk connects. What the guest is told is what is done: it finds its
/// data, and its grants are mapped as it was told.
pub fn persistence_toggled(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    const PARAMETER: &str = "/sys/module/rblkback/parameters/feature_persistent";
    for (first, then) in [("Y", "N"), ("N", "Y")] {
        host.ok(&format!("echo {first} >{PARAMETER}"))?;
        let guest = host.guest("toggled").start()?;
        let connecting = Connecting::new(host, &guest)?;
        host.ok(&format!("echo {then} >{PARAMETER}"))?;
        connecting.finish(host, &guest)?;
        let told = connecting.vbd.key("feature-persistent")?;
        let (expected, done) = match first {
            "Y" => ("1", "grants persistent"),
            _ => ("0", "grants copied"),
        };
        check::equal("feature-persistent", told.as_deref(), Some(expected))?;
        let name = format!("vbd/{}/{}: connected", guest.domid(), connecting.vbd.vdev);
        let line = host.ok(&format!("dmesg | grep '{name}'"))?;
        check::contains("the log", &line, &[done])?;
        let report = Job::verified_writes("xvdb", "4k-128k", MEGABYTES)
            .depth(32)
            .run(&guest)?;
        let whole = u64::from(MEGABYTES) << 20;
        check::equal("bytes verified", report.read.io_bytes, whole)?;
        figures.insert(format!("{first} to {then}: told"), expected.into());
        connecting.remove(host, &guest)?;
        guest.destroy()?;
    }
    host.ok(&format!("echo Y >{PARAMETER}")).map(drop)
}

/// The module cannot be taken out while a disk connects. Then it is taken out at the moment at which a disk
/// appears, again and again: the disk has its driver, or gets it when the module is loaded again.
pub fn unloaded(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    let (module, load) = (host.lab.backend.module(), host.lab.backend.load_command());
    let guest = host.guest("attached").start()?;
    let connecting = Connecting::new(host, &guest)?;
    let refused = host.refused(&format!("rmmod {module}"))?;
    check::contains("rmmod while a disk connects", &refused, &["in use"])?;
    connecting.finish(host, &guest)?;
    guest.ok(READ)?;
    connecting.remove(host, &guest)?;
    let forged = Forged::new(host, guest.vbd("xvdb").sibling(FIRST_VDEV));
    let (mut went, mut stayed) = (0, 0);
    for round in 0..ROUNDS {
        let nodes = forged.created("", &[("physical-device", None)]);
        let pairs: Vec<String> = nodes
            .iter()
            .map(|(node, value)| format!("{node} {}", quote(value)))
            .collect();
        let write = format!("xenstore-write -- {}", pairs.join(" "));
        // A little later each time, from when the disk is first to when the module is. Either outcome of
        // the race is right. The shell has other children.
        host.ok(&format!(
            "{{ rmmod {module} & one=$!; lab_rest 0.{:03}; {write}; wait $one; }} 2>/dev/null; true",
            STEP_MS * round
        ))?;
        if host.loaded(host.lab.backend)? {
            stayed += 1;
        } else {
            went += 1;
            host.ok(load)?;
        }
        forged
            .vbd
            .wait_state("2")
            .with_context(|| format!("round {round}"))?;
        forged.remove()?;
        host.wait_unreferenced()?;
    }
    figures.insert(
        "times the module went as a disk appeared".into(),
        went.into(),
    );
    figures.insert("times it stayed".into(), stayed.into());
    check::within("times it went", went, 1..=ROUNDS)?;
    // What was loaded last serves a disk.
    let disk = Disk::memory(host, "nb0", MEGABYTES)?;
    guest.attach(&disk, "xvdb")?;
    guest.ok(READ)?;
    guest.destroy()?;
    disk.remove(host)
}
