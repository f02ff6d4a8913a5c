// SPDX-License-Identifier: GPL-2.0

use anyhow::Context;
use anyhow::Result;

use crate::check;
use crate::disk::Disk;
use crate::fio::Job;
use crate::forged::FIRST_VDEV;
use crate::forged::Forged;
use crate::forged::borrow;
use crate::host::Host;
use crate::host::quote;
use crate::results::Figures;
use crate::vbd::Vbd;

/// A disk whose keys are written by hand, one of them bad.
struct Case {
    name: &'static str,
    /// Keys of the backend's directory that differ from the good ones; `None` leaves the key out.
    backend: &'static [(&'static str, Option<&'static str>)],
    /// The same for the frontend's directory.
    frontend: &'static [(&'static str, Option<&'static str>)],
    /// Words that the error node must have.
    error: &'static [&'static str],
}

const fn backend(
    name: &'static str,
    keys: &'static [(&'static str, Option<&'static str>)],
    error: &'static [&'static str],
) -> Case {
    Case {
        name,
        backend: keys,
        frontend: &[],
        error,
    }
}

const fn frontend(
    name: &'static str,
    keys: &'static [(&'static str, Option<&'static str>)],
    error: &'static [&'static str],
) -> Case {
    Case {
        name,
        backend: &[],
        frontend: keys,
        error,
    }
}

const LONG: &str =
    "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx";

/// Each case has its own virtual disk, because the keys of a refused one stay to be looked at.
const CASES: &[Case] = &[
    backend(
        "a device that does not exist",
        &[("physical-device", Some("fff:fff"))],
        &["physical-device", "fff:fff"],
    ),
    backend(
        "no number for a device",
        &[("physical-device", Some("junk"))],
        &["physical-device", "junk"],
    ),
    backend(
        "an empty device",
        &[("physical-device", Some(""))],
        &["physical-device"],
    ),
    backend(
        "a negative device",
        &[("physical-device", Some("-1:0"))],
        &["physical-device", "-1:0"],
    ),
    backend(
        "a device too large",
        &[("physical-device", Some("100000000:1"))],
        &["physical-device", "100000000:1"],
    ),
    backend(
        "junk after a device",
        &[("physical-device", Some("1:0x"))],
        &["physical-device", "1:0x"],
    ),
    backend(
        "a mode of junk",
        &[("mode", Some("junk"))],
        &["mode", "junk"],
    ),
    backend("an empty mode", &[("mode", Some(""))], &["mode"]),
    backend("no mode", &[("mode", None)], &["mode"]),
    frontend("no ring-ref", &[("ring-ref", None)], &["ring-ref"]),
    frontend(
        "an empty ring-ref",
        &[("ring-ref", Some(""))],
        &["ring-ref"],
    ),
    frontend(
        "a ring-ref of text",
        &[("ring-ref", Some("junk"))],
        &["ring-ref", "junk"],
    ),
    frontend(
        "a negative ring-ref",
        &[("ring-ref", Some("-1"))],
        &["ring-ref", "-1"],
    ),
    frontend(
        "a ring-ref too large",
        &[("ring-ref", Some("4294967296"))],
        &["ring-ref", "4294967296"],
    ),
    frontend(
        "a ring-ref that was never granted",
        &[("ring-ref", Some("500"))],
        &["500"],
    ),
    frontend(
        "a ring-ref beyond the table",
        &[("ring-ref", Some("4294967295"))],
        &["4294967295"],
    ),
    frontend(
        "no event-channel",
        &[("event-channel", None)],
        &["event-channel"],
    ),
    frontend(
        "an empty event-channel",
        &[("event-channel", Some(""))],
        &["event-channel"],
    ),
    frontend(
        "an event-channel of text",
        &[("event-channel", Some("junk"))],
        &["event-channel", "junk"],
    ),
    frontend(
        "a negative event-channel",
        &[("event-channel", Some("-1"))],
        &["event-channel", "-1"],
    ),
    frontend(
        "an event-channel too large",
        &[("event-channel", Some("4294967296"))],
        &["event-channel", "4294967296"],
    ),
    frontend(
        "an unknown protocol",
        &[("protocol", Some("sparc-abi"))],
        &["protocol", "sparc-abi"],
    ),
    frontend(
        "an empty protocol",
        &[("protocol", Some(""))],
        &["protocol"],
    ),
    frontend(
        "a protocol of format characters",
        &[("protocol", Some("%s%n%s%n"))],
        &["protocol", "%s%n"],
    ),
    frontend(
        "a protocol that never ends",
        &[("protocol", Some(LONG))],
        &["protocol", "xxxxxxxx"],
    ),
    frontend(
        "a protocol of control characters",
        &[("protocol", Some("\u{1b}[2J\u{7}"))],
        &["protocol"],
    ),
];

