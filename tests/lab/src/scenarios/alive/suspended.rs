// SPDX-License-Identifier: GPL-2.0

use anyhow::Context;
use anyhow::Result;

use crate::check;
use crate::device::Device;
use crate::disk::Disk;
use crate::fio::Job;
use crate::fio::RepeatedJob;
use crate::guest::Guest;
use crate::host::Host;
use crate::lab::Backend;
use crate::results::Figures;
use crate::scenarios::frontend::more_queues;
use crate::trace;
use crate::trace::Source;
use crate::trace::Trace;
use crate::vbd::Vbd;

const MEGABYTES: u32 = 16;
/// A full ring of one page.
pub(super) const DEPTH: u32 = 32;
/// Requests a second: a full ring takes 6 s.
const REFILL: u64 = 5;
/// Seconds of the host's time until all rings are full, on a busy computer: a ring's last requests take
/// half a minute of the guest's where there are four.
const FULL: u64 = 600;
/// Nanoseconds after the suspension in which a request may still go to the device: what the
/// documentation promises, and a tick of Xen's or of dom0's.
const ALLOWED: u64 = 20_000_000;
/// Nanoseconds after which I/O goes on when the guest runs again.
pub(super) const GOES_ON: u64 = 100_000_000;
const NS_PER_MS: u64 = 1_000_000;
/// Megabytes that are discarded, and those of a request of the device's.
const DISCARDED: u32 = 1 << 10;
const PART: u32 = 4;
/// Milliseconds that xl may take for a guest whose requests are held.
const DESTROYED: u64 = 5_000;

/// How a guest is suspended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Save,
    Migration,
    Checkpoint,
}

/// A guest with a full ring at 5 requests/s is saved and restored, migrated by steps, and saved to
/// go on as it is. Its requests that wait for tokens do not go to the device from the moment that
/// it is suspended: it sends them again where it goes on, and its verify does not notice.
pub fn suspended(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    each_way(host, figures, 1)
}

/// The same with a full ring for each of four processors.
pub fn suspended_queues(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    more_queues(host, Backend::Rblkback)?;
    each_way(host, figures, 4)
}

fn each_way(host: &Host<'_>, figures: &mut Figures, queues: u32) -> Result<()> {
    let disk = Disk::memory(host, "nb0", MEGABYTES)?;
    let mut guest = host.guest("suspended").disk(&disk, "xvda");
    if queues > 1 {
        guest = guest.processors(queues).memory(256);
    }
    let guest = guest.start()?;
    guest.wait_disk("xvda")?;
    let verify = Job::on_each_processor("xvda", "4k-44k", MEGABYTES, queues)
        .depth(DEPTH)
        .repeat(&guest)?;
    for (name, way) in [
        ("save", Way::Save),
        ("migration", Way::Migration),
        ("checkpoint", Way::Checkpoint),
    ] {
        suspend(host, &guest, (&disk, queues), (name, way), figures).context(name)?;
    }
    let (runs, report) = verify.stop()?;
    let bytes = u64::from(MEGABYTES) << 20;
    check::equal("bytes verified", report.read.io_bytes, bytes)?;
    figures.insert("bytes verified".into(), (runs * bytes).into());
    guest.destroy()?;
    disk.remove(host)
}

fn suspend(
    host: &Host<'_>,
    guest: &Guest<'_, '_>,
    (disk, queues): (&Disk, u32),
    (name, way): (&str, Way),
    figures: &mut Figures,
) -> Result<()> {
    let vbd = guest.vbd("xvda");
    vbd.wait_requests(20)?;
    vbd.limit(REFILL, 1)?;
    let busy = queues * (DEPTH - 2);
    // A job that was about to end has to, at the limit, before the next one fills its ring.
    let full = format!(
        "until [ $(awk '{{ print $1 + $2 }}' /sys/block/xvda/inflight) -ge {busy} ]; do sleep 0.1; done"
    );
    guest.ok_within(&full, FULL)?;
    vbd.wait_file("qos/state", "throttled")?;
    let dev_t = disk.dev_t(host)?;
    let trace = Trace::start(host, &[Source::bios(dev_t), Source::issued(dev_t)])?;
    watch(host, guest)?;
    match way {
        Way::Save => guest.save_and_restore()?,
        Way::Migration => guest.migrate()?,
        Way::Checkpoint => guest.checkpoint()?,
    }
    guest.vbd("xvda").wait_state("4")?;
    guest.vbd("xvda").wait_requests(1)?;
    let events = trace.stop()?;
    let [shut, next] = changes(host)?;
    for (source, what) in [(0, "bio"), (1, "request of the device's")] {
        let times = trace::times(&events, source);
        judge(name, what, &times, (shut, next), figures)?;
        let on = first(&times, next.before).context("no I/O after it")?;
        if way == Way::Checkpoint {
            let took = on.saturating_sub(next.before);
            figures.insert(format!("{name}: I/O goes on after ms"), ms(took));
            check::within("nanoseconds until I/O goes on", took, 0..=GOES_ON)?;
        } else {
            let elsewhere = on.saturating_sub(shut.at);
            figures.insert(format!("{name}: first {what} elsewhere, ms"), ms(elsewhere));
            check::within(
                "nanoseconds until the guest sends something elsewhere",
                elsewhere,
                10 * ALLOWED..=u64::MAX,
            )?;
        }
    }
    guest.vbd("xvda").unlimit()
}

