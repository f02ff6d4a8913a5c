// SPDX-License-Identifier: GPL-2.0

//! Frontends that close and come back before the backend has got round to it.

use anyhow::Result;

use super::probe::Probe;
use super::probe::seen;
use crate::check;
use crate::disk::Disk;
use crate::host::Host;
use crate::host::quote;
use crate::results::Figures;
use crate::scenarios::memory::held;
use crate::vbd::Vbd;

/// How often a frontend begins anew while its device is away.
const TURNS: u64 = 40;
/// A device is opened, or would be if it were there.
const OPENED: Probe = Probe {
    event: "lab/opened",
    definition: "p:lab/opened bdev_file_open_by_dev dev=$arg1:u32",
    filter: None,
};
/// Attempts that a guest has at once, and in a second.
const AT_ONCE: u64 = 2;
const IN_A_SECOND: u64 = 4;

/// The frontend's `state`, written by dom0 in its place.
fn write_state(host: &Host<'_>, vbd: &Vbd<'_, '_>, state: &str) -> Result<()> {
    host.store_write(&[(frontend(vbd), state)])
}

fn frontend(vbd: &Vbd<'_, '_>) -> String {
    format!("/local/domain/{}/device/vbd/{}/state", vbd.domid, vbd.vdev)
}

/// A frontend closes while its requests are with a device that stands still, and has its rings ready
/// again before the device goes on: the disk is connected anew, and all requests have their responses.
pub fn initialised_early(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    let below = Disk::memory(host, "nb0", 16)?;
    let disk = Disk::linear(host, "still", &below, 16)?;
    let guest = host
        .guest("early")
        .disk(&disk, "xvda")
        .own_frontend()
        .start()?;
    let vbd = guest.vbd("xvda");
    held(&guest, 1, false, || Ok(()))?;
    disk.suspend(host)?;
    held(&guest, 1, true, || {
        write_state(host, &vbd, "6")?;
        let error = host.store_wait(&vbd.error_path(), "closing: waits for device")?;
        figures.insert("reported".into(), error.into());
        write_state(host, &vbd, "3")?;
        disk.resume(host)?;
        vbd.wait_state("4")?;
        check::equal("the error node", vbd.error()?, None)?;
        write_state(host, &vbd, "4")
    })?;
    guest.destroy()?;
    disk.remove(host)?;
    below.remove(host)
}

/// A frontend closes and begins anew, over and over, while its device is away, or says that it is connected
/// without having begun: the attempts to open the device, which may write to the log, are bounded. When
/// the device is there again, so is the disk.
pub fn away(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    let below = Disk::memory(host, "nb0", 16)?;
    let mut disk = Disk::linear(host, "away", &below, 16)?;
    disk.attach_by_short_script(host)?;
    let guest = host
        .guest("away")
        .disk(&disk, "xvda")
        .own_frontend()
        .start()?;
    let vbd = guest.vbd("xvda");
    held(&guest, 1, false, || Ok(()))?;
    for state in ["1", "3", "4"] {
        close(host, &vbd)?;
        host.ok("dmsetup remove --noudevsync away")?;
        let turns = turn(host, &vbd, state)?;
        let most = AT_ONCE + IN_A_SECOND * turns.milliseconds.div_ceil(1000);
        let what = format!("attempts to open the device, by state {state}");
        check::within(&what, turns.opened, 1..=most)?;
        figures.insert(what, turns.opened.into());
        figures.insert(
            format!("milliseconds, by state {state}"),
            turns.milliseconds.into(),
        );
        close(host, &vbd)?;
        Disk::linear(host, "away", &below, 16)?;
        held(&guest, 1, true, || Ok(()))?;
        check::equal("the error node", vbd.error()?, None)?;
    }
    guest.destroy()?;
    host.ok("dmsetup remove --noudevsync away")?;
    below.remove(host)
}

fn close(host: &Host<'_>, vbd: &Vbd<'_, '_>) -> Result<()> {
    write_state(host, vbd, "6")?;
    vbd.wait_state("6")
}

struct Turns {
    opened: u64,
    milliseconds: u64,
}

/// Has the frontend close and write `state`, without regard for the backend.
fn turn(host: &Host<'_>, vbd: &Vbd<'_, '_>, state: &str) -> Result<Turns> {
    let node = frontend(vbd);
    let script = format!(
        "for n in $(seq {TURNS}); do xenstore-write {node} {state}; xenstore-write {node} 6; done"
    );
    let mut milliseconds = 0;
    let events = seen(host, &[OPENED], || {
        milliseconds = host.timed(&format!("sh -c {}", quote(&script)))?;
        Ok(())
    })?;
    Ok(Turns {
        opened: events.len() as u64,
        milliseconds,
    })
}
