// SPDX-License-Identifier: GPL-2.0

use std::collections::BTreeMap;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use serde_json::Value;
use serde_json::json;

use super::cycles::mapped_grants;
use super::frontend::Line;
use super::frontend::frontend;
use super::frontend::more_queues;
use super::frontend::summary;
use crate::check;
use crate::disk::Disk;
use crate::fio::Job;
use crate::guest::Guest;
use crate::guest::GuestSpec;
use crate::host::Host;
use crate::lab::Backend;
use crate::results::Figures;

/// Lines that one guest may make dom0 log in a second.
const LINES_PER_SECOND: usize = 10;

/// Rows for which the C driver is known to answer differently. It is here for comparison; these
/// are no failures of the lab.
const C_DRIVER: &[(&str, &str)] = &[
    ("H01", "it halts without an error node"),
    ("H02", "it halts without an error node"),
];
/// Frames that are never a guest's: of the two interrupt controllers and the screen, and one beyond
/// all memory.
const FOREIGN: &str = "0xfee00,0xfec00,0xa0,0x7fffffff";
/// It warns (a stack trace in dom0's log) whenever it refuses to connect.
const C_DRIVER_CASES: &str = "--no-connects";

/// Requests, rings and keys that no polite frontend has, on disks of several kinds, while a
/// neighbour verifies its writes.
pub fn hostile(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    let disks = Disks::new(host)?;
    let guest = disks.spec().start()?;
    let besieged = Besieged::new(&guest)?;
    let before = disks.read_only_sum()?;
    let lines = with_neighbour(host, &disks.neighbours, || {
        let foreign = grants_of(&guest, FOREIGN)?;
        let mut lines = besieged.cases("51712", &format!("--loops 2000 --foreign {foreign}"))?;
        lines.extend(besieged.cases("51728", "--loops 2000 H23 H24 H25 H29 H31")?);
        lines.extend(besieged.cases("51744", "H30")?);
        Ok(lines)
    })?;
    check::equal(
        "sha256 of the read-only disk",
        disks.read_only_sum()?,
        before,
    )?;
    besieged.end(&lines, figures)?;
    guest.destroy()?;
    disks.remove()
}

/// Memory that changes while the backend reads it, on two processors.
pub fn races(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    let disks = Disks::new(host)?;
    let guest = disks.spec().processors(2).start()?;
    let besieged = Besieged::new(&guest)?;
    let lines = besieged.cases("51712", "--loops 2000 H03 H05 H06")?;
    besieged.end(&lines, figures)?;
    guest.destroy()?;
    disks.remove()
}

/// Has the guest's kernel grant frames that it does not own; gives the references.
fn grants_of(guest: &Guest<'_, '_>, frames: &str) -> Result<String> {
    let module = "/sys/module/granter/parameters";
    guest.ok(&format!(
        "insmod /granter.ko frames={frames} && cat {module}/grefs"
    ))
}

/// The guest's frontend is to read what the administrator reads.
fn show_errors(guest: &Guest<'_, '_>, vdevs: &[u32]) -> Result<()> {
    for vdev in vdevs {
        let node = format!("/local/domain/0/error/backend/vbd/{}/{vdev}", guest.domid());
        guest.host.ok(&format!(
            "xenstore-write {node} '' && xenstore-chmod {node} n0 b{}",
            guest.domid()
        ))?;
    }
    Ok(())
}

/// A neighbour that verifies its writes all the while.
pub(super) fn with_neighbour<T>(
    host: &Host<'_>,
    disk: &Disk,
    action: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let guest = host.guest("neighbour").disk(disk, "xvda").start()?;
    guest.wait_disk("xvda")?;
    let verify = Job::verified_writes("xvda", "4k-44k", 12).depth(16);
    let running = verify.start(&guest)?;
    let result = action()?;
    running.finish().context("the neighbour's fio")?;
    // And again, now that all has happened.
    Job::verified_writes("xvda", "4k-44k", 4)
        .run(&guest)
        .context("the neighbour's fio, after")?;
    check::equal(
        "the neighbour's error node",
        guest.vbd("xvda").error()?,
        None,
    )?;
    guest.destroy()?;
    Ok(result)
}

/// What the hostile guest and its neighbour have.
struct Disks<'h, 'l> {
    host: &'h Host<'l>,
    plain: Disk,
    /// With logical blocks of 4096 bytes and late answers.
    large_blocks: Disk,
    read_only: Disk,
    neighbours: Disk,
}

