// SPDX-License-Identifier: GPL-2.0

use anyhow::Context;
use anyhow::Result;

use crate::check;
use crate::disk::Disk;
use crate::fio::Job;
use crate::host::Host;
use crate::lab::Backend;
use crate::results::Figures;

const READ: &str = "dd if=/dev/xvdb of=/dev/null bs=64k count=1 iflag=direct status=none";
/// How often a disk is bound for each kind of allocation.
const BINDINGS: u32 = 100;
/// Of a hundred allocations, while a disk is bound: so few that most attempts get some way.
const AT_BINDING: u32 = 4;
/// The same under I/O.
const IN_IO: u32 = 20;
const MANY: i64 = 1_000_000;

/// Allocations fail here and there while a disk of a running guest is bound again and again: the driver
/// refuses the disk, or tries again, and the guest goes on. Then every fifth one fails, while the guest
/// verifies its writes. Those count that the driver makes, or that the kernel makes for it. (Which one
/// fails the kernel decides by chance: its counter for each in turn cannot be set back.)
pub fn alloc_faults(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    let disk = Disk::memory(host, "nb0", 16)?;
    let guest = host.guest("faults").start()?;
    let vbd = guest.attach(&disk, "xvdb")?;
    for kind in ["failslab", "fail_page_alloc"] {
        let (mut failed, mut refused) = (0, 0);
        for round in 0..BINDINGS {
            vbd.unbind(Backend::Rblkback)?;
            arm(host, kind, AT_BINDING)?;
            let bound = vbd.bind(Backend::Rblkback).is_ok();
            if bound {
                guest
                    .ok(READ)
                    .with_context(|| format!("{kind}, binding {round}"))?;
            }
            failed += disarm(host, kind)?;
            if !bound {
                refused += 1;
                vbd.bind(Backend::Rblkback)?;
                guest.ok(READ)?;
            }
        }
        figures.insert(format!("{kind}: allocations that failed"), failed.into());
        figures.insert(format!("{kind}: bindings refused"), refused.into());
    }
    for kind in ["failslab", "fail_page_alloc"] {
        arm(host, kind, IN_IO)?;
    }
    let verify = Job::verified_writes("xvdb", "4k-128k", 16).depth(32);
    let report = verify.run(&guest)?;
    let mut failed = 0;
    for kind in ["failslab", "fail_page_alloc"] {
        failed += disarm(host, kind)?;
    }
    figures.insert("under I/O: allocations that failed".into(), failed.into());
    check::within("allocations that failed under I/O", failed, 1..=MANY)?;
    check::equal("bytes verified", report.read.io_bytes, 16 << 20)?;
    guest.destroy()?;
    disk.remove(host)
}

/// From now on allocations fail that have the module among their callers.
fn arm(host: &Host<'_>, kind: &str, percent: u32) -> Result<()> {
    host.ok(&format!(
        "cd /sys/kernel/debug/{kind} && echo 0 >probability && \
         start=$(cat /sys/module/rblkback/sections/.text) && \
         size=$(awk '$1 == \"rblkback\" {{ print $2 }}' /proc/modules) && \
         echo $start >require-start && printf '0x%x\\n' $((start + size)) >require-end && \
         echo 32 >stacktrace-depth && echo 0 >verbose && echo 0 >space && echo N >ignore-gfp-wait && \
         {{ [ ! -e ignore-gfp-highmem ] || echo N >ignore-gfp-highmem; }} && \
         {{ [ ! -e min-order ] || echo 0 >min-order; }} && echo 1 >interval && echo {MANY} >times && echo {percent} >probability; cd /"
    ))
    .map(drop)
}

/// Says how many have failed.
fn disarm(host: &Host<'_>, kind: &str) -> Result<i64> {
    let times = host.ok(&format!(
        "cd /sys/kernel/debug/{kind} && echo 0 >probability && cat times; cd /"
    ))?;
    let left: i64 = times.trim().parse().context(times)?;
    Ok(MANY - left)
}
