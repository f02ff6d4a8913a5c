// SPDX-License-Identifier: GPL-2.0

//! fio jobs, run in a guest, and what they report.

use std::collections::BTreeMap;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use serde::Deserialize;

use crate::guest::Guest;
use crate::shell::Running;

/// Seconds of host time after which a fio is taken for hung.
const DEADLINE: u64 = 420;

/// One fio job on one block device or several, asynchronous and past the page cache.
#[derive(Clone)]
pub struct Job {
    device: String,
    /// What the shell does before, for the device to have this name.
    links: String,
    options: Vec<String>,
}

impl Job {
    /// What its options say, on one device or on several that `:` separates.
    pub fn of(devices: &str, options: &str) -> Job {
        Job {
            device: devices.into(),
            links: String::new(),
            options: Vec::new(),
        }
        .with(options)
    }

    /// As that, with a thread for each of several devices.
    pub fn one_for_each(devices: &[String], options: &str) -> Job {
        let count = devices.len();
        let devices = devices.join(" ");
        Job {
            links: format!(
                "n=0; for device in {devices}; do ln -sf $device /run/job.$n; n=$((n + 1)); done; "
            ),
            ..Job::of("", options)
        }
        .with(&format!("--numjobs={count} --group_reporting"))
    }

    fn new(device: &str, rw: &str) -> Job {
        Job {
            device: format!("/dev/{device}"),
            links: String::new(),
            options: vec![format!("--rw={rw}")],
        }
    }

    /// Random reads of 4 KiB, for `seconds` of the guest's clock: each is one request on the ring.
    pub fn random_reads(device: &str, seconds: u32) -> Job {
        Job::random(device, "randread", seconds)
    }

    /// The same of another direction, in fio's words: `randread`, `randwrite` or `randtrim`.
    pub fn random(device: &str, direction: &str, seconds: u32) -> Job {
        Job::new(device, direction)
            .with("--bs=4k --norandommap")
            .with("--time_based")
            .with(&format!("--runtime={seconds}"))
    }

    /// `count` random reads of `bytes` each.
    pub fn some_reads(device: &str, bytes: u64, count: u32) -> Job {
        Job::new(device, "randread")
            .with(&format!("--bs={bytes} --norandommap --number_ios={count}"))
    }

    /// Random writes of `block_sizes` (such as `4k-44k`) over the first `megabytes`, with checksums.
    pub fn verified_writes(device: &str, block_sizes: &str, megabytes: u32) -> Job {
        Job::new(device, "randwrite")
            .with(&format!(
                "--bsrange={block_sizes} --bs_unaligned=0 --blockalign=4k --size={megabytes}M"
            ))
            .with("--verify=crc32c --verify_fatal=1 --do_verify=1 --randrepeat=0")
    }

    /// The same from each of `processors` processors, so that each queue has its part of them.
    pub fn on_each_processor(
        device: &str,
        block_sizes: &str,
        megabytes: u32,
        processors: u32,
    ) -> Job {
        let own = megabytes / processors;
        Job::verified_writes(device, block_sizes, own).with(&format!(
            "--numjobs={processors} --offset_increment={own}M --group_reporting \
             --cpus_allowed=0-{} --cpus_allowed_policy=split",
            processors - 1
        ))
    }

    /// Requests in flight.
    pub fn depth(self, depth: u32) -> Job {
        self.with(&format!("--iodepth={depth}"))
    }

    /// Adds options by their own names.
    pub fn with(mut self, options: &str) -> Job {
        self.options.extend(options.split(' ').map(String::from));
        self
    }

    /// The command line.
    pub fn command(&self) -> String {
        let options = self.options.join(" ");
        let links = &self.links;
        let files = match self.device.as_str() {
            "" => String::from("--filename_format='/run/job.$jobnum'"),
            device => format!("--filename={device}"),
        };
        format!(
            "{links}fio --output-format=json --name=job {files} --ioengine=libaio --direct=1 --thread {options}"
        )
    }

    /// Runs it to its end in a guest.
    pub fn run(&self, guest: &Guest<'_, '_>) -> Result<Report> {
        self.start(guest)?.finish()
    }