impl<'h, 'l> Disks<'h, 'l> {
    fn new(host: &'h Host<'l>) -> Result<Self> {
        more_queues(host, host.lab.backend)?;
        let slow = "echo 1 >discard && echo 4096 >blocksize && echo 2 >irqmode && echo 20000000 >completion_nsec";
        let disks = Disks {
            host,
            plain: Disk::memory_with(host, "nb0", 64, "echo 1 >discard")?,
            large_blocks: Disk::memory_with(host, "nb1", 64, slow)?,
            read_only: Disk::memory_with(host, "nb2", 64, "echo 1 >discard")?,
            neighbours: Disk::memory(host, "nb3", 64)?,
        };
        let path = &disks.read_only.path;
        host.ok(&format!("head -c 1M /dev/urandom >{path} && sync {path}"))?;
        Ok(disks)
    }

    fn spec(&self) -> GuestSpec<'h, 'l> {
        self.host
            .guest("hostile")
            .disk(&self.plain, "xvda")
            .disk(&self.large_blocks, "xvdb")
            .read_only_disk(&self.read_only, "xvdc")
            .own_frontend()
    }

    fn read_only_sum(&self) -> Result<String> {
        let path = &self.read_only.path;
        self.host.ok(&format!(
            "dd if={path} bs=1M iflag=direct status=none | sha256sum"
        ))
    }

    fn remove(self) -> Result<()> {
        for disk in [
            self.plain,
            self.large_blocks,
            self.read_only,
            self.neighbours,
        ] {
            disk.remove(self.host)?;
        }
        Ok(())
    }
}

/// A host that a guest is about to be hostile to.
struct Besieged<'g, 'h, 'l> {
    host: &'h Host<'l>,
    guest: &'g Guest<'h, 'l>,
    mapped: i64,
    logged: usize,
}

impl<'g, 'h, 'l> Besieged<'g, 'h, 'l> {
    fn new(guest: &'g Guest<'h, 'l>) -> Result<Self> {
        let host = guest.host;
        show_errors(guest, &[51712, 51728, 51744])?;
        Ok(Besieged {
            host,
            guest,
            mapped: mapped_grants(host)?,
            logged: host.ok("dmesg")?.lines().count(),
        })
    }

    fn cases(&self, vdev: &str, wanted: &str) -> Result<Vec<Line>> {
        let fewer = match self.host.lab.backend {
            Backend::Rblkback => "",
            Backend::Blkback => C_DRIVER_CASES,
        };
        frontend(self.guest, &format!("cases --vdev {vdev} {fewer} {wanted}"))
            .with_context(|| format!("cases {wanted} on disk {vdev}"))
    }

    /// Judges what came of it, in the guest and in dom0.
    fn end(self, lines: &[Line], figures: &mut Figures) -> Result<()> {
        check::equal(
            "mapped grants before and after",
            mapped_grants(self.host)?,
            self.mapped,
        )?;
        self.host.ok(&format!(
            "xenstore-rm /local/domain/0/error/backend/vbd/{}",
            self.guest.domid()
        ))?;
        self.judge(lines, figures)?;
        let busiest = self.busiest_second()?;
        figures.insert("most lines dom0 logged in a second".into(), busiest.into());
        if self.host.lab.backend == Backend::Rblkback {
            check::within("lines logged in a second", busiest, 0..=LINES_PER_SECOND)?;
        }
        Ok(())
    }

    fn judge(&self, lines: &[Line], figures: &mut Figures) -> Result<()> {
        let (failed, differs): (Vec<&Line>, Vec<&Line>) = lines
            .iter()
            .filter(|line| !line.ok)
            .partition(|line| !self.is_known(line));
        let skipped = lines.iter().filter(|l| l.rest.contains_key("skipped"));
        figures.insert("skipped".into(), skipped.count().into());
        figures.insert("cases".into(), lines.len().into());
        let mut took: BTreeMap<String, u64> = BTreeMap::new();
        for line in lines {
            let ms = line.rest.get("ms").and_then(Value::as_u64).unwrap_or(0);
            *took.entry(line.word("case")).or_default() += ms;
        }
        figures.insert("milliseconds of the guest's clock".into(), json!(took));
        figures.insert("the C driver differs".into(), summary(&differs).into());
        if !failed.is_empty() {
            bail!("{}", summary(&failed));
        }
        Ok(())
    }

    fn is_known(&self, line: &Line) -> bool {
        let row = line.word("case");
        self.host.lab.backend == Backend::Blkback && C_DRIVER.iter().any(|(case, _)| *case == row)
    }

    /// The most lines that dom0 logged within one second of its own clock.
    fn busiest_second(&self) -> Result<usize> {
        let text = self.host.ok("dmesg")?;
        let stamps: Vec<f64> = text
            .lines()
            .skip(self.logged)
            .filter_map(|line| {
                line.strip_prefix('[')?
                    .split(']')
                    .next()?
                    .trim()
                    .parse()
                    .ok()
            })
            .collect();
        let within = |(i, first): (usize, &f64)| {
            stamps[i..].iter().take_while(|s| **s < first + 1.0).count()
        };
        Ok(stamps.iter().enumerate().map(within).max().unwrap_or(0))
    }
}
