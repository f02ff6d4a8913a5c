// SPDX-License-Identifier: GPL-2.0

use anyhow::Context;
use anyhow::Result;

use super::cycles::mapped_grants;
use crate::check;
use crate::disk::Disk;
use crate::host::Host;
use crate::results::Figures;

const PARAMETERS: &str = "/sys/module/holder/parameters";

/// A device answers and keeps a page for longer. A request whose page is to be unmapped is not
/// answered meanwhile, and holds up no other; a page that stays mapped holds nothing up but the
/// disk's end.
pub fn held_pages(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    let disk = Disk::holder(host)?;
    let guest = host.guest("holds").start()?;
    let idle = mapped_grants(host)?;

    // One page of the request stays mapped, the other one does not.
    host.ok("echo 1 >/sys/module/rblkback/parameters/max_persistent_grants")?;
    let vbd = guest.attach(&disk, "xvdb")?;
    host.ok(&format!("echo 1 >{PARAMETERS}/hold"))?;
    guest.ok(&format!(
        "rm -f /tmp/first; {{ {} && touch /tmp/first; }} &",
        read("8k", 0)
    ))?;
    holds(host, 2)?;
    guest.ok(&read("4k", 2))?;
    guest
        .ok("[ ! -e /tmp/first ]")
        .context("the first request was answered")?;
    // Whoever looks for the reason finds it.
    let error = host.store_wait(&vbd.error_path(), "still holds pages")?;
    figures.insert("reported".into(), error.into());
    let_go(host)?;
    guest.ok("wait $! && [ -e /tmp/first ]")?;
    guest.detach("xvdb")?;

    host.ok("echo 1056 >/sys/module/rblkback/parameters/max_persistent_grants")?;
    let vbd = guest.attach(&disk, "xvdb")?;
    host.ok(&format!("echo 1 >{PARAMETERS}/hold"))?;
    guest.ok(&read("4k", 0))?;
    holds(host, 1)?;
    host.ok(&format!(
        "xl block-detach {} xvdb >/run/detach.log 2>&1 & echo $! >/run/detach.pid",
        guest.name
    ))?;
    let frontend = format!("/local/domain/{}/device/vbd/{}", vbd.domid, vbd.vdev);
    host.store_wait(&format!("{frontend}/state"), "6")?;
    check::within(
        "grants while a page is held",
        mapped_grants(host)?,
        idle + 1..=i64::MAX,
    )?;
    let_go(host)?;
    host.ok("wait $(cat /run/detach.pid)")?;
    host.ok(&format!("lab_grants_are {idle} 30"))?;
    guest.destroy()?;
    disk.remove(host)
}

/// The guest's command that reads block `number` of that size.
fn read(size: &str, number: u32) -> String {
    format!("dd if=/dev/xvdb of=/dev/null bs={size} count=1 skip={number} iflag=direct status=none")
}

fn holds(host: &Host<'_>, pages: u32) -> Result<()> {
    host.ok(&format!("lab_file {PARAMETERS}/held '^{pages}$' 30"))
        .map(drop)
}

fn let_go(host: &Host<'_>) -> Result<()> {
    host.ok(&format!("echo 0 >{PARAMETERS}/held")).map(drop)
}
