// SPDX-License-Identifier: GPL-2.0

use anyhow::Result;

use crate::check;
use crate::forged::FIRST_VDEV;
use crate::forged::Forged;
use crate::guest::Guest;
use crate::host::Host;
use crate::results::Figures;
use crate::vbd::Vbd;

/// Disks that one guest can have.
const MOST: u32 = 255;
/// Names of so many bytes are more than one answer of xenstored holds.
const TOO_LONG: usize = 4096;

/// A disk that the driver cannot take says why, has no driver, and holds nothing: neither a place
/// among its guest's disks nor the module.
pub fn refused_disks(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    let guest = host.guest("refused").start()?;
    keys_that_cannot_be_listed(host, &guest)?;
    // All places are there for it.
    one_too_many(host, &guest)?;
    host.wait_unreferenced()?;
    host.ok("rmmod rblkback")?;
    host.ok(host.lab.backend.load_command())?;
    figures.insert("disks".into(), MOST.into());
    guest.destroy()
}

fn disk<'h, 'l>(host: &'h Host<'l>, guest: &Guest<'h, 'l>, number: u32) -> Forged<'h, 'l> {
    let first = Vbd::new(host, guest.domid(), "xvda");
    Forged::new(host, first.sibling(FIRST_VDEV + 256 * number))
}

fn has_no_driver(disk: &Forged<'_, '_>) -> Result<()> {
    check::that(disk.vbd.error()?.is_some(), || "no error node".into())?;
    check::that(disk.vbd.driver().is_err(), || {
        "the refused disk has a driver".into()
    })
}

/// The first disk too many is refused; one that goes makes room for another.
fn one_too_many(host: &Host<'_>, guest: &Guest<'_, '_>) -> Result<()> {
    let disks: Vec<_> = (0..MOST).map(|number| disk(host, guest, number)).collect();
    disks.iter().try_for_each(|disk| disk.appear(vec![]))?;
    disks.iter().try_for_each(|disk| disk.vbd.wait_state("2"))?;

    let one_more = disk(host, guest, MOST);
    one_more.appear(vec![])?;
    host.store_wait(&one_more.vbd.error_path(), "^28 ")?;
    has_no_driver(&one_more)?;
    let log = host.ok("dmesg")?;
    let sentence = format!("domain {} has {MOST} disks already", guest.domid());
    check::that(log.contains(&sentence), || {
        format!("dom0's log does not say {sentence:?}")
    })?;
    one_more.remove()?;

    let (gone, others) = disks.split_at(1);
    gone.iter().try_for_each(Forged::remove)?;
    let instead = disk(host, guest, MOST + 1);
    instead.appear(vec![])?;
    instead.vbd.wait_state("2")?;
    instead.remove()?;
    others.iter().try_for_each(Forged::remove)
}

/// Probing fails after the disk has taken its place: it must leave it again.
fn keys_that_cannot_be_listed(host: &Host<'_>, guest: &Guest<'_, '_>) -> Result<()> {
    let odd = disk(host, guest, MOST + 2);
    let name = "x".repeat(200);
    let long = (0..TOO_LONG.div_ceil(name.len()))
        .map(|at| (odd.vbd.path(&format!("{name}{at}")), "1".into()))
        .collect();
    odd.appear(long)?;
    host.store_wait(&odd.vbd.error_path(), "^7 ")?;
    has_no_driver(&odd)?;
    odd.remove()
}
