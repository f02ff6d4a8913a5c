// SPDX-License-Identifier: GPL-2.0

use anyhow::Context;
use anyhow::Result;

use crate::check;
use crate::disk::Disk;
use crate::host::Host;
use crate::results::Figures;
use crate::scenarios::frontend::held;
use crate::scenarios::frontend::more_queues;
use crate::vbd;

/// The frontend gives the first three one queue each, the others four: one in each layout.
const DISKS: u32 = 6;
/// Some with 4 queues: their rings hold more than is admitted meanwhile.
const LIMITED: [usize; 2] = [3, 4];
const MEGABYTES: u32 = 16;
/// Of dom0's clock.
const SECONDS: u64 = 600;
/// Slots of a ring of 16 pages.
const SLOTS: u64 = 512;

/// A guest is paused for ten minutes. Some of its disks stand still before, so that all requests are under way; on
/// the others they wait for a token a second. When it goes on each request has one response, and every byte is
/// right.
pub fn paused(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    more_queues(host, host.lab.backend)?;
    let (mut disks, mut belows) = (Vec::new(), Vec::new());
    let mut guest = host.guest("paused").own_frontend();
    let names: Vec<String> = (0..DISKS).map(vbd::name).collect();
    for (number, name) in names.iter().enumerate() {
        let below = Disk::memory(host, &format!("nb{number}"), MEGABYTES)?;
        let mut disk = Disk::linear(host, &format!("held{number}"), &below, MEGABYTES)?;
        disk.attach_by_short_script(host)?;
        guest = guest.disk(&disk, name);
        disks.push(disk);
        belows.push(below);
    }
    let guest = guest.start()?;
    let vbds: Vec<_> = names.iter().map(|name| guest.vbd(name)).collect();
    let limited = || LIMITED.iter().filter_map(|number| vbds.get(*number));
    limited().try_for_each(|vbd| vbd.limit(1, 1))?;
    let still = || {
        let all = disks.iter().enumerate();
        all.filter_map(|(number, disk)| (!LIMITED.contains(&number)).then_some(disk))
    };
    still().try_for_each(|disk| disk.suspend(host))?;
    let numbers: Vec<String> = vbds.iter().map(|vbd| vbd.vdev.to_string()).collect();
    held(
        &guest,
        &format!("exact --disks {}", numbers.join(",")),
        || {
            host.ok(&format!("xl pause {}", guest.name))?;
            still().try_for_each(|disk| disk.resume(host))?;
            let files: Vec<String> = limited()
                .map(|vbd| format!("{}/qos/io_count", vbd.sysfs()))
                .collect();
            let text = host.ok_within(
                &format!(
                    "counts() {{ lab_now; echo $NOW $(cat {}); }}; counts; sleep {SECONDS}; counts",
                    files.join(" ")
                ),
                540,
            )?;
            limits_held(&text, figures)?;
            host.ok(&format!("xl unpause {}", guest.name))?;
            limited().try_for_each(|vbd| vbd.unlimit())
        },
    )?;
    for vbd in &vbds {
        check::equal("the error node", vbd.error()?, None)?;
    }
    guest.destroy()?;
    let all = disks.into_iter().chain(belows);
    all.into_iter().try_for_each(|disk| disk.remove(host))
}

/// Two lines, with the time in hundredths of a second and the requests of each limited disk.
fn limits_held(text: &str, figures: &mut Figures) -> Result<()> {
    let counts: Vec<Vec<u64>> = text
        .lines()
        .map(|line| line.split(' ').map(str::parse).collect())
        .collect::<Result<_, _>>()
        .with_context(|| text.to_owned())?;
    let [before, after] = &counts[..] else {
        anyhow::bail!("not two lines: {text}");
    };
    let passed: Vec<u64> = before.iter().zip(after).map(|(b, a)| a - b).collect();
    let [time, admitted @ ..] = &passed[..] else {
        anyhow::bail!("no time: {text}");
    };
    let seconds = time / 100;
    check::within("seconds of the pause", seconds, SECONDS..=2 * SECONDS)?;
    check::equal("limited disks", admitted.len(), LIMITED.len())?;
    for admitted in admitted {
        // The last second has begun or not, and so has the first.
        check::within(
            "requests at one a second",
            *admitted,
            seconds - 1..=seconds + 2,
        )?;
    }
    for count in &after[1..] {
        check::within("requests that do not wait", *count, 1..=4 * SLOTS - 1)?;
    }
    figures.insert("seconds of the pause".into(), seconds.into());
    figures.insert(
        "requests of a limited disk meanwhile".into(),
        admitted[0].into(),
    );
    Ok(())
}
