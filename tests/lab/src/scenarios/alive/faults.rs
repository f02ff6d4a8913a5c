// SPDX-License-Identifier: GPL-2.0

//! Devices with errors in the middle, that run full, turn read-only or lose commands; and a dom0 that
//! runs out of memory or of processors.

use anyhow::Context;
use anyhow::Result;

use crate::check;
use crate::disk::Disk;
use crate::fio::Job;
use crate::guest::Guest;
use crate::host::Host;
use crate::lab::Backend;
use crate::results::Figures;
use crate::scenarios::frontend::more_queues;

const BLOCK: u64 = 4096;
const SECTORS: u64 = BLOCK / 512;

/// Which of some blocks the guest cannot read, and which it cannot write: such as `r1024 w1024`.
fn failing(guest: &Guest<'_, '_>, blocks: &[u64], write: bool) -> Result<String> {
    let numbers: Vec<String> = blocks.iter().map(u64::to_string).collect();
    let write = if write {
        "dd if=/dev/zero of=/dev/xvdb bs=4k count=1 seek=$n oflag=direct status=none 2>/dev/null || echo w$n;"
    } else {
        ""
    };
    let text = guest.ok(&format!(
        "for n in {}; do \
         dd if=/dev/xvdb of=/dev/null bs=4k count=1 skip=$n iflag=direct status=none 2>/dev/null || echo r$n; \
         {write} done",
        numbers.join(" ")
    ))?;
    Ok(text.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// One block of a device mapper disk has errors: requests for it fail, no others do. Under load the
/// administrator mends the table, and it is read and written as well.
pub fn error_range(host: &Host<'_>, _figures: &mut Figures) -> Result<()> {
    const BAD: u64 = 1024;
    let below = Disk::memory(host, "nba", 16)?;
    let (path, end) = (&below.path, (16 << 20) / 512);
    let (from, to) = (BAD * SECTORS, (BAD + 1) * SECTORS);
    host.ok("modprobe dm-mod && mkdir -p /dev/mapper && dmsetup mknodes control")?;
    let disk = Disk::target(
        host,
        "bad",
        &format!(
            "0 {from} linear {path} 0\n{from} {SECTORS} error\n{to} {} linear {path} {to}",
            end - to
        ),
    )?;
    let guest = host.guest("errors").start()?;
    let vbd = guest.attach(&disk, "xvdb")?;
    let around = [BAD - 1, BAD, BAD + 1];
    check::equal(
        "what fails",
        failing(&guest, &around, true)?,
        format!("r{BAD} w{BAD}"),
    )?;
    // A larger request with the block in it fails as a whole, its neighbours do not.
    for (piece, good) in [(BAD / 4 - 1, true), (BAD / 4, false), (BAD / 4 + 1, true)] {
        let read = format!(
            "dd if=/dev/xvdb of=/dev/null bs=16k count=1 skip={piece} iflag=direct status=none"
        );
        match good {
            true => guest.ok(&read)?,
            false => guest.refused(&read)?,
        };
    }
    let verify = Job::verified_writes("xvdb", "4k-64k", 2)
        .depth(8)
        .repeat(&guest)?;
    vbd.wait_requests(20)?;
    disk.resize(host, &below, 16)?;
    check::equal("what fails", failing(&guest, &around, true)?.as_str(), "")?;
    verify.stop()?;
    guest.destroy()?;
    disk.remove(host)?;
    below.remove(host)
}

/// A SCSI disk has unreadable sectors, then it does not answer each fiftieth command, which the
/// kernel notices after a second and sends again. The guest sees late answers and no wrong ones, and
/// its other disk nothing of that.
pub fn lost_commands(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    // scsi_debug's own place for them: ten sectors from 0x1234 on.
    const UNREADABLE: [u64; 2] = [0x1234 / SECTORS, (0x1234 + 9) / SECTORS];
    let disk = Disk::scsi(host, "delay=0 dev_size_mb=16 opts=2")?;
    let other = Disk::memory(host, "nb0", 16)?;
    let guest = host.guest("lost").start()?;
    guest.attach(&disk, "xvdb")?;
    guest.attach(&other, "xvdc")?;
    let [first, last] = UNREADABLE;
    check::equal(
        "what fails",
        failing(&guest, &[first - 1, first, last, last + 1], false)?,
        format!("r{first} r{last}"),
    )?;
    let name = disk.path.trim_start_matches("/dev/");
    let driver = "/sys/bus/pseudo/drivers/scsi_debug";
    host.ok(&format!(
        "cd /sys/block/{name}/device && echo 1 >timeout && echo 1 >eh_timeout && \
         echo 50 >{driver}/every_nth && echo 4 >{driver}/opts; cd /"
    ))?;
    let beside = Job::random_reads("xvdc", 1)
        .depth(4)
        .with("--percentile_list=100")
        .repeat(&guest)?;
    let report = Job::verified_writes("xvdb", "4k-64k", 4)
        .depth(8)
        .with("--percentile_list=100")
        .run(&guest)?;
    host.ok(&format!(
        "echo 0 >{driver}/opts && echo 0 >{driver}/every_nth"
    ))?;
    let (_, beside) = beside.stop()?;
    for (what, report, range) in [
        ("the disk's slowest write", &report.write, 900..=u64::MAX),
        ("the other disk's slowest read", &beside.read, 0..=500),
    ] {
        let slowest = report.clat_ns.percentile.values().max().copied();
        let slowest = slowest.context("fio gave no longest time")? / 1_000_000;
        figures.insert(format!("{what}, ms"), slowest.into());
        check::within(&format!("milliseconds of {what}"), slowest, range)?;
    }
    guest.destroy()?;
    other.remove(host)?;
    disk.remove(host)
}

/// A device answers each request five seconds after it has come. The guest has every answer once, and every
/// byte is right; and its other disk waits for nothing.
pub fn delayed(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    const LATE: u32 = 5000;
    const DEPTH: u32 = 32;
    let below = Disk::memory(host, "nba", 16)?;
    let other = Disk::memory(host, "nbb", 16)?;
    host.ok("modprobe dm-delay && mkdir -p /dev/mapper && dmsetup mknodes control")?;
    let table = format!("0 {} delay {} 0 {LATE}", (16 << 20) / 512, below.path);
    let disk = Disk::target(host, "delayed", &table)?;
    let guest = host.guest("delayed").start()?;
    let vbd = guest.attach(&disk, "xvdb")?;
    guest.attach(&other, "xvdc")?;
    let beside = Job::random_reads("xvdc", 1)
        .depth(4)
        .with("--rate_iops=100 --percentile_list=100")
        .repeat(&guest)?;
    let counts = || {
        let count = |file| vbd.number::<u64>(&format!("statistics/{file}"));
        Ok::<_, anyhow::Error>(count("rd_req")? + count("wr_req")?)
    };
    let before = counts()?;
    let report = Job::verified_writes("xvdb", "4k-64k", 1)
        .depth(DEPTH)
        .with("--percentile_list=1:100")
        .run(&guest)?;
    let served = counts()? - before;
    let (_, beside) = beside.stop()?;
    // Far apart in the file, so that the guest's kernel has nothing to merge.
    let asked = report.read.total_ios + report.write.total_ios;
    figures.insert("requests".into(), asked.into());
    check::within("requests that were served", served, asked / 2..=asked)?;
    let times = |direction: &crate::fio::Direction| {
        let times = direction
            .clat_ns
            .percentile
            .values()
            .map(|ns| ns / 1_000_000);
        let both = times.clone().min().zip(times.max());
        both.context("fio gave no times")
    };
    // fio knows a time to a part in 64.
    let least = u64::from(LATE) - u64::from(LATE) / 64;
    for (what, direction) in [("write", &report.write), ("read", &report.read)] {
        let (fastest, slowest) = times(direction)?;
        figures.insert(format!("the slowest {what}, ms"), slowest.into());
        check::within(
            &format!("milliseconds of the fastest {what}"),
            fastest,
            least..=slowest,
        )?;
    }
    let (_, slowest) = times(&beside.read)?;
    figures.insert("the other disk's slowest read, ms".into(), slowest.into());
    check::within(
        "milliseconds of the other disk's slowest read",
        slowest,
        0..=500,
    )?;
    guest.detach("xvdb")?;
    guest.destroy()?;
    disk.remove(host)?;
    below.remove(host)?;
    other.remove(host)
}

/// A thin pool runs full under a guest's writes: they wait, and nobody else does, until the
/// administrator gives the pool more; or they fail, if the pool is set up so.
pub fn thin_full(host: &Host<'_>, _figures: &mut Figures) -> Result<()> {
    const SMALL: u32 = 16;
    const LARGE: u32 = 32;
    let data = Disk::memory(host, "nba", LARGE)?;
    let metadata = Disk::memory(host, "nbb", 4)?;
    let other = Disk::memory(host, "nbc", 16)?;
    let room = Disk::linear(host, "room", &data, SMALL)?;
    let table = |megabytes: u32, options: &str| {
        format!(
            "0 {} thin-pool {} {} 128 0 {options}",
            u64::from(megabytes) * 2048,
            metadata.path,
            room.path
        )
    };
    host.ok("modprobe dm-thin-pool")?;
    let pool = Disk::target(host, "pool", &table(SMALL, "0"))?;
    host.ok("dmsetup message pool 0 'create_thin 0'")?;
    let disk = Disk::target(host, "thin", "0 131072 thin /dev/mapper/pool 0")?;
    let guest = host.guest("full").start()?;
    guest.attach(&disk, "xvdb")?;
    guest.attach(&other, "xvdc")?;
    guest.ok(
        "{ dd if=/dev/zero of=/dev/xvdb bs=64k count=320 oflag=direct status=none; } & writes=$!",
    )?;
    host.ok("lab_until 60 'dmsetup status pool | grep out_of_data_space'")?;
    // What is on its way to the full pool holds up nothing else.
    Job::verified_writes("xvdc", "4k-64k", 4)
        .depth(8)
        .run(&guest)?;
    room.resize(host, &data, LARGE)?;
    let reload = |options| {
        host.ok(&format!(
            "dmsetup load pool --table '{}' && dmsetup resume --noudevsync pool",
            table(LARGE, options)
        ))
    };
    reload("0")?;
    guest
        .ok_within("wait $writes", 120)
        .context("20 MiB that fit now")?;
    reload("1 error_if_no_space")?;
    guest.refused(
        "dd if=/dev/zero of=/dev/xvdb bs=64k count=320 seek=320 oflag=direct status=none",
    )?;
    Job::verified_writes("xvdb", "4k-64k", 4)
        .depth(8)
        .run(&guest)
        .context("what has its room")?;
    guest.destroy()?;
    [disk, pool, room, metadata, data, other]
        .into_iter()
        .try_for_each(|disk| disk.remove(host))
}

/// The administrator makes the device read-only under load, and writable again: writes fail
/// meanwhile, reads do not.
pub fn set_read_only(host: &Host<'_>, _figures: &mut Figures) -> Result<()> {
    let disk = Disk::memory(host, "nb0", 16)?;
    let guest = host.guest("readonly").start()?;
    let vbd = guest.attach(&disk, "xvdb")?;
    let load = Job::random_reads("xvdb", 1).depth(8).repeat(&guest)?;
    vbd.wait_requests(20)?;
    for (mode, expected) in [("--setro", "w7"), ("--setrw", "")] {
        host.ok(&format!("blockdev {mode} {}", disk.path))?;
        check::equal(
            &format!("what fails after {mode}"),
            failing(&guest, &[7], true)?.as_str(),
            expected,
        )?;
    }
    load.stop()?;
    guest.destroy()?;
    disk.remove(host)
}

/// dom0 has next to no memory left: a guest's four queues go on, with every byte right.
pub fn squeezed(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    let disk = Disk::memory(host, "nb0", 32)?;
    more_queues(host, Backend::Rblkback)?;
    let guest = host.guest("squeezed").processors(4).memory(256).start()?;
    guest.attach(&disk, "xvdb")?;
    let verify = || {
        Job::verified_writes("xvdb", "4k-128k", 32)
            .depth(32)
            .with("--numjobs=4 --offset_increment=8M --size=8M --group_reporting")
            .run(&guest)
    };
    // What the device keeps is there before.
    verify()?;
    let left = host.ok_within(
        "available() { awk '/^MemAvailable/ { print $2 }' /proc/meminfo; }; \
         mkdir -p /run/hog && mount -t tmpfs -o size=100% none /run/hog && n=0; \
         while more=$(($(available) - 24000)) && [ $more -gt 0 ]; do \
         fallocate -l ${more}K /run/hog/$((n++)) || break; done; \
         available",
        300,
    )?;
    figures.insert("kilobytes left to dom0".into(), left.as_str().into());
    let stalls = || -> Result<(u64, u64)> {
        let text = host.ok(
            "awk '/^allocstall_/ { stalls += $2 } /^pgscan_(kswapd|direct) / { scanned += $2 } \
             END { print stalls + 0, scanned + 0 }' /proc/vmstat",
        )?;
        let (stalls, scanned) = text.split_once(' ').context("two numbers")?;
        Ok((stalls.parse()?, scanned.trim().parse()?))
    };
    // Somebody reads a disk without end, and the page cache takes what is left again and again.
    let (_, scanned) = stalls()?;
    let endless = Disk::instant(host, "nb1", 1 << 20)?;
    host.ok(&format!(
        "{{ nice -n 19 dd if={} of=/dev/null bs=1M status=none & }} && endless=$! && \
         lab_until 120 'awk \"/^pgscan_(kswapd|direct) / {{ n += \\$2 }} END {{ exit n <= {scanned} }}\" /proc/vmstat'",
        endless.path
    ))?;
    let before = stalls()?;
    let report = verify()?;
    let after = stalls()?;
    check::equal("bytes verified", report.read.io_bytes, 32 << 20)?;
    for (what, grown) in [
        ("allocations that waited for memory", after.0 - before.0),
        (
            "pages that the kernel looked at for memory",
            after.1 - before.1,
        ),
    ] {
        figures.insert(format!("{what} under I/O"), grown.into());
        check::within(what, grown, 1..=u64::MAX)?;
    }
    host.ok("kill $endless; wait $endless; umount /run/hog")?;
    endless.remove(host)?;
    guest.destroy()?;
    disk.remove(host)
}

/// One of dom0's processors is taken offline and brought back under load: the guest's I/O goes on, and a
/// limit gives no more than it may.
pub fn offline(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    const REFILL: u64 = 200;
    let disk = Disk::memory(host, "nba", 16)?;
    let limited = Disk::memory(host, "nbb", 16)?;
    more_queues(host, Backend::Rblkback)?;
    let guest = host.guest("offline").processors(2).start()?;
    let busy = guest.attach(&disk, "xvdb")?;
    let held = guest.attach(&limited, "xvdc")?;
    held.limit(REFILL, 1)?;
    let verify = Job::verified_writes("xvdb", "4k-64k", 8)
        .depth(16)
        .repeat(&guest)?;
    let reads = Job::random_reads("xvdc", 1).depth(8).repeat(&guest)?;
    let count = || {
        let text = host.ok(&format!(
            "read -r now _ </proc/uptime && echo $now $(cat {}/statistics/rd_req)",
            held.sysfs()
        ))?;
        let (seconds, served) = text.split_once(' ').context("two numbers")?;
        Ok::<_, anyhow::Error>((seconds.parse::<f64>()?, served.trim().parse::<f64>()?))
    };
    held.wait_requests(10)?;
    let before = count()?;
    for online in [0, 1, 0, 1] {
        host.ok(&format!(
            "echo {online} >/sys/devices/system/cpu/cpu1/online"
        ))?;
        busy.wait_requests(200)?;
        held.wait_requests(40)?;
    }
    let after = count()?;
    let served = after.1 - before.1;
    // A hundredth of a second is what /proc/uptime leaves out at either end.
    let most = (after.0 - before.0 + 0.02) * REFILL as f64 + 2.0;
    figures.insert("reads served".into(), served.into());
    check::within("reads under the limit", served, 160.0..=most)?;
    reads.stop()?;
    verify.stop()?;
    guest.destroy()?;
    disk.remove(host)?;
    limited.remove(host)
}