/// Junk in every key that the backend reads: the error node names key and value, the disk is
/// refused, and a neighbour's verify does not notice.
pub fn bad_keys(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    let (good, bad) = (
        Disk::memory(host, "nba", 64)?,
        Disk::memory(host, "nbb", 64)?,
    );
    let guest = host.guest("keys").disk(&good, "xvda").start()?;
    guest.wait_disk("xvda")?;
    let neighbour = guest.vbd("xvda");
    let number = bad.physical_device(host)?;
    let verify = Job::verified_writes("xvda", "4k-44k", 16).depth(16);
    let running = verify.start(&guest)?;
    refuse_all(host, &neighbour, &number)?;
    odd_states(
        &Forged::new(host, neighbour.sibling(FIRST_VDEV - 256)),
        &number,
    )?;
    running.finish()?;
    replaced_device(host, &neighbour, &number)?;
    // And again, now that all has happened.
    verify.run(&guest)?;
    check::equal(
        "the neighbour's state",
        neighbour.key("state")?.as_deref(),
        Some("4"),
    )?;
    figures.insert("cases".into(), CASES.len().into());
    guest.destroy()?;
    good.remove(host)?;
    bad.remove(host)
}

/// All cases side by side, each on a virtual disk of its own.
fn refuse_all(host: &Host<'_>, neighbour: &Vbd<'_, '_>, number: &str) -> Result<()> {
    let disk = |(i, case)| {
        (
            case,
            Forged::new(host, neighbour.sibling(FIRST_VDEV + 256 * i as u32)),
        )
    };
    let all: Vec<(&Case, Forged<'_, '_>)> = CASES.iter().enumerate().map(disk).collect();
    let created = all
        .iter()
        .flat_map(|(case, forged)| forged.created(number, case.backend))
        .collect::<Vec<_>>();
    host.store_write(&borrow(&created))?;
    let waiting: Vec<_> = all
        .iter()
        .filter(|(case, _)| case.backend.is_empty())
        .collect();
    wait_each(
        host,
        waiting.iter().map(|(_, f)| f.vbd.path("state")),
        "^2$",
    )
    .context("the backend's answer to good keys")?;
    let connected = waiting
        .iter()
        .flat_map(|(case, forged)| forged.connected(case.frontend))
        .collect::<Vec<_>>();
    host.store_write(&borrow(&connected))?;
    let errors = wait_each(
        host,
        all.iter().map(|(_, f)| f.vbd.error_path()),
        "^[^a]|^a[^b]",
    )?;
    // Refused: closing or closed.
    wait_each(host, all.iter().map(|(_, f)| f.vbd.path("state")), "^[56]$")
        .context("the state after a refusal")?;
    for ((case, _), error) in all.iter().zip(errors.lines()) {
        let what = format!("the error node for {}", case.name);
        check::contains(&what, error, case.error)?;
        check::that(!error.contains(|c: char| c.is_control()), || {
            format!("{what} has control characters: {error:?}")
        })?;
    }
    all.iter().try_for_each(|(_, forged)| forged.remove())
}

/// Waits for each of the nodes in turn; gives their values, one a line.
fn wait_each(
    host: &Host<'_>,
    nodes: impl Iterator<Item = String>,
    pattern: &str,
) -> Result<String> {
    let nodes: Vec<String> = nodes.collect();
    let script = format!(
        "for node in {}; do value=$(lab_wait $node {} 60) && echo \"${{value//[$'\\n']/ }}\" || {{ echo \"$node: $value\"; false; break; }}; done",
        nodes.join(" "),
        quote(pattern)
    );
    host.ok_within(&script, 300)
}

/// States that make no sense, from a frontend that never says anything else.
fn odd_states(forged: &Forged<'_, '_>, number: &str) -> Result<()> {
    forged
        .host
        .store_write(&borrow(&forged.created(number, &[])))?;
    forged.vbd.wait_state("2")?;
    for state in ["4", "7", "8", "99", "-1", "junk", "", "2", "1"] {
        forged.front("state", state)?;
    }
    // After all that, closing still works and ends where it should.
    forged.vbd.write(&[("online", "0")])?;
    forged.front("state", "5")?;
    forged.front("state", "6")?;
    forged.vbd.wait_state("6")?;
    forged.remove()
}

/// Another device in the key of a disk in use is refused and changes nothing.
fn replaced_device(host: &Host<'_>, vbd: &Vbd<'_, '_>, other: &str) -> Result<()> {
    let own = vbd.text("physical_device")?;
    vbd.write(&[("physical-device", other)])?;
    let error = host.store_wait(&vbd.error_path(), "^[^a]|^a[^b]")?;
    check::contains("the error node", &error, &["physical-device", other])?;
    check::equal(
        "physical_device after the change",
        vbd.text("physical_device")?,
        own.clone(),
    )?;
    check::equal(
        "the disk's state after the change",
        vbd.key("state")?.as_deref(),
        Some("4"),
    )?;
    vbd.write(&[("physical-device", own.as_str())])?;
    host.ok(&format!("xenstore-rm {}", vbd.error_path()))
        .map(drop)
}