    /// Starts it in a guest, over and over.
    pub fn repeat<'g, 'h, 'l>(&self, guest: &'g Guest<'h, 'l>) -> Result<RepeatedJob<'g, 'h, 'l>> {
        let device = self.device.trim_start_matches("/dev/").to_string();
        guest.ok(&format!(
            "mkdir -p /tmp/{device} && rm -f /tmp/{device}/* && cd /tmp/{device} && \
             {{ while :; do {} >report 2>&1 || exit 1; \
             echo >>runs; [ ! -e stop ] || exit 0; done & }} && job_{device}=$! && cd /",
            self.command()
        ))?;
        Ok(RepeatedJob { guest, device })
    }

    /// Starts it in a guest whose end is also its own; nobody asks what came of it.
    pub fn leave_running(&self, guest: &Guest<'_, '_>) -> Result<()> {
        guest
            .ok(&format!("{{ {} & }} >/dev/null 2>&1", self.command()))
            .map(drop)
    }

    /// Starts it in a guest.
    pub fn start<'g>(&self, guest: &'g Guest<'_, '_>) -> Result<RunningJob<'g>> {
        Ok(RunningJob {
            running: guest.start(&self.command())?,
        })
    }
}

/// A fio under way.
pub struct RunningJob<'g> {
    running: Running<'g>,
}

impl RunningJob<'_> {
    /// Waits for its end, which must be without any error.
    pub fn finish(self) -> Result<Report> {
        let output = self
            .running
            .finish_within(std::time::Duration::from_secs(DEADLINE))?;
        if output.status != 0 {
            // Its own word for the error stands far above the end.
            let reported = parse(&output.text).err().map(|error| format!("{error:#}"));
            bail!(
                "fio ended with status {} ({}):\n{}",
                output.status,
                reported.as_deref().unwrap_or("no error in its report"),
                crate::logs::last_lines(&output.text, 30)
            );
        }
        parse(&output.text)
    }
}

/// A job that runs again and again in the background of a guest's shell, however long the rest of
/// the scenario takes.
pub struct RepeatedJob<'g, 'h, 'l> {
    guest: &'g Guest<'h, 'l>,
    device: String,
}

impl RepeatedJob<'_, '_, '_> {
    /// Waits for the end of the run under way; none may have had an error. Gives the number of
    /// runs and the last one's report.
    pub fn stop(self) -> Result<(u64, Report)> {
        let device = &self.device;
        let script = format!(
            "touch /tmp/{device}/stop; wait $job_{device}; status=$?; \
             wc -l </tmp/{device}/runs; cat /tmp/{device}/report; (exit $status)"
        );
        let text = self.guest.ok_within(&script, DEADLINE)?;
        let (runs, report) = text.split_once('\n').context("no report of fio")?;
        Ok((runs.trim().parse()?, parse(report)?))
    }
}

/// The part of fio's JSON that the scenarios judge.
#[derive(Debug, Deserialize)]
pub struct Report {
    pub read: Direction,
    pub write: Direction,
    #[serde(default)]
    pub trim: Direction,
    pub sync: Syncs,
    pub error: i64,
}

/// One direction of a job.
#[derive(Debug, Default, Deserialize)]
pub struct Direction {
    pub io_bytes: u64,
    pub total_ios: u64,
    /// Milliseconds.
    #[serde(default)]
    pub runtime: u64,
    #[serde(default)]
    pub iops: f64,
    /// Bytes a second.
    #[serde(default)]
    pub bw_bytes: f64,
    #[serde(default)]
    pub clat_ns: Latency,
}

/// Times from submission to completion, in nanoseconds.
#[derive(Debug, Default, Deserialize)]
pub struct Latency {
    #[serde(default)]
    pub mean: f64,
    /// By percentile, as fio writes it.
    #[serde(default)]
    pub percentile: BTreeMap<String, u64>,
}

/// The fsyncs of a job.
#[derive(Debug, Deserialize)]
pub struct Syncs {
    pub total_ios: u64,
}

/// Reads what a fio of one job printed, which must be without any error.
pub fn parse(text: &str) -> Result<Report> {
    parse_all(text)?
        .into_iter()
        .next()
        .context("fio reported no job")
}

/// The same of a fio of several jobs.
pub fn parse_all(text: &str) -> Result<Vec<Report>> {
    #[derive(Deserialize)]
    struct Whole {
        jobs: Vec<Report>,
    }
    // fio may say something before the JSON.
    let json = text.find('{').map_or(text, |at| &text[at..]);
    let whole: Whole =
        serde_json::from_str(json).with_context(|| format!("fio's report:\n{text}"))?;
    if let Some(report) = whole.jobs.iter().find(|report| report.error != 0) {
        bail!("fio reported error {}", report.error);
    }
    Ok(whole.jobs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports() {
        let side = r#"{"io_bytes": 4096, "total_ios": 1, "more": {}}"#;
        let text = format!(
            "note: x\n{{\"jobs\": [{{\"error\": 0, \"read\": {side}, \"write\": {side}, \"sync\": {side}}}]}}\n"
        );
        assert_eq!(parse(&text).unwrap().read.total_ios, 1);
        assert!(parse(&text.replace("\"error\": 0", "\"error\": 5")).is_err());
        assert!(parse("fio: bad option").is_err());
    }
}