/// A guest whose disks have requests that the driver has consumed and the device does not have: parts of
/// a discard that wait for one another, and reads that wait for frames.
struct Waiting<'h, 'l> {
    guest: Guest<'h, 'l>,
    discards: Disk,
    reads: Disk,
    discarding: Vbd<'h, 'l>,
    reading: Vbd<'h, 'l>,
}

impl<'h, 'l> Waiting<'h, 'l> {
    /// The guest, which is not at work yet.
    fn new(host: &'h Host<'l>) -> Result<Self> {
        host.use_device(Device::Ms50);
        let discards = Disk::memory_with(
            host,
            "nba",
            DISCARDED,
            "echo 1 >discard && echo 4096 >blocksize",
        )?;
        // The block layer has hundreds of requests to make of one call to it.
        host.ok(&format!(
            "echo $(({PART} << 20)) >/sys/block/nba/queue/discard_max_bytes"
        ))?;
        let reads = Disk::blank(host, "nbb", 64)?;
        host.ok("echo 1024 >/sys/module/rblkback/parameters/max_guest_frames")?;
        let guest = host.guest("held").start()?;
        Ok(Waiting {
            discarding: guest.attach(&discards, "xvdb")?,
            reading: guest.attach(&reads, "xvdc")?,
            guest,
            discards,
            reads,
        })
    }

    /// Puts the guest to work until requests of both kinds wait.
    fn begin(&self) -> Result<RepeatedJob<'_, 'h, 'l>> {
        self.guest.ok(
            "{ until [ -e /tmp/stop ]; do blkdiscard /dev/xvdb || exit 1; done; } & discards=$!",
        )?;
        let read = Job::of(
            "/dev/xvdc",
            "--rw=randread --norandommap --bs=1m --time_based --runtime=1",
        )
        .depth(DEPTH)
        .repeat(&self.guest)?;
        self.discarding
            .wait_file("statistics/ds_req", "[1-9][0-9]*")?;
        self.reading.wait_file("statistics/oo_req", "[1-9][0-9]*")?;
        Ok(read)
    }

    fn remove(host: &Host<'_>, disks: [Disk; 2]) -> Result<()> {
        host.ok("echo 65536 >/sys/module/rblkback/parameters/max_guest_frames")?;
        disks.into_iter().try_for_each(|disk| disk.remove(host))
    }
}

/// Parts of a discard wait for one another, and reads for frames, when Xen suspends their guest: none is
/// sent before it runs again. Then all of them are.
pub fn held(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    let waiting = Waiting::new(host)?;
    let read = waiting.begin()?;
    let devices = [waiting.discards.dev_t(host)?, waiting.reads.dev_t(host)?];
    // What a device gets of a discard is its requests: a bio may be of several.
    let sources = [Source::bios(devices[1]), Source::issued_of(&devices)];
    let trace = Trace::start(host, &sources)?;
    watch(host, &waiting.guest)?;
    let domid = waiting.guest.domid();
    // The two seconds are what is looked at, not waited for.
    host.ok(&format!(
        "/lab/frontend suspend {domid} && sleep 2 && /lab/frontend resume {domid}"
    ))?;
    // The trace is to have what comes next of both kinds.
    waiting.reading.wait_requests(64)?;
    let events = trace.stop()?;
    let [shut, next] = changes(host)?;
    for (device, what) in devices.into_iter().zip(["discard", "read"]) {
        // An event's first field is the device.
        let of_device = events.iter().filter(|event| event.fields[0] == device);
        let times: Vec<u64> = of_device.map(|event| event.time).collect();
        judge("held", what, &times, (shut, next), figures)?;
        let on = first(&times, next.before).with_context(|| format!("no {what} after it"))?;
        let took = on.saturating_sub(next.before);
        figures.insert(format!("{what}s go on after ms"), ms(took));
        check::within("nanoseconds until I/O goes on", took, 0..=GOES_ON)?;
    }
    check::equal("errors of reads", read.stop()?.1.error, 0)?;
    waiting
        .guest
        .ok("touch /tmp/stop; wait $discards")
        .context("blkdiscard")?;
    waiting.guest.destroy()?;
    Waiting::remove(host, [waiting.discards, waiting.reads])
}

