// SPDX-License-Identifier: GPL-2.0

//! Kernel events with their exact times, recorded in dom0 and read after the run.
//!
//! A tracefs instance of its own records on CLOCK_MONOTONIC, so nothing runs in dom0 meanwhile. The
//! buffers are fetched as raw pages (formatting 100,000 lines under emulation takes a minute) and
//! decoded here; layout as in `Documentation/trace/ring-buffer-map.rst` and `header_page`.

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::host::Host;
use crate::host::quote;

/// Kilobytes of buffer for most.
const USUAL: u32 = 49_152;
/// For half a minute of 50,000 requests a second: 60 bytes for the bio of each, at most 40 for its
/// admission.
const LARGE: u32 = 160_000;
const DIR: &str = "/sys/kernel/tracing/instances/lab";
const PAGE: usize = 4096;
const PAGE_HEADER: usize = 16;

/// An event to record.
pub struct Source {
    /// Such as `block/block_bio_queue`.
    pub event: &'static str,
    pub filter: Option<String>,
}

impl Source {
    /// Each bio as it is queued to the block device `dev_t`: one for each admitted direct request.
    pub fn bios(dev_t: u32) -> Source {
        Source::bios_of(&[dev_t])
    }

    /// The same for several devices. An event's first field is the device.
    pub fn bios_of(devices: &[u32]) -> Source {
        Source {
            event: "block/block_bio_queue",
            filter: Some(any_of(devices)),
        }
    }

    /// Each request as the driver of the block device `dev_t` gets it.
    pub fn issued(dev_t: u32) -> Source {
        Source::issued_of(&[dev_t])
    }

    /// The same for several devices.
    pub fn issued_of(devices: &[u32]) -> Source {
        Source {
            event: "block/block_rq_issue",
            filter: Some(any_of(devices)),
        }
    }

    /// One of the module's own events (src/sys/trace.h), of all disks.
    pub fn own(event: &'static str) -> Source {
        Source {
            event,
            filter: None,
        }
    }
}

fn any_of(devices: &[u32]) -> String {
    let each: Vec<String> = devices.iter().map(|dev| format!("dev == {dev}")).collect();
    each.join(" || ")
}

/// One recorded event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Nanoseconds on dom0's CLOCK_MONOTONIC.
    pub time: u64,
    /// Its place among the sources.
    pub source: usize,
    /// The event's own fields, as far as they fit, in words.
    pub fields: [u32; 3],
}

/// A recording under way.
pub struct Trace<'h, 'l> {
    host: &'h Host<'l>,
    ids: Vec<u16>,
}

impl<'h, 'l> Trace<'h, 'l> {
    /// Starts to record.
    pub fn start(host: &'h Host<'l>, sources: &[Source]) -> Result<Self> {
        Trace::with_buffer(host, sources, USUAL)
    }

    /// Starts to record what takes much room.
    pub fn start_large(host: &'h Host<'l>, sources: &[Source]) -> Result<Self> {
        Trace::with_buffer(host, sources, LARGE)
    }

    fn with_buffer(host: &'h Host<'l>, sources: &[Source], kilobytes: u32) -> Result<Self> {
        host.ok(&format!(
            "mkdir {DIR} && cd {DIR} && echo mono >trace_clock && echo {kilobytes} >buffer_size_kb; cd /"
        ))?;
        let mut ids = Vec::new();
        for source in sources {
            let event = format!("{DIR}/events/{}", source.event);
            if let Some(filter) = &source.filter {
                host.ok(&format!("echo {} >{event}/filter", quote(filter)))?;
            }
            ids.push(
                host.ok(&format!("echo 1 >{event}/enable && cat {event}/id"))?
                    .parse()?,
            );
        }
        Ok(Trace { host, ids })
    }

