// SPDX-License-Identifier: GPL-2.0

//! The demonstration: a guest on a stock Xen host, its disk served by rblkback, its limit changed
//! with plain `xenstore-write` while it does I/O, and moved to xen-blkback and back.

use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use anyhow::Result;
use serde::Serialize;

use crate::check;
use crate::disk::Disk;
use crate::fio::Job;
use crate::guest::Guest;
use crate::host::Host;
use crate::lab::Backend;
use crate::lab::Lab;
use crate::picture;
use crate::results::write_json;
use crate::sample::Sample;
use crate::scenario::Kind;
use crate::scenario::Machine;
use crate::shell::Line;
use crate::vbd::Vbd;

const PERIOD: Duration = Duration::from_millis(500);
const VERIFY_MB: u32 = 64;
/// What one verify covers while the disk moves; it is repeated.
const MOVED_MB: u32 = 8;

/// One setting of the limit, `seconds` of the host's clock long.
struct Phase {
    refill: u64,
    max: u64,
    seconds: u32,
}

/// No limit, a low one, a higher one, none again.
const PHASES: [Phase; 4] = [
    Phase {
        refill: 0,
        max: 0,
        seconds: 3,
    },
    Phase {
        refill: 200,
        max: 20,
        seconds: 7,
    },
    Phase {
        refill: 1000,
        max: 100,
        seconds: 7,
    },
    Phase {
        refill: 0,
        max: 0,
        seconds: 3,
    },
];

/// What one phase came to.
#[derive(Serialize)]
struct Outcome {
    /// Tokens per second; 0 is no limit.
    limit: u64,
    iops: f64,
    error_percent: Option<f64>,
    throttled_percent: f64,
    ok: bool,
}

/// Everything the demonstration saw.
#[derive(Serialize)]
struct Record<'a> {
    ok: bool,
    seconds: f64,
    lab: &'a std::collections::BTreeMap<String, String>,
    bytes_verified: u64,
    bytes_verified_while_moved: u64,
    phases: Vec<Outcome>,
    samples: Vec<Sample>,
}

/// Runs it; true if all was as it should be.
pub fn run(lab: &Lab) -> Result<bool> {
    let begin = Instant::now();
    let version = |key: &str| lab.versions.get(key).map_or("?", String::as_str);
    println!(
        "booting a Xen {} host with Debian's kernel {} in QEMU ...",
        version("XEN_VERSION"),
        version("KERNEL_RELEASE")
    );
    // Counted instructions: what is shown does not depend on how busy this machine is.
    let host = Host::boot(lab, Machine::of(Kind::Plain))?;
    println!(
        "dom0 is up, {} is loaded ({:.0} s)",
        lab.module.file_name().unwrap_or_default().to_string_lossy(),
        begin.elapsed().as_secs_f64()
    );
    let disk = Disk::memory(&host, "nb0", 256)?;
    let guest = host.guest("demo").disk(&disk, "xvda").start()?;
    guest.wait_disk("xvda")?;
    println!(
        "xl create: guest {} is up, its xvda is {} in dom0 ({:.0} s)",
        guest.name,
        disk.path,
        begin.elapsed().as_secs_f64()
    );
    let bytes_verified = Job::verified_writes("xvda", "4k-44k", VERIFY_MB)
        .depth(16)
        .run(&guest)?
        .read
        .io_bytes;
    println!(
        "fio: {} MiB of random 4k..44k writes read back with good checksums ({:.0} s)\n",
        bytes_verified >> 20,
        begin.elapsed().as_secs_f64()
    );

    let samples = limited_io(&host, &guest, &disk)?;
    let bytes_verified_while_moved = moved(&host, &guest)?;
    let complaints = crate::logs::Mark::everything().search(&host);
    let phases = judge(&samples)?;
    let ok = complaints.is_ok() && phases.iter().all(|p| p.ok);
    println!("\n{}", verdict(&phases));
    if let Err(complaint) = &complaints {
        println!("{complaint:#}");
    }
    let png = lab.build("demo.png");
    picture::draw(&png, &points(&samples), &steps())?;
    let seconds = begin.elapsed().as_secs_f64();
    let record = Record {
        ok,
        seconds,
        lab: &lab.versions,
        bytes_verified,
        bytes_verified_while_moved,
        phases,
        samples,
    };
    write_json(&lab.build("results/demo.json"), &record)?;
    println!(
        "picture: {}   figures: {}   {seconds:.0} s",
        png.display(),
        lab.build("results/demo.json").display()
    );
    println!("{}", if ok { "demo: PASSED" } else { "demo: FAILED" });
    Ok(ok)
}

