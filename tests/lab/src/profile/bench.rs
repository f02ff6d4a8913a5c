// SPDX-License-Identifier: GPL-2.0

//! The host that is looked at: one guest, one disk, and either backend in turn.

use std::fs::File;
use std::io::BufRead;
use std::io::BufReader;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::mpsc;
use std::sync::mpsc::Sender;
use std::thread;
use std::time::Duration;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;

use super::log;
use super::log::Step;
use super::paths::Paths;
use super::stints;
use super::stints::Landmarks;
use super::stints::Recorder;
use super::stints::Shares;
use super::stints::Stint;
use super::symbols::Symbols;
use crate::bench::jobs::Job;
use crate::check;
use crate::disk::Disk;
use crate::fio;
use crate::guest::Guest;
use crate::host::Host;
use crate::lab::Backend;
use crate::shell::DEADLINE;

/// How long the log may take, however busy this machine is.
const PATIENCE: Duration = Duration::from_secs(3600);
const DEVICE: &str = "/dev/xvda";
/// Requests of a short run.
const FEW: u64 = 1_000;
/// Requests that make up for the time between the job's begin and that of the log.
const LEAD: u64 = 8_000;
/// Of it, seconds of the host's own clock in which it gets over what had to be done to see the
/// job begin: when a trace ends, the kernel waits for grace periods.
const REST: &str = "0.2";
/// Fewer than any request takes, in guest, dom0 and Xen together.
const CHEAPEST: u64 = 10_000;

/// What was seen of one job on one backend.
pub struct Seen {
    pub symbols: Symbols,
    pub paths: Paths,
    pub shares: Shares,
    /// Nanoseconds of dom0's for each request, as Xen accounts them, while nobody looked.
    pub run_time: f64,
}

pub struct Bench<'h, 'l> {
    host: &'h Host<'l>,
    guest: Guest<'h, 'l>,
    disk: Disk,
    /// Functions of Xen.
    xensyms: String,
}

impl<'h, 'l> Bench<'h, 'l> {
    pub fn new(host: &'h Host<'l>) -> Result<Self> {
        Ok(Bench {
            host,
            guest: host.guest("profile").start()?,
            disk: Disk::blank(host, "nb0", 1024)?,
            xensyms: host.ok("cat /proc/xen/xensyms")?,
        })
    }

    /// Runs a job on a backend, first by itself and then with so many instructions of the host
    /// written down.
    pub fn look(&self, backend: Backend, job: &Job, instructions: u64) -> Result<Seen> {
        let (host, guest) = (self.host, &self.guest);
        host.load(backend)?;
        let vbd = guest.attach(&self.disk, "xvda")?;
        check::equal("the driver", vbd.driver()?.as_str(), backend.driver())?;
        let symbols = Symbols::parse(&self.kallsyms()?, &self.xensyms)?;
        let landmarks = Landmarks::new(&symbols, backend.module())?;
        let run_time = self.run_time(job)?;
        let running = self.begin(&job.fio(&[DEVICE.into()], LEAD + instructions / CHEAPEST))?;
        let (paths, stints) = record(host, &symbols, &landmarks, instructions)?;
        running.finish()?;
        guest.detach("xvda")?;
        host.store_wait(&vbd.path("state"), "absent")?;
        Ok(Seen {
            shares: stints::share(stints)?,
            symbols,
            paths,
            run_time,
        })
    }

    pub fn end(self) -> Result<()> {
        self.guest.destroy()?;
        self.disk.remove(self.host)
    }

    /// Functions of dom0's kernel and of the modules it has now.
    fn kallsyms(&self) -> Result<String> {
        self.host.ok_within("grep -i ' [tw] ' /proc/kallsyms", 300)
    }

    /// What a request of the job costs dom0 by Xen's account: the difference between many requests
    /// and few, so that the programs that ask for the account do not count.
    fn run_time(&self, job: &Job) -> Result<f64> {
        let spent = |requests| -> Result<u64> {
            let before = self.host.run_time()?;
            job.fio(&[DEVICE.into()], requests).run(&self.guest)?;
            Ok(self.host.run_time()? - before)
        };
        // Whatever is done the first time.
        spent(FEW)?;
        let (few, many) = (spent(FEW)?, spent(job.requests)?);
        Ok((many - few) as f64 / (job.requests - FEW) as f64)
    }

    /// Starts a job; returns when dom0 has met its first request.
    fn begin(&self, job: &fio::Job) -> Result<fio::RunningJob<'_>> {
        let number = self.disk.dev_t(self.host)?;
        self.host.ok(&format!("lab_gate {number}"))?;
        let first = self.host.start_command("lab_first_io")?;
        let running = job.start(&self.guest)?;
        first.ok_within(DEADLINE)?;
        self.host.ok(&format!("lab_rest {REST}"))?;
        Ok(running)
    }
}

/// Writes down so many instructions of a host that is busy already.
fn record(
    host: &Host<'_>,
    symbols: &Symbols,
    landmarks: &Landmarks,
    instructions: u64,
) -> Result<(Paths, Vec<Stint>)> {
    let (reader, writer) = nix::unistd::pipe()?;
    // QEMU opens this end of the pipe once more.
    let file = PathBuf::from(format!(
        "/proc/{}/fd/{}",
        std::process::id(),
        writer.as_raw_fd()
    ));
    let recorder = Recorder::new(symbols, landmarks);
    let (full, enough) = mpsc::channel();
    thread::scope(|scope| {
        let recording = scope.spawn(move || read(reader.into(), recorder, instructions, &full));
        let started = host.qemu.log_instructions(&file);
        drop(writer);
        let seen = started.map(|()| enough.recv_timeout(PATIENCE));
        // Even if that failed: the log's end is the reader's.
        host.qemu.log_nothing()?;
        let recorded = recording.join();
        if seen?.is_err() {
            bail!("the host executed no {instructions} instructions in an hour");
        }
        recorded.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Reads QEMU's log to its end; says when there was enough of it.
fn read(
    pipe: File,
    mut recorder: Recorder<'_>,
    instructions: u64,
    full: &Sender<()>,
) -> Result<(Paths, Vec<Stint>)> {
    let mut log = BufReader::with_capacity(1 << 20, pipe);
    let mut line = Vec::new();
    let mut left = instructions;
    while log.read_until(b'\n', &mut line)? > 0 {
        if let Some(step) = log::parse(&line).filter(|_| left > 0) {
            left -= u64::from(matches!(step, Step::Execute(_)));
            recorder.step(step);
            if left == 0 {
                full.send(()).context("nobody waits for the recording")?;
            }
        }
        line.clear();
    }
    Ok(recorder.finish())
}
