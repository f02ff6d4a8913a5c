// SPDX-License-Identifier: GPL-2.0

//! Both drivers are loaded, and the module parameter `domains` says whose disks are whose.

use anyhow::Context;
use anyhow::Result;

use crate::check;
use crate::disk::Disk;
use crate::fio::Job;
use crate::guest::Guest;
use crate::host::Host;
use crate::host::quote;
use crate::lab::Backend;
use crate::results::Figures;

const OURS: Backend = Backend::Rblkback;
const THEIRS: Backend = Backend::Blkback;
const PARAMETER: &str = "/sys/module/rblkback/parameters/domains";
const MEGABYTES: u32 = 4;

/// A guest that is named has its disks on rblkback, all others have theirs on xen-blkback.
pub fn chosen(host: &Host<'_>, _figures: &mut Figures) -> Result<()> {
    let disks = ["nb0", "nb1", "nb2", "nb3"].map(|name| Disk::memory(host, name, 16));
    let [first, second, third, fourth] = disks;
    let (first, second, third, fourth) = (first?, second?, third?, fourth?);
    let (web, db) = (host.guest("web").start()?, host.guest("db").start()?);
    load(host, &format!("domains={}", web.name), "")?;
    is_served(&web, &first, "xvdb", OURS)?;
    is_served(&db, &second, "xvdb", THEIRS)?;
    // What the bus said of our refusal is gone when the other driver has the disk.
    host.store_wait(&db.vbd("xvdb").error_path(), "^absent$")?;
    names_are_the_toolstacks(&db)?;

    refuses_what_it_cannot_keep(host, &web.name)?;
    set(host, &uuid(&db)?.to_uppercase())?;
    is_served(&db, &third, "xvdc", OURS).context("by its UUID, in capitals")?;
    is_served(&web, &fourth, "xvdc", THEIRS).context("named no longer")?;
    // A disk stays where it is, but does not come back.
    let vbd = web.vbd("xvdb");
    check::equal("the driver", vbd.driver()?.as_str(), OURS.driver())?;
    vbd.unbind(OURS)?;
    check::that(vbd.bind(OURS).is_err(), || {
        "the disk of a guest that is not named was bound".into()
    })?;
    vbd.bind(THEIRS)?;
    works(&web, "xvdb")?;
    set(host, &format!("{},{}", web.name, db.name))?;
    vbd.hand_over(0, THEIRS, OURS)?;
    works(&web, "xvdb")?;

    web.detach("xvdc")?;
    arrives(host, &web, &fourth)?;
    web.destroy()?;
    db.destroy()?;
    xen_blkback_first(host, &first)?;
    [first, second, third, fourth]
        .into_iter()
        .try_for_each(|disk| disk.remove(host))
}

/// `xl migrate` gives a guest another name until all of it is here.
fn arrives(host: &Host<'_>, guest: &Guest<'_, '_>, disk: &Disk) -> Result<()> {
    let (name, incoming) = (&guest.name, format!("{}--incoming", guest.name));
    host.ok(&format!("xl rename {name} {incoming}"))?;
    set(host, name)?;
    let line = disk.xl("xvdc");
    host.ok(&format!("xl block-attach {incoming} '{line}'"))?;
    let driver = guest.vbd("xvdc").driver()?;
    check::equal(
        "the driver of a guest that arrives",
        driver.as_str(),
        OURS.driver(),
    )?;
    host.ok(&format!("xl rename {incoming} {name}")).map(drop)
}

/// The driver that was loaded first is asked first: xen-blkback takes what appears, also of guests that are
/// named, and their disks can be moved.
fn xen_blkback_first(host: &Host<'_>, disk: &Disk) -> Result<()> {
    let guest = host.guest("late").start()?;
    host.wait_unreferenced()?;
    host.ok("lab_file /sys/module/xen_blkback/refcnt '^0$' 30 && rmmod xen_blkback rblkback")?;
    host.ok(&format!(
        "{} && {} domains={}",
        THEIRS.load_command(),
        OURS.load_command(),
        guest.name
    ))?;
    is_served(&guest, disk, "xvdb", THEIRS)?;
    guest.vbd("xvdb").hand_over(0, THEIRS, OURS)?;
    works(&guest, "xvdb")?;
    guest.destroy()?;
    host.ok("lab_file /sys/module/xen_blkback/refcnt '^0$' 30 && rmmod xen_blkback")?;
    host.wait_unreferenced()?;
    host.ok(&format!("rmmod rblkback && {}", OURS.load_command()))
        .map(drop)
}

/// Loads rblkback, and xen-blkback after it.
fn load(host: &Host<'_>, ours: &str, theirs: &str) -> Result<()> {
    host.wait_unreferenced()?;
    host.ok(&format!(
        "rmmod rblkback && {} {ours} && {} {theirs}",
        OURS.load_command(),
        THEIRS.load_command()
    ))
    .map(drop)
}

fn set(host: &Host<'_>, list: &str) -> Result<()> {
    host.ok(&format!("echo {} >{PARAMETER}", quote(list)))?;
    check::equal("the list", host.ok(&format!("cat {PARAMETER}"))?, list)
}

/// Texts that are refused change nothing.
fn refuses_what_it_cannot_keep(host: &Host<'_>, list: &str) -> Result<()> {
    let long = "x".repeat(4000);
    for bad in [r#"a"b"#, &long] {
        host.refused(&format!("printf %s {} >{PARAMETER}", quote(bad)))
            .with_context(|| bad.to_string())?;
    }
    check::equal("the list", host.ok(&format!("cat {PARAMETER}"))?, list)
}

fn uuid(guest: &Guest<'_, '_>) -> Result<String> {
    let vm = guest
        .host
        .store_read(&format!("/local/domain/{}/vm", guest.domid()))?
        .context("no key vm")?;
    Ok(vm.trim_start_matches("/vm/").into())
}

/// A guest cannot have itself taken for another.
fn names_are_the_toolstacks(guest: &Guest<'_, '_>) -> Result<()> {
    let domid = guest.domid();
    let keys = guest.host.ok(&format!(
        "xenstore-ls -p /local/domain/{domid} | grep -E '^(name|vm) '"
    ))?;
    for key in ["name", "vm"] {
        let line = keys.lines().find(|line| line.starts_with(key));
        let line = line.with_context(|| format!("no key {key}"))?;
        check::contains(key, line, &[&format!("(n0,r{domid})")])?;
    }
    Ok(())
}

/// A new disk of the guest is on the driver that it is to be on, and works.
fn is_served(guest: &Guest<'_, '_>, disk: &Disk, vdev: &str, by: Backend) -> Result<()> {
    let vbd = guest.attach(disk, vdev)?;
    let what = format!("the driver of {} of {}", vdev, guest.name);
    check::equal(&what, vbd.driver()?.as_str(), by.driver())?;
    works(guest, vdev)
}

fn works(guest: &Guest<'_, '_>, vdev: &str) -> Result<()> {
    guest.vbd(vdev).wait_state("4")?;
    let report = Job::verified_writes(vdev, "4k-64k", MEGABYTES)
        .depth(8)
        .run(guest)?;
    let bytes = u64::from(MEGABYTES) << 20;
    check::equal("bytes verified", report.read.io_bytes, bytes)
}