/// Random I/O in the guest while dom0 changes the limit; prints the table as it happens.
fn limited_io(host: &Host<'_>, guest: &Guest<'_, '_>, disk: &Disk) -> Result<Vec<Sample>> {
    let vbd = guest.vbd("xvda");
    let seconds: u32 = PHASES.iter().map(|p| p.seconds).sum();
    let samples = seconds * 1000 / PERIOD.as_millis() as u32;
    let changes: Vec<String> = PHASES
        .iter()
        .enumerate()
        .map(|(i, phase)| change(&vbd, i, phase))
        .collect();
    host.ok(&format!("lab_gate {}", disk.dev_t(host)?))?;
    let mut script = host.start_command(&format!(
        "lab_first_io; /lab/lab sample {} {} {samples} & SAMPLER=$!; {}; wait $SAMPLER",
        vbd.sysfs(),
        PERIOD.as_millis(),
        changes.join("; ")
    ))?;
    let job = Job::random_reads("xvda", seconds + 2)
        .with("--rw=randrw")
        .depth(32)
        .start(guest)?;
    println!("    time   tokens-refill  tokens-max      IOPS   tokens  throttled  state");
    let mut seen: Vec<Sample> = Vec::new();
    loop {
        match script.next_line(Duration::from_secs(300))? {
            Line::Text(text) => {
                let sample: Sample =
                    serde_json::from_str(&text).with_context(|| format!("no sample: {text:?}"))?;
                if let Some(last) = seen.last() {
                    print_row(last, &sample);
                }
                seen.push(sample);
            }
            Line::End(status) => {
                check::equal("the sampler's status", status, 0)?;
                break;
            }
        }
    }
    job.finish()?;
    Ok(seen)
}

/// Moves the disk to xen-blkback and back while the guest verifies what it writes; gives the bytes
/// that were verified.
fn moved(host: &Host<'_>, guest: &Guest<'_, '_>) -> Result<u64> {
    println!("\nfio verifies its writes while the running guest's disk moves:");
    let vbd = guest.vbd("xvda");
    let verify = Job::verified_writes("xvda", "4k-44k", MOVED_MB)
        .depth(16)
        .repeat(guest)?;
    host.ok(Backend::Blkback.load_command())?;
    for (from, to) in [
        (Backend::Rblkback, Backend::Blkback),
        (Backend::Blkback, Backend::Rblkback),
    ] {
        vbd.wait_requests(100)?;
        vbd.unbind(from)?;
        vbd.bind(to)?;
        vbd.wait_state("4")?;
        check::equal("the disk's driver", vbd.driver()?.as_str(), to.driver())?;
        vbd.wait_requests(100)?;
        println!(
            "    from {} to {}: the guest's I/O goes on",
            from.module(),
            to.module()
        );
    }
    let (runs, _) = verify.stop()?;
    check::equal("the error node", vbd.error()?, None)?;
    let bytes = (runs * u64::from(MOVED_MB)) << 20;
    println!("    fio: {} MiB read back with good checksums", bytes >> 20);
    Ok(bytes)
}