/// A guest is destroyed while it is suspended and has such requests, as `xl save` and `xl migrate` do with
/// the old one: nobody waits for what is held, and nothing of it is sent.
pub fn given_up(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    let waiting = Waiting::new(host)?;
    std::mem::forget(waiting.begin()?);
    let devices = [waiting.discards.dev_t(host)?, waiting.reads.dev_t(host)?];
    let trace = Trace::start(host, &[Source::issued_of(&devices)])?;
    watch(host, &waiting.guest)?;
    let (domid, name) = (waiting.guest.domid(), waiting.guest.name.clone());
    let took = host.timed(&format!(
        "eval '/lab/frontend suspend {domid} && xl destroy {name}'"
    ))?;
    let events = trace.stop()?;
    let [shut, gone] = changes(host)?;
    judge(
        "destroyed",
        "request",
        &trace::times(&events, 0),
        (shut, gone),
        figures,
    )?;
    let late = events.iter().filter(|event| event.time > gone.at).count();
    check::equal("requests sent after the guest", late, 0)?;
    figures.insert("xl destroy, ms".into(), took.into());
    // It gives up on a disk after 10 s.
    check::within("milliseconds of xl destroy", took, 0..=DESTROYED)?;
    waiting.guest.gone()?;
    Waiting::remove(host, [waiting.discards, waiting.reads])
}

/// A change of the guest's state.
#[derive(Clone, Copy)]
pub(super) struct Change {
    /// The last moment at which it had not happened yet, in nanoseconds of dom0's CLOCK_MONOTONIC.
    pub(super) before: u64,
    /// The first at which it had.
    pub(super) at: u64,
}

pub(super) fn watch(host: &Host<'_>, guest: &Guest<'_, '_>) -> Result<()> {
    let domid = guest.domid();
    host.ok(&format!(
        "{{ /lab/frontend watch {domid} >/run/watch & }} && lab_file /run/watch '.*running' 30"
    ))
    .map(drop)
}

/// The suspension, and what came next.
pub(super) fn changes(host: &Host<'_>) -> Result<[Change; 2]> {
    let text = host.ok("cat /run/watch")?;
    let mut changes = text.lines().map(|line| {
        let mut words = line.split(' ');
        let mut number = || words.next().and_then(|word| word.parse().ok());
        let change = number().zip(number());
        let (before, at) = change.with_context(|| format!("no times: {line:?}"))?;
        let state = words.next().unwrap_or_default();
        Ok::<_, anyhow::Error>((state, Change { before, at }))
    });
    let mut next = |wanted: &str| {
        let (state, change) = changes.next().context("a change is missing")??;
        let expected = wanted.split('|').any(|word| word == state);
        check::that(expected, || format!("expected {wanted}, saw {state}"))?;
        Ok::<_, anyhow::Error>(change)
    };
    next("running")?;
    Ok([next("shut-down")?, next("running|gone")?])
}

/// Nothing is sent from a little after the suspension until something comes next.
pub(super) fn judge(
    name: &str,
    what: &str,
    times: &[u64],
    (shut, next): (Change, Change),
    figures: &mut Figures,
) -> Result<()> {
    let meanwhile = times
        .iter()
        .copied()
        .filter(|time| (shut.before..next.before).contains(time));
    let last = meanwhile.max().map_or(0, |time| time - shut.before);
    figures.insert(format!("{name}: last {what} after ms"), ms(last));
    let length = next.before.saturating_sub(shut.at);
    figures.insert(format!("{name}: suspended for ms"), ms(length));
    check::within(
        "nanoseconds suspended",
        length,
        1_000_000_000 / REFILL..=u64::MAX,
    )?;
    check::within(
        &format!("nanoseconds from the suspension to the last {what}"),
        last,
        0..=ALLOWED,
    )
}

pub(super) fn first(times: &[u64], after: u64) -> Option<u64> {
    times.iter().copied().find(|time| *time >= after)
}

pub(super) fn ms(nanoseconds: u64) -> serde_json::Value {
    (nanoseconds / NS_PER_MS).into()
}
