// SPDX-License-Identifier: GPL-2.0

//! The limit in a VM's configuration, by the hotplug script `block-tokens`.

use anyhow::Result;

use crate::check;
use crate::disk::Disk;
use crate::fio::Job;
use crate::guest::Guest;
use crate::host::Host;
use crate::results::Figures;

/// A guest whose configuration gives a block device and a raw file a limit has it from its first
/// request on, also after it was saved and restored, migrated and rebooted; a limit that makes no
/// sense fails `xl create` with a sentence.
pub fn config_file(host: &Host<'_>, _figures: &mut Figures) -> Result<()> {
    let phy = Disk::blank(host, "nb0", 64)?;
    let file = Disk::file(host, "limited", 16)?;
    let line = |limit: &str, disk: &Disk, vdev: &str| {
        format!(
            "vdev={vdev},format=raw,access=rw,script=block-tokens,target={limit}:{}",
            disk.path
        )
    };
    refusals(host, &phy)?;
    let guest = host
        .guest("configured")
        .disk_line(&line("refill=50/max=20", &phy, "xvda"))
        .disk_line(&line("credit=200/s@50ms", &file, "xvdb"))
        .disk_line(
            &line(
                "bytes-refill=1000000/size=4096/refill=7/initial=3",
                &phy,
                "xvdc",
            )
            .replace("rw", "ro"),
        )
        .booted()
        .start()?;
    limits(&guest)?;
    // From the first request on, with the bucket that it is to have.
    let spent = guest.vbd("xvdc").number::<i64>("qos/io_count")?;
    let left = guest.vbd("xvdc").number::<i64>("qos/tokens")?;
    check::within(
        "tokens-initial and what came since",
        left + spent,
        3..=7 * 60,
    )?;
    check::equal(
        "the device that the file is on",
        guest.vbd("xvdb").key("params")?.as_deref(),
        Some(file.path.as_str()),
    )?;
    guest.save_and_restore()?;
    guest.wait_disk("xvda")?;
    limits(&guest)?;
    guest.migrate()?;
    guest.wait_disk("xvda")?;
    limits(&guest)?;
    guest.reboot()?;
    guest.wait_disk("xvda")?;
    limits(&guest)?;
    let report = Job::random_reads("xvda", 4).depth(8).run(&guest)?;
    check::within("requests in 4 s", report.read.total_ios, 190..=232)?;
    Job::verified_writes("xvdb", "4k-8k", 1)
        .depth(4)
        .run(&guest)?;
    guest.destroy()?;
    phy.remove(host)?;
    file.remove(host)
}

fn limits(guest: &Guest<'_, '_>) -> Result<()> {
    for (vdev, file, value) in [
        ("xvda", "tokens_refill", "50"),
        ("xvda", "tokens_max", "20"),
        ("xvdb", "tokens_refill", "200"),
        ("xvdb", "tokens_max", "10"),
        ("xvdc", "tokens_refill", "7"),
        ("xvdc", "tokens_size", "4096"),
        ("xvdc", "bytes_refill", "1000000"),
        ("xvdc", "bytes_max", "100000"),
    ] {
        let name = format!("{vdev}'s {file}");
        let text = guest.vbd(vdev).text(&format!("qos/{file}"))?;
        check::equal(&name, text.trim(), value)?;
    }
    Ok(())
}

/// What `xl` says to limits and devices that make no sense.
fn refusals(host: &Host<'_>, disk: &Disk) -> Result<()> {
    let path = &disk.path;
    let guest = host.guest("refused").start()?;
    let cases = [
        (
            format!("refill=junk:{path}"),
            "refill=junk is not a number from 0 to 1000000000",
        ),
        (format!("refill=-1:{path}"), "refill=-1 is not a number"),
        (
            format!("refill=1000000001:{path}"),
            "refill=1000000001 is not a number",
        ),
        (format!("max=5:{path}"), "max without refill is no limit"),
        (format!("refil=5:{path}"), "\"refil\" is not one of"),
        (format!("refill=5/refill=6:{path}"), "refill is given twice"),
        (
            format!("500:{path}"),
            "\"500\" in \"500\" is not WORD=NUMBER",
        ),
        ("dev-nb0".into(), "has no limit"),
        (
            "refill=5:/dev/nowhere".into(),
            "/dev/nowhere is neither a block device nor a file",
        ),
    ];
    // xl leaves what failed in xenstore until it is detached: each has a device of its own.
    for ((target, words), letter) in cases.into_iter().zip('a'..) {
        let line = format!("vdev=xvd{letter},access=rw,script=block-tokens,target={target}");
        let said = host.refused(&format!("xl block-attach {} '{line}'", guest.name))?;
        check::that(said.contains(words), || {
            format!("{target}: expected xl to say {words:?}, it said:\n{said}")
        })?;
    }
    guest.destroy()?;
    // And the guest is not created at all.
    let wrong = host.guest("wrong").disk_line(&format!(
        "vdev=xvda,access=rw,script=block-tokens,target=refill=1x:{path}"
    ));
    let said = host.refused(&wrong.create())?;
    let words = "refill=1x is not a number";
    check::that(said.contains(words), || {
        format!("expected xl create to say {words:?}, it said:\n{said}")
    })?;
    let left = host.ok("xl list | tail -n +3 | grep -v ^spare || true")?;
    check::equal("guests that are left", left.as_str(), "")
}
