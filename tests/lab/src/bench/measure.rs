// SPDX-License-Identifier: GPL-2.0

//! One job, with each server in turn and then once more in the opposite order: whatever grows or
//! shrinks with a host's age, nobody gains by it.

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;

use super::counters::Observed;
use super::jobs::Job;
use super::jobs::Server;
use super::plan::Run;
use super::record;
use super::record::Record;
use super::record::Sample;
use crate::check;
use crate::disk::Disk;
use crate::fio;
use crate::guest::Guest;
use crate::host::Host;
use crate::lab::Backend;
use crate::vbd;

/// A limit that nobody reaches.
const OUT_OF_REACH: u64 = 1_000_000_000;
/// Part of the job that is done first, and once more under xentrace.
const PART: u64 = 5;
/// Seconds of host time.
const DEADLINE: u64 = 420;

/// A process that keeps dom0's processor busy, until this is dropped.
struct Busy<'h, 'l> {
    host: &'h Host<'l>,
}

impl<'h, 'l> Busy<'h, 'l> {
    fn start(host: &'h Host<'l>) -> Result<Self> {
        host.ok("{ while :; do :; done & } && echo $! >/run/busy")?;
        Ok(Busy { host })
    }
}

impl Drop for Busy<'_, '_> {
    fn drop(&mut self) {
        // A host on which this fails is given up.
        let _ = self.host.run("kill $(cat /run/busy)");
    }
}

/// Where a job runs.
struct Bench<'a, 'h, 'l> {
    job: &'a Job,
    host: &'h Host<'l>,
    guest: &'a Guest<'h, 'l>,
    disks: Vec<Disk>,
}

/// Measures a job on a host that is there for it alone, and has its device.
pub fn run(host: &Host<'_>, run: Run) -> Result<Record> {
    let job = run.job;
    let disks = disks(host, job)?;
    let mut guest = host
        .guest("bench")
        .memory(job.memory())
        .processors(job.processors);
    let order = format!("xen_blkfront.max_ring_page_order={}", job.ring_order);
    if job.ring_order > 0 {
        guest = guest.kernel_option(&order);
    }
    let guest = guest.start()?;
    let bench = Bench {
        job,
        host,
        guest: &guest,
        disks,
    };
    let mut record = Record::default();
    let servers = run.servers();
    let turns: Vec<Server> = servers
        .iter()
        .chain(servers.iter().rev())
        .copied()
        .collect();
    for same in turns.chunk_by(|one, other| one.backend() == other.backend()) {
        bench.turns(same, &mut record)?;
    }
    let disks = bench.disks;
    guest.destroy()?;
    disks.into_iter().try_for_each(|disk| disk.remove(host))?;
    Ok(record)
}

fn disks(host: &Host<'_>, job: &Job) -> Result<Vec<Disk>> {
    if job.flushed {
        return Ok(vec![Disk::flushed(host)?]);
    }
    blank_disks(host, job.disks)
}

/// Disks that keep nothing, and are attached at little cost.
pub fn blank_disks(host: &Host<'_>, count: u32) -> Result<Vec<Disk>> {
    let disk = |number| {
        let mut disk = Disk::blank(host, &format!("nb{number}"), 1024)?;
        disk.attach_by_short_script(host)?;
        Ok(disk)
    };
    (0..count).map(disk).collect()
}

/// Attaches disks to a guest as `xvda`, `xvdb`, ...
pub fn attach(guest: &Guest<'_, '_>, disks: &[Disk]) -> Result<()> {
    for (number, disk) in (0..).zip(disks) {
        guest.offer(disk, &vbd::name(number))?;
    }
    let names = (0..).zip(disks).map(|(number, _)| vbd::name(number));
    guest.wait_disks(&names.collect::<Vec<_>>())
}

/// Takes them away again.
pub fn detach(guest: &Guest<'_, '_>, disks: &[Disk]) -> Result<()> {
    for (number, _) in (0..).zip(disks) {
        guest.detach(&vbd::name(number))?;
    }
    (0..).zip(disks).try_for_each(|(number, _)| {
        let state = guest.vbd(&vbd::name(number)).path("state");
        guest.host.store_wait(&state, "absent").map(drop)
    })
}