fn change(vbd: &Vbd<'_, '_>, number: usize, phase: &Phase) -> String {
    let command = match (number, phase.refill) {
        (0, _) => "true".into(),
        (_, 0) => vbd.unlimit_command(),
        (_, refill) => vbd.limit_command(refill, phase.max),
    };
    format!("{command}; sleep {}", phase.seconds)
}

fn rate(last: &Sample, now: &Sample) -> f64 {
    (now.requests - last.requests) as f64 / (now.seconds - last.seconds)
}

fn throttled_percent(last: &Sample, now: &Sample) -> f64 {
    (now.throttled_usec - last.throttled_usec) as f64 / (now.seconds - last.seconds) / 1e4
}

fn print_row(last: &Sample, now: &Sample) {
    let limited = |n: u64| {
        if now.refill == 0 {
            "none".to_string()
        } else {
            n.to_string()
        }
    };
    println!(
        "{:>6.1} s  {:>14} {:>11} {:>9.0} {:>8} {:>8.2} s  {}",
        now.seconds,
        limited(now.refill),
        limited(now.max),
        rate(last, now),
        if now.refill == 0 {
            "-".to_string()
        } else {
            now.tokens.to_string()
        },
        now.throttled_usec as f64 / 1e6,
        now.state
    );
}

/// Each phase from half a second after its change, when its first burst is over, to its end.
fn judge(samples: &[Sample]) -> Result<Vec<Outcome>> {
    let mut start = 0.0;
    let mut unlimited = f64::MAX;
    let mut outcomes = Vec::new();
    for phase in &PHASES {
        let end = start + f64::from(phase.seconds);
        let inside: Vec<&Sample> = samples
            .iter()
            .filter(|s| s.seconds > start + 0.9 && s.seconds < end - 0.1)
            .collect();
        let (first, last) = inside
            .first()
            .zip(inside.last())
            .context("a phase without samples")?;
        let iops = rate(first, last);
        let throttled_percent = throttled_percent(first, last);
        let error_percent = (phase.refill > 0).then(|| (iops / phase.refill as f64 - 1.0) * 100.0);
        let ok = match error_percent {
            Some(error) => error.abs() <= 1.0 && throttled_percent > 50.0,
            None => iops > 1500.0 && throttled_percent == 0.0,
        };
        unlimited = if phase.refill == 0 {
            unlimited.min(iops)
        } else {
            unlimited
        };
        outcomes.push(Outcome {
            limit: phase.refill,
            iops,
            error_percent,
            throttled_percent,
            ok,
        });
        start = end;
    }
    Ok(outcomes)
}

fn verdict(phases: &[Outcome]) -> String {
    let line = |p: &Outcome| {
        let word = if p.ok { "ok    " } else { "FAILED" };
        match p.error_percent {
            Some(error) => format!(
                "{word} limit {:>5}/s: {:>7.1} IOPS, {error:+.2} %, throttled {:.0} % of the time",
                p.limit, p.iops, p.throttled_percent
            ),
            None => format!("{word} no limit:     {:>7.1} IOPS, never throttled", p.iops),
        }
    };
    phases.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn points(samples: &[Sample]) -> Vec<picture::Point> {
    let middle = |a: &Sample, b: &Sample| (a.seconds + b.seconds) / 2.0;
    samples
        .windows(2)
        .map(|w| {
            (
                middle(&w[0], &w[1]),
                rate(&w[0], &w[1]),
                throttled_percent(&w[0], &w[1]),
            )
        })
        .collect()
}

fn steps() -> Vec<picture::Step> {
    let mut at = 0.0;
    let mut steps = Vec::new();
    for (i, phase) in PHASES.iter().enumerate() {
        let words = match (i, phase.refill) {
            (0, _) => "no limit".to_string(),
            (_, 0) => "limit removed".to_string(),
            (_, refill) => format!("tokens-refill {refill}"),
        };
        steps.push((at, phase.refill, words));
        at += f64::from(phase.seconds);
    }
    steps
}
