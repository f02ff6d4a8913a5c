// SPDX-License-Identifier: GPL-2.0

use std::time::Duration;

use anyhow::Context;
use anyhow::Result;

use crate::check;
use crate::disk::Disk;
use crate::fio::Job;
use crate::host::Host;
use crate::lab::Backend;
use crate::results::Figures;
use crate::trace::Source;
use crate::trace::Trace;

/// Seconds for which the kernel's test keeps all tasks frozen.
const FROZEN: u32 = 5;
/// Nanoseconds of a clock: nearly that, because a request may have waited before.
const PAUSE: u64 = 4_500_000_000;
/// Reads a second of the disk that has a limit, with a bucket of one.
const REFILL: u64 = 20;
/// Milliseconds that a device takes for a discard of a megabyte, of which the guest asks for all at once.
const LATE: u32 = 200;
const MEGABYTES: u32 = 64;

/// dom0's tasks are frozen, as before a suspend: its devices may be gone next, so nothing more is
/// sent to them, whether a guest reads a disk, discards on another one, or waits for the limit of a third.
/// The guest sees a pause and no error.
///
/// The kernel's test of the next level, `devices`, goes by itself, but the console on which the lab speaks
/// to dom0 does not come back from it.
pub fn freezer(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    let disk = Disk::memory(host, "nba", MEGABYTES)?;
    let below = Disk::memory_with(host, "nbb", MEGABYTES, "echo 1 >discard")?;
    host.ok("modprobe dm-delay && mkdir -p /dev/mapper && dmsetup mknodes control")?;
    let late = Disk::target(
        host,
        "late",
        &format!(
            "0 {} delay {below} 0 0 {below} 0 {LATE}",
            u64::from(MEGABYTES) * 2048,
            below = below.path
        ),
    )?;
    let late_in_sysfs = late.sysfs(host)?;
    host.ok(&format!(
        "echo $((1 << 20)) >{late_in_sysfs}/queue/discard_max_bytes"
    ))?;
    let limited = Disk::memory(host, "nbc", MEGABYTES)?;
    let guest = host.guest("freezes").start()?;
    let vbd = guest.attach(&disk, "xvdb")?;
    guest.attach(&late, "xvdc")?;
    let throttled = guest.attach(&limited, "xvdd")?;
    // The other driver knows no limit, and fio holds its reads back instead.
    let pace = if host.lab.backend == Backend::Rblkback {
        throttled.limit(REFILL, 1)?;
        String::from("--thinktime=0")
    } else {
        format!("--rate_iops={REFILL}")
    };
    host.ok(&format!(
        "echo freezer >/sys/power/pm_test && echo {FROZEN} >/sys/module/suspend/parameters/pm_test_delay"
    ))?;
    guest.ok(
        "{ until [ -e /tmp/enough ]; do blkdiscard /dev/xvdc || exit 1; done & } && discards=$!",
    )?;
    let reads = Job::random_reads("xvdd", 1)
        .depth(8)
        .with(&pace)
        .repeat(&guest)?;
    let devices = [&disk, &late, &limited]
        .into_iter()
        .map(|disk| disk.dev_t(host))
        .collect::<Result<Vec<_>>>()?;
    let job = Job::random_reads("xvdb", 3 * FROZEN)
        .depth(1)
        .with("--rate_iops=50 --percentile_list=100")
        .start(&guest)?;
    vbd.wait_requests(20)?;
    // The twelfth number is that of discards that the device has answered.
    let wait_discards = |count: u64| {
        host.ok(&format!(
            "discards() {{ set -- $(cat {late_in_sysfs}/stat) && echo ${{12}}; }} && \
             most=$(($(discards) + {count})) && lab_until 60 '[ $(discards) -ge $most ]'"
        ))
    };
    wait_discards(2)?;
    let trace = Trace::start(host, &[Source::bios_of(&devices)])?;
    throttled.wait_requests(5)?;
    wait_discards(2)?;
    host.start_command("echo freeze >/sys/power/state")?
        .ok_within(Duration::from_secs(300))?;
    throttled.wait_requests(2 * REFILL)?;
    wait_discards(2)?;
    let events = trace.stop()?;
    let report = job.finish()?;
    let longest = report.read.clat_ns.percentile.values().max().copied();
    let longest = longest.context("fio gave no longest time")?;
    figures.insert("longest request, ms".into(), (longest / 1_000_000).into());
    check::within(
        "nanoseconds of the request that met the freezer",
        longest,
        PAUSE..=u64::MAX,
    )?;
    for (device, name) in devices
        .iter()
        .zip(["the disk", "the discards", "the throttled disk"])
    {
        let times: Vec<u64> = events
            .iter()
            .filter(|event| event.fields[0] == *device)
            .map(|event| event.time)
            .collect();
        let gaps = times.windows(2).map(|pair| pair[1] - pair[0]);
        let longest = gaps.max().context("nothing was sent to the device")?;
        figures.insert(
            format!("{name}: nothing sent for, ms"),
            (longest / 1_000_000).into(),
        );
        check::within(
            &format!("nanoseconds for which nothing was sent to {name}"),
            longest,
            PAUSE..=u64::MAX,
        )?;
        if *device == devices[2] && host.lab.backend == Backend::Rblkback {
            // A second's tokens and the bucket, wherever the second begins: the time that nobody could use
            // is no gift.
            let within = |from: u64| {
                times
                    .iter()
                    .filter(move |t| (from..from + 1_000_000_000).contains(t))
            };
            let most = times.iter().map(|from| within(*from).count() as u64).max();
            let most = most.unwrap_or(0);
            figures.insert("throttled reads in a second, at most".into(), most.into());
            check::within("throttled reads in a second", most, 1..=REFILL + 1)?;
        }
    }
    host.ok("echo none >/sys/power/pm_test")?;
    // None of them had an error, and on it goes.
    guest.ok_within("touch /tmp/enough && wait $discards", 300)?;
    reads.stop()?;
    Job::verified_writes("xvdb", "4k-44k", 4).run(&guest)?;
    guest.destroy()?;
    disk.remove(host)?;
    late.remove(host)?;
    below.remove(host)?;
    limited.remove(host)
}