impl Bench<'_, '_, '_> {
    /// Turns of servers one after the other that have a module in common, or none.
    fn turns(&self, servers: &[Server], record: &mut Record) -> Result<()> {
        let Some(backend) = servers.first().and_then(|server| server.backend()) else {
            return servers.iter().try_for_each(|server| {
                let sample = self.bare().with_context(|| server.name())?;
                record.add(*server, sample);
                Ok(())
            });
        };
        self.load(backend)?;
        let before = self.memory()?;
        attach(self.guest, &self.disks)?;
        let attached = self.memory()?;
        let first = self.guest.vbd("xvda");
        check::equal("the driver", first.driver()?.as_str(), backend.driver())?;
        for server in servers {
            let mut sample = self.served(*server).with_context(|| server.name())?;
            if let (Some(before), Some(attached), Some(used)) = (before, attached, self.memory()?) {
                let each = |bytes: f64| (bytes - before) / f64::from(self.job.disks);
                sample.insert(record::ATTACHED.into(), each(attached));
                sample.insert(record::USED.into(), each(used));
            }
            record.add(*server, sample);
        }
        detach(self.guest, &self.disks)
    }

    /// The job on the attached disks.
    fn served(&self, server: Server) -> Result<Sample> {
        let names: Vec<String> = (0..self.job.disks).map(vbd::name).collect();
        for name in &names {
            match server {
                Server::Limited => self.guest.vbd(name).limit(OUT_OF_REACH, OUT_OF_REACH)?,
                Server::Rblkback => self.guest.vbd(name).unlimit()?,
                Server::Bare | Server::Blkback => {}
            }
        }
        let observed = Observed {
            host: self.host,
            guest: Some(self.guest),
        };
        let devices: Vec<String> = names.iter().map(|name| format!("/dev/{name}")).collect();
        let run = |command: &str| self.guest.ok_within(command, DEADLINE);
        self.measured(&observed, &devices, &run)
    }

    /// Loads a backend that offers what the job asks for.
    fn load(&self, backend: Backend) -> Result<()> {
        self.host.load(backend)?;
        let persistent = if self.job.persistent { "Y" } else { "N" };
        self.host
            .ok(&format!(
                "cd /sys/module/{}/parameters && echo {} >max_queues && \
                 echo {persistent} >feature_persistent; status=$?; cd /; (exit $status)",
                backend.module(),
                self.job.queues,
            ))
            .map(drop)
    }

    /// fio in dom0, on the devices themselves.
    fn bare(&self) -> Result<Sample> {
        let observed = Observed {
            host: self.host,
            guest: None,
        };
        let names: Vec<_> = self.disks.iter().map(|disk| disk.path.clone()).collect();
        let run = |command: &str| self.host.ok_within(command, DEADLINE);
        self.measured(&observed, &names, &run)
    }

    /// Bytes of dom0's memory in use, where there are enough disks for them to show.
    fn memory(&self) -> Result<Option<f64>> {
        if self.job.disks == 1 {
            return Ok(None);
        }
        Ok(Some(self.host.memory()? as f64))
    }

    /// The job on devices that are there, by commands that `run` runs where they are.
    fn measured(
        &self,
        observed: &Observed<'_, '_, '_>,
        devices: &[String],
        run: &dyn Fn(&str) -> Result<String>,
    ) -> Result<Sample> {
        let command = |requests: u64| {
            // Its report is kept from the console until nothing is measured any more.
            let job = self.job.fio(devices, requests);
            job.with("--output=/run/report").command()
        };
        let part = command(self.job.requests / PART);
        let whole = command(self.job.requests);
        run(&part)?;
        let _busy = if self.job.busy {
            Some(Busy::start(self.host)?)
        } else {
            None
        };
        let either =
            |command: &str, really: bool| run(if really { command } else { "true" }).map(drop);
        let mut counts = observed.cost(&mut |really| either(&whole, really))?;
        let report = fio::parse(&run("cat /run/report")?)?;
        let done = report.read.total_ios + report.write.total_ios;
        check::equal("requests", done, self.job.requests)?;
        counts.values_mut().for_each(|count| *count /= done as f64);
        if self.job.busy {
            return rates(&report);
        }
        if observed.guest.is_some() {
            let calls = observed.hypercalls(&mut |really| either(&part, really))?;
            let part = (self.job.requests / PART) as f64;
            counts.extend(calls.into_iter().map(|(name, count)| (name, count / part)));
        }
        counts.extend(rates(&report)?);
        Ok(counts)
    }
}

/// What fio itself says.
fn rates(report: &fio::Report) -> Result<Sample> {
    // Of a mixed job, its reads.
    let direction = [&report.read, &report.write]
        .into_iter()
        .find(|direction| direction.total_ios > 0);
    let Some(direction) = direction else {
        bail!("fio did nothing");
    };
    let percentile = |key: &str| -> Result<f64> {
        let time = direction.clat_ns.percentile.get(key);
        Ok(*time.with_context(|| format!("no percentile {key} of fio's"))? as f64)
    };
    Ok(Sample::from([
        (record::IOPS.into(), report.read.iops + report.write.iops),
        (
            record::BANDWIDTH.into(),
            report.read.bw_bytes + report.write.bw_bytes,
        ),
        (record::LATENCY.into(), direction.clat_ns.mean),
        (record::P50.into(), percentile("50.000000")?),
        (record::P99.into(), percentile("99.000000")?),
        (record::P999.into(), percentile("99.900000")?),
    ]))
}
