// SPDX-License-Identifier: GPL-2.0

//! A Debian as its package manager leaves it (tests/debian), with what `install.rst` has an
//! administrator install by hand.

use std::time::Duration;

use anyhow::Context;
use anyhow::Result;

use crate::check;
use crate::fio::Job;
use crate::guest::Guest;
use crate::guest::GuestSpec;
use crate::host::Host;
use crate::results::Figures;

/// How long dom0 and its guest may take to go down.
pub const DEADLINE: Duration = Duration::from_secs(900);
const NAME: &str = "ordinary";
/// The guest's disk. In 4 s it has what flows into the bucket and what was in it.
pub const IMAGE: &str = "/srv/guest.img";
const LIMIT: &str = "refill=50/max=20";
const REQUESTS: std::ops::RangeInclusive<u64> = 190..=232;

/// In which way the module comes into the kernel, and who answers its requests to xenstore.
struct Boot {
    name: &'static str,
    /// What an administrator does before.
    prepare: &'static str,
    xenstored: &'static str,
    /// Xen's service has saved the guest at the shutdown before, and restores it.
    restored: bool,
}

/// One after the other; a run of everything has the first.
const BOOTS: &[Boot] = &[
    Boot {
        name: "loaded by udev",
        prepare: "true",
        xenstored: "oxenstored",
        restored: false,
    },
    Boot {
        name: "loaded before xenstored",
        prepare: "echo rblkback >/etc/modules-load.d/rblkback.conf",
        xenstored: "oxenstored",
        restored: true,
    },
    Boot {
        name: "loaded before the C xenstored",
        prepare: "echo \"XENSTORED=$(echo /usr/lib/xen-*/bin/xenstored)\" >>/etc/default/xen",
        xenstored: "xenstored",
        restored: true,
    },
    Boot {
        name: "loaded by udev, with the C xenstored",
        prepare: "rm /etc/modules-load.d/rblkback.conf && \
                  sed -i s/^XENDOMAINS_SAVE=.*/XENDOMAINS_SAVE=/ /etc/default/xendomains",
        xenstored: "xenstored",
        restored: false,
    },
];

/// The module is installed by hand, the host reboots, and the guest that starts with it has its limit. So it is
/// whichever xenstored runs and whether the module is there before or after it, and also for a guest that Xen's
/// service has saved.
pub fn ordinary(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    is_well(host)?;
    install(host)?;
    guest(host).install()?;
    let count = host.lab.repeats(1, BOOTS.len() as u64, 1);
    for boot in BOOTS.iter().take(count as usize) {
        let seconds = after(host, boot).context(boot.name)?;
        figures.insert(format!("up, {}", boot.name), seconds.into());
    }
    host.power_off("systemctl poweroff", DEADLINE).map(drop)
}

/// The steps of install.rst, but for the build.
fn install(host: &Host<'_>) -> Result<()> {
    host.ok(&format!(
        "install -m 644 /lab/modprobe.conf /etc/modprobe.d/rblkback.conf && \
         install -D -m 644 /lab/rblkback.ko /lib/modules/$(uname -r)/updates/rblkback.ko && depmod && \
         install -m 755 /lab/block-tokens /etc/xen/scripts/ && truncate -s 64M {IMAGE}"
    ))
    .map(drop)
}

pub fn guest<'h, 'l>(host: &'h Host<'l>) -> GuestSpec<'h, 'l> {
    host.guest_named(NAME).disk_line(&format!(
        "vdev=xvda,format=raw,access=rw,script=block-tokens,target={LIMIT}:{IMAGE}"
    ))
}

/// Everything that systemd started is up.
pub fn is_well(host: &Host<'_>) -> Result<()> {
    let state = host.run("systemctl is-system-running")?.text;
    let failed = host.ok("systemctl --failed --plain --no-legend")?;
    check::equal("the failed units", failed.as_str(), "")?;
    check::equal("the system", state.trim(), "running")
}

/// One boot, and what is then there by itself. Gives the seconds of dom0's clock until it was.
fn after(host: &Host<'_>, boot: &Boot) -> Result<f64> {
    host.ok(boot.prepare)?;
    host.reboot()?;
    let seconds = host.ok("cut -d' ' -f1 /proc/uptime")?.parse()?;
    is_well(host)?;
    host.ok(&format!("pidof {}", boot.xenstored))
        .context("the xenstored that was asked for does not run")?;
    let guest = guest(host).join(boot.restored)?;
    is_limited(&guest)?;
    guest.lost();
    Ok(seconds)
}

/// The guest's disk is rblkback's, and has its limit.
pub fn is_limited(guest: &Guest<'_, '_>) -> Result<()> {
    guest.wait_disk("xvda")?;
    let driver = guest.vbd("xvda").driver()?;
    check::equal("the driver", driver.as_str(), "rblkback")?;
    let report = Job::random_reads("xvda", 4).depth(8).run(guest)?;
    check::within("requests in 4 s", report.read.total_ios, REQUESTS)
}
