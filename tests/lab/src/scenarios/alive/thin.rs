// SPDX-License-Identifier: GPL-2.0

use anyhow::Context;
use anyhow::Result;

use crate::check;
use crate::disk::Disk;
use crate::host::Host;
use crate::results::Figures;

/// Sectors in a chunk of 64 MiB.
const CHUNK: u64 = 64 * 2048;
/// Chunks that are in use when something is discarded.
const TOUCHED: u64 = 56;
/// A discard that begins within a chunk and ends within another.
const DISCARD: &str = "blkdiscard -o 4096 -l 3G";

/// dm-thin frees whole chunks only, and rounds each discard inwards: one that a backend cuts in the
/// wrong places frees less than it would by itself.
pub fn discard(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    let data = Disk::memory_with(host, "nba", 4096, "echo 1 >discard")?;
    let metadata = Disk::memory(host, "nbb", 16)?;
    // A chunk that is first used would be filled with zeroes: more than dom0 has memory for.
    host.ok("modprobe dm-thin-pool && mkdir -p /dev/mapper && dmsetup mknodes control")?;
    let size = 4096 * 2048;
    host.ok(&format!(
        "dmsetup create pool --noudevsync --table '0 {size} thin-pool {} {} {CHUNK} 0 1 skip_block_zeroing' && dmsetup mknodes pool",
        metadata.path, data.path
    ))?;
    let disk = thin(host, size)?;
    let guest = host.guest("thin").start()?;
    let vbd = guest.attach(&disk, "xvdb")?;
    check::equal(
        "feature-discard",
        vbd.key("feature-discard")?.as_deref(),
        Some("1"),
    )?;
    let mut left = Vec::new();
    for place in [&disk.path, "/dev/xvdb"] {
        touch(host, &disk)?;
        check::equal("chunks in use", chunks(host)?, TOUCHED)?;
        match place {
            "/dev/xvdb" => guest.ok_within(&format!("{DISCARD} {place}"), 300)?,
            _ => host.ok_within(&format!("{DISCARD} {place}"), 300)?,
        };
        left.push(chunks(host)?);
    }
    figures.insert(
        "chunks left by dom0 and by the guest".into(),
        left.clone().into(),
    );
    check::equal("chunks that the guest's discard left", left[1], left[0])?;
    guest.destroy()?;
    disk.remove(host)?;
    host.ok("dmsetup remove --noudevsync pool && rm -f /dev/mapper/pool")?;
    metadata.remove(host)?;
    data.remove(host)
}

fn thin(host: &Host<'_>, size: u64) -> Result<Disk> {
    host.ok("dmsetup message pool 0 'create_thin 0'")?;
    Disk::target(host, "thin", &format!("0 {size} thin /dev/mapper/pool 0"))
}

/// Writes something into each of the first chunks.
fn touch(host: &Host<'_>, disk: &Disk) -> Result<()> {
    host.ok_within(
        &format!(
            "for ((i = 0; i < {TOUCHED}; i++)); do \
             dd if=/dev/zero of={} bs=4k count=1 seek=$((i * {})) oflag=direct status=none || break; done",
            disk.path,
            CHUNK / 8
        ),
        300,
    )
    .map(drop)
}

/// Chunks of the thin disk that have room of the pool's.
fn chunks(host: &Host<'_>) -> Result<u64> {
    let status = host.ok("dmsetup status thin")?;
    let mapped = status.split(' ').nth(3).context(status.clone())?;
    Ok(mapped.parse::<u64>()? / CHUNK)
}
