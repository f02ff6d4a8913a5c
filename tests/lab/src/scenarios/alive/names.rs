// SPDX-License-Identifier: GPL-2.0

use anyhow::Result;

use crate::check;
use crate::disk::Disk;
use crate::host::Host;
use crate::results::Figures;
use crate::scenarios::frontend::more_queues;

/// Tracers and `top` show 15 characters of a thread's name: those have to tell rings apart, also of
/// disks from xvdq on, whose numbers are long.
pub fn threads(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    let disk = Disk::memory(host, "nb0", 16)?;
    more_queues(host, host.lab.backend)?;
    let guest = host.guest("names").processors(2).memory(208).start()?;
    let names = r"ps -eo comm:64= | grep -E '^[0-9]+\.xvd' | cut -c1-15";
    check::equal("threads before", host.run(names)?.text.as_str(), "")?;
    for vdev in ["xvdb", "xvdq", "xvdr"] {
        guest.attach(&disk, vdev)?;
    }
    let names = host.ok(names)?;
    let mut cut: Vec<&str> = names.lines().map(str::trim).collect();
    figures.insert("names".into(), cut.join(" ").into());
    check::equal("threads of three disks of two rings", cut.len(), 6)?;
    cut.sort_unstable();
    let doubled: Vec<&str> = cut
        .windows(2)
        .filter(|two| two[0] == two[1])
        .map(|two| two[0])
        .collect();
    check::equal("names that two rings share", doubled, Vec::<&str>::new())?;
    guest.destroy()?;
    disk.remove(host)
}
