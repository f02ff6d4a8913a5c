// SPDX-License-Identifier: GPL-2.0

use anyhow::Result;

use crate::disk::Disk;
use crate::fio::Job;
use crate::host::Host;
use crate::lab::Backend;
use crate::results::Figures;

/// The module is loaded while nobody answers at xenstored's end, as before that is started. It waits for
/// nobody, and serves disks when xenstored is there.
pub fn silent(host: &Host<'_>, _figures: &mut Figures) -> Result<()> {
    let module = Backend::Rblkback;
    host.wait_unreferenced()?;
    host.ok(&format!("rmmod {}", module.module()))?;
    host.ok(&format!(
        "kill -STOP $(cat /run/xenstored.pid) && {{ timeout 20 {} & }}; loader=$!; \
         lab_until 10 '[ ! -e /proc/'$loader' ]'; stuck=$?; \
         kill -CONT $(cat /run/xenstored.pid); wait $loader && [ $stuck = 0 ]",
        module.load_command()
    ))?;
    let disk = Disk::memory(host, "nb0", 16)?;
    let guest = host.guest("early").start()?;
    guest.attach(&disk, "xvdb")?;
    Job::verified_writes("xvdb", "4k-64k", 4)
        .depth(8)
        .run(&guest)?;
    guest.destroy()?;
    disk.remove(host)
}