    /// Ends the recording; gives its events in order of time.
    pub fn stop(self) -> Result<Vec<Event>> {
        self.host.ok(&format!("echo 0 >{DIR}/tracing_on"))?;
        let cpus: usize = self
            .host
            .ok(&format!("ls -d {DIR}/per_cpu/cpu* | wc -l"))?
            .parse()?;
        let mut events = Vec::new();
        for cpu in 0..cpus {
            let stats = self.host.ok(&format!("cat {DIR}/per_cpu/cpu{cpu}/stats"))?;
            if stats
                .lines()
                .any(|l| l.starts_with("overrun:") && l != "overrun: 0")
            {
                bail!("the trace buffer was too small:\n{stats}");
            }
            // dd ends with EAGAIN when the buffer is empty.
            let raw = format!(
                "dd if={DIR}/per_cpu/cpu{cpu}/trace_pipe_raw bs={PAGE} iflag=nonblock status=none 2>/dev/null | base64 -w0"
            );
            let pages = STANDARD
                .decode(self.host.ok_within(&raw, 300)?)
                .context("trace pages")?;
            for page in pages.chunks(PAGE) {
                decode_page(page, &self.ids, &mut events)?;
            }
        }
        self.host.ok(&format!("rmdir {DIR}"))?;
        events.sort_by_key(|e| e.time);
        Ok(events)
    }
}

/// The times of all events of one source.
pub fn times(events: &[Event], source: usize) -> Vec<u64> {
    events
        .iter()
        .filter(|e| e.source == source)
        .map(|e| e.time)
        .collect()
}

fn word(bytes: &[u8], at: usize) -> Result<u32> {
    let word = bytes.get(at..at + 4).context("trace page cut short")?;
    Ok(u32::from_ne_bytes(word.try_into()?))
}

fn decode_page(page: &[u8], ids: &[u16], events: &mut Vec<Event>) -> Result<()> {
    if page.len() < PAGE_HEADER {
        bail!("trace page of {} bytes", page.len());
    }
    let mut time = u64::from(word(page, 0)?) | (u64::from(word(page, 4)?) << 32);
    let committed = word(page, 8)?;
    if committed & (1 << 31) != 0 {
        bail!("the trace buffer lost events");
    }
    let end = PAGE_HEADER + (committed & 0xf_ffff) as usize;
    let mut at = PAGE_HEADER;
    while at < end {
        let header = word(page, at)?;
        let (kind, delta) = (header & 31, u64::from(header >> 5));
        let long = |page| Ok::<u64, anyhow::Error>(u64::from(word(page, at + 4)?) << 27);
        let (start, length) = match kind {
            29 if delta == 0 => break,
            29 => (at + 4, word(page, at + 4)? as usize),
            30 => {
                time += delta + long(page)?;
                at += 8;
                continue;
            }
            31 => {
                // Absolute, but for the topmost bits.
                time = time & !((1 << 59) - 1) | (delta + long(page)?);
                at += 8;
                continue;
            }
            0 => (at + 8, word(page, at + 4)? as usize - 4),
            words => (at + 4, words as usize * 4),
        };
        time += delta;
        let data = page
            .get(start..start + length)
            .context("trace event past its page")?;
        let id = data.first_chunk().map(|id| u16::from_ne_bytes(*id));
        if let Some(source) = ids
            .iter()
            .position(|known| kind != 29 && Some(*known) == id)
        {
            // Behind what all events have.
            let fields = [8, 12, 16].map(|at| word(data, at).unwrap_or(0));
            events.push(Event {
                time,
                source,
                fields,
            });
        }
        at = start + length;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(base: u64, records: &[u8]) -> Vec<u8> {
        let mut page = base.to_ne_bytes().to_vec();
        page.extend((records.len() as u64).to_ne_bytes());
        page.extend(records);
        page.resize(PAGE, 0);
        page
    }

    fn header(kind: u32, delta: u32) -> [u8; 4] {
        (kind | (delta << 5)).to_ne_bytes()
    }

    #[test]
    fn deltas_extends_and_padding() {
        let mut records = Vec::new();
        records.extend(header(1, 5));
        records.extend([7, 0, 0, 0]);
        // A time extend of one unit of 2^27, then a discarded event, then an unknown one.
        records.extend([header(30, 1), [1, 0, 0, 0]].concat());
        records.extend([header(29, 2), [4, 0, 0, 0]].concat());
        records.extend([header(1, 3), [9, 0, 0, 0]].concat());
        records.extend([header(2, 4), [7, 0, 0, 0], [0; 4]].concat());
        let mut events = Vec::new();
        decode_page(&page(1000, &records), &[7], &mut events).unwrap();
        let late = 1005 + (1 << 27) + 1 + 2 + 3 + 4;
        assert_eq!(
            events.iter().map(|e| e.time).collect::<Vec<_>>(),
            [1005, late]
        );
    }

    #[test]
    fn lost_events_are_an_error() {
        let mut lost = page(0, &[]);
        lost[11] = 0x80;
        assert!(decode_page(&lost, &[], &mut Vec::new()).is_err());
    }
}
