// SPDX-License-Identifier: GPL-2.0

use anyhow::Result;

use crate::check;
use crate::disk::Disk;
use crate::fio::Job;
use crate::guest::Guest;
use crate::host::Host;
use crate::results::Figures;

/// Reads of one job, and bytes of each.
const READS: u32 = 60;
const BYTES: u64 = 65_536;
/// What each of the limits below comes to, in such reads.
const PER_SECOND: u64 = 10;

/// A limit that counts what a request carries holds large reads to its tokens or bytes, and small
/// ones to one token; of two limits the tighter one holds.
pub fn priced(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    let disk = Disk::blank(host, "nb0", 64)?;
    let guest = host.guest("priced").disk(&disk, "xvda").start()?;
    guest.wait_disk("xvda")?;
    // Two reads that happen to be neighbours would become one request.
    guest.ok("echo 2 >/sys/block/xvda/queue/nomerges")?;
    let number = |value: u64| value.to_string();
    let tokens = [
        ("tokens-refill", number(16 * PER_SECOND)),
        ("tokens-max", number(16)),
        ("tokens-size", number(4096)),
    ];
    let bytes = [
        ("bytes-refill", number(BYTES * PER_SECOND)),
        ("bytes-max", number(BYTES)),
    ];
    let both = [
        ("tokens-refill", number(PER_SECOND / 2)),
        ("tokens-max", number(1)),
        ("bytes-refill", number(BYTES * PER_SECOND)),
        ("bytes-max", number(BYTES)),
    ];
    for (name, keys, bytes, per_second) in [
        ("tokens by size", &tokens[..], BYTES, PER_SECOND),
        ("bytes", &bytes, BYTES, PER_SECOND),
        ("both, tokens tighter", &both, BYTES, PER_SECOND / 2),
        ("tokens by size, small", &tokens, 4096, 16 * PER_SECOND),
    ] {
        let took = one(&guest, keys, bytes, per_second)?;
        figures.insert(format!("seconds for {READS} reads, {name}"), took.into());
    }
    guest.destroy()?;
    disk.remove(host)
}

/// Sets a limit, reads, and removes it again; gives the seconds that the reads took.
fn one(guest: &Guest<'_, '_>, keys: &[(&str, String)], bytes: u64, per_second: u64) -> Result<f64> {
    let vbd = guest.vbd("xvda");
    let keys: Vec<(&str, &str)> = keys.iter().map(|(k, v)| (*k, v.as_str())).collect();
    vbd.write(&keys)?;
    // In sysfs and in xenstore they have the same names but for the dash.
    for (key, value) in &keys {
        vbd.wait_file(&format!("qos/{}", key.replace('-', "_")), value)?;
    }
    let spent: u64 = vbd.number("qos/io_count")?;
    let report = Job::some_reads("xvda", bytes, READS).depth(16).run(guest)?;
    let took = report.read.runtime as f64 / 1000.0;
    let spent = vbd.number::<u64>("qos/io_count")? - spent;
    check::equal("reads", report.read.total_ios, u64::from(READS))?;
    let has_tokens = keys.iter().any(|(key, _)| *key == "tokens-size");
    let each = if has_tokens { bytes / 4096 } else { 1 };
    check::equal("tokens spent", spent, u64::from(READS) * each)?;
    // A limit that comes to a disk in use begins with a tenth of a second's worth, at most what
    // the bucket holds; whatever has more than nothing may go.
    let burst = (per_second as f64 / 10.0).max(1.0) + 1.0;
    let least = (f64::from(READS) - burst) / per_second as f64;
    check::within("seconds", took, least - 0.02..=least + 0.4)?;
    for (key, _) in &keys {
        vbd.remove(key)?;
    }
    vbd.wait_file("qos/state", "unlimited")?;
    Ok(took)
}
