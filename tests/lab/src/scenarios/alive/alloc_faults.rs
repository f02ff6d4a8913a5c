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
/// Memory for objects.
const SLAB: &str = "failslab";
/// What one of the callers has to be, from `start` to `end` in the shell: the module, or what makes the
/// interrupt of an event channel that Xen has connected already.
const IN_MODULE: &str = "start=$(cat /sys/module/rblkback/sections/.text) && \
     size=$(awk '$1 == \"rblkback\" { print $2 }' /proc/modules) && \
     end=$(printf '0x%x' $((start + size)))";
const IN_INTERRUPT: &str =
    "start=$(symbol bind_evtchn_to_irq_chip) && end=$(symbol bind_evtchn_to_irq)";
/// How often a disk is bound for each kind of allocation.
const BINDINGS: u32 = 80;
/// Each kind, and how many of a hundred fail while a disk is bound, until one has failed: so few that it
/// is seldom one of the first. Of whole pages there are not many.
const AT_BINDING: [(&str, u32); 2] = [(SLAB, 1), ("fail_page_alloc", 10)];
/// The same under I/O, for as long as that lasts.
const IN_IO: u32 = 20;
const MANY: i64 = 1_000_000;

/// There is no memory for the interrupt of the event channel of a running guest's disk: the disk comes back
/// with the next attempt. Then one allocation fails, here or there, each time that the disk is bound: the
/// driver refuses it, or tries again, and the guest goes on. Then every fifth one fails, while the guest
/// verifies its writes. Those count that the driver makes, or that the kernel makes for it. (Which one
/// fails the kernel decides by chance: its counter for each in turn cannot be set back.)
pub fn alloc_faults(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    let disk = Disk::memory(host, "nb0", 16)?;
    let guest = host.guest("faults").start()?;
    let vbd = guest.attach(&disk, "xvdb")?;
    vbd.unbind(Backend::Rblkback)?;
    arm(host, SLAB, 1, 100, IN_INTERRUPT)?;
    vbd.bind(Backend::Rblkback)?;
    guest.ok(READ).context("no memory for the interrupt")?;
    check::equal("interrupts without memory", disarm(host, SLAB, 1)?, 1)?;
    for (kind, percent) in AT_BINDING {
        let (mut failed, mut refused) = (0, 0);
        for round in 0..BINDINGS {
            vbd.unbind(Backend::Rblkback)?;
            arm(host, kind, 1, percent, IN_MODULE)?;
            let bound = vbd.bind(Backend::Rblkback).is_ok();
            if bound {
                guest
                    .ok(READ)
                    .with_context(|| format!("{kind}, binding {round}"))?;
            }
            failed += disarm(host, kind, 1)?;
            if !bound {
                refused += 1;
                vbd.bind(Backend::Rblkback)?;
                guest.ok(READ)?;
            }
        }
        check::within("bindings with an allocation that failed", failed, 1..=MANY)?;
        figures.insert(format!("{kind}: allocations that failed"), failed.into());
        figures.insert(format!("{kind}: bindings refused"), refused.into());
    }
    let verify = Job::verified_writes("xvdb", "4k-128k", 16).depth(32);
    // The device has its memory from then on: what it allocates for our requests would fail as well. The
    // driver has none yet when the disk is bound again.
    verify.run(&guest)?;
    vbd.unbind(Backend::Rblkback)?;
    vbd.bind(Backend::Rblkback)?;
    guest.ok(READ)?;
    for (kind, _) in AT_BINDING {
        arm(host, kind, MANY, IN_IO, IN_MODULE)?;
    }
    let report = verify.run(&guest)?;
    let mut failed = 0;
    for (kind, _) in AT_BINDING {
        failed += disarm(host, kind, MANY)?;
    }
    figures.insert("under I/O: allocations that failed".into(), failed.into());
    check::within("allocations that failed under I/O", failed, 1..=MANY)?;
    check::equal("bytes verified", report.read.io_bytes, 16 << 20)?;
    guest.destroy()?;
    disk.remove(host)
}

/// From now on up to `times` allocations fail that have `callers` among their callers. Not those of
/// the files of an interrupt in /proc: the kernel goes on without one that it could not make, and
/// warns when it is to remove that file.
fn arm(host: &Host<'_>, kind: &str, times: i64, percent: u32, callers: &str) -> Result<()> {
    host.ok(&format!(
        "symbol() {{ awk -v name=$1 '$3 == name {{ print \"0x\" $1 }}' /proc/kallsyms; }} && \
         {callers} && [ $((end - start)) -gt 0 ] && \
         cd /sys/kernel/debug/{kind} && echo 0 >probability && \
         echo $start >require-start && echo $end >require-end && \
         symbol register_handler_proc >reject-start && symbol unregister_irq_proc >reject-end && \
         echo 32 >stacktrace-depth && echo 0 >verbose && echo 0 >space && echo N >ignore-gfp-wait && \
         {{ [ ! -e ignore-gfp-highmem ] || echo N >ignore-gfp-highmem; }} && \
         {{ [ ! -e min-order ] || echo 0 >min-order; }} && \
         echo 1 >interval && echo {times} >times && echo {percent} >probability; status=$?; cd /; (exit $status)"
    ))
    .map(drop)
}

/// Says how many have failed, of `times`.
fn disarm(host: &Host<'_>, kind: &str, times: i64) -> Result<i64> {
    let left = host.ok(&format!(
        "cd /sys/kernel/debug/{kind} && echo 0 >probability && cat times; cd /"
    ))?;
    let left: i64 = left.trim().parse().context(left)?;
    Ok(times - left)
}
