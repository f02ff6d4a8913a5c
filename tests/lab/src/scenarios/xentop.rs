// SPDX-License-Identifier: GPL-2.0

use std::collections::BTreeMap;

use anyhow::Context;
use anyhow::Result;

use crate::check;
use crate::disk::Disk;
use crate::fio::Job;
use crate::host::Host;
use crate::results::Figures;

const COLUMNS: [&str; 5] = ["VBD_OO", "VBD_RD", "VBD_WR", "VBD_RSECT", "VBD_WSECT"];

/// `xentop` shows what a guest did on its two disks: the sums of both, to the request.
pub fn xentop(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    let disks = [
        Disk::memory(host, "nba", 32)?,
        Disk::memory(host, "nbb", 32)?,
    ];
    let guest = host
        .guest("top")
        .disk(&disks[0], "xvda")
        .disk(&disks[1], "xvdb")
        .start()?;
    let mut expected = [0; COLUMNS.len()];
    let before = columns(host, &guest.name)?;
    check::equal("VBDS", before.vbds, disks.len() as u64)?;
    for (vdev, block) in [("xvda", 4096), ("xvdb", 16384)] {
        guest.wait_disk(vdev)?;
        // Each of fio's requests is one on the ring: both sizes fit one.
        let done = Job::random_reads(vdev, 1)
            .with(&format!(
                "--rw=randrw --bs={block} --time_based=0 --runtime=0 --number_ios=300"
            ))
            .depth(8)
            .run(&guest)?;
        expected[1] += done.read.total_ios;
        expected[2] += done.write.total_ios;
        expected[3] += done.read.io_bytes / 512;
        expected[4] += done.write.io_bytes / 512;
    }
    let after = columns(host, &guest.name)?;
    for (index, name) in COLUMNS.iter().enumerate() {
        let grown = after.counts[index] - before.counts[index];
        check::equal(&format!("{name} in xentop"), grown, expected[index])?;
        figures.insert((*name).into(), grown.into());
    }
    check::within("reads that fio counted", expected[1], 100..=500)?;
    check::within("writes that fio counted", expected[2], 100..=500)?;
    guest.destroy()?;
    disks.into_iter().try_for_each(|disk| disk.remove(host))
}

struct Shown {
    vbds: u64,
    counts: [u64; COLUMNS.len()],
}

/// A guest's row of `xentop`, which is made for people: a heading, then a row for each domain.
fn columns(host: &Host<'_>, guest: &str) -> Result<Shown> {
    let text = host.ok("xentop -b -f -i 1")?;
    let row = |first: &str| {
        text.lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>())
            .find(|words| words.first() == Some(&first))
            .with_context(|| format!("no row {first:?} in xentop's:\n{text}"))
    };
    // "no limit" is the only cell of two words.
    let (heading, cells) = (row("NAME")?, row(guest)?);
    let cells: Vec<&str> = cells.into_iter().filter(|word| *word != "no").collect();
    let shown: BTreeMap<&str, &str> = heading.into_iter().zip(cells).collect();
    let number = |name: &str| -> Result<u64> {
        let cell = shown
            .get(name)
            .with_context(|| format!("no {name} in:\n{text}"))?;
        cell.parse().with_context(|| format!("{name} in:\n{text}"))
    };
    let mut counts = [0; COLUMNS.len()];
    for (count, name) in counts.iter_mut().zip(COLUMNS) {
        *count = number(name)?;
    }
    Ok(Shown {
        vbds: number("VBDS")?,
        counts,
    })
}
