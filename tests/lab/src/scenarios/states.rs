// SPDX-License-Identifier: GPL-2.0

use std::time::Duration;

use anyhow::Context;
use anyhow::Result;

use crate::check;
use crate::disk::Disk;
use crate::fio::Job;
use crate::guest::Guest;
use crate::host::Host;
use crate::results::Figures;
use crate::vbd::Vbd;

/// Nothing that is not a plain decimal number up to a thousand million is a limit.
const INVALID: &[&str] = &[
    "",
    "junk",
    "-1",
    "+1",
    " 5",
    "5 ",
    "1e3",
    "0x10",
    "1.5",
    "4294967296",
    "1000000001",
    "18446744073709551616",
    "99999999999999999999999999999999",
    "1\n2",
    "%s%n",
];

/// Each value that a limit can have: valid ones apply, others keep the last good pair and say so.
pub fn limit_values(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    let disk = Disk::blank(host, "nb0", 256)?;
    let guest = host.guest("values").disk(&disk, "xvda").start()?;
    guest.wait_disk("xvda")?;
    let vbd = guest.vbd("xvda");
    check::equal("qos/state without keys", vbd.state()?.as_str(), "unlimited")?;
    invalid_values(&vbd, "tokens-refill")?;
    invalid_values(&vbd, "tokens-max")?;
    valid_values(&vbd)?;
    busy_states(host, &guest, &vbd)?;
    figures.insert("invalid values per key".into(), INVALID.len().into());
    guest.destroy()?;
    disk.remove(host)
}

/// Refill and max as the backend applies them.
fn pair(vbd: &Vbd<'_, '_>) -> Result<(u64, u64)> {
    Ok((
        vbd.number("qos/tokens_refill")?,
        vbd.number("qos/tokens_max")?,
    ))
}

fn invalid_values(vbd: &Vbd<'_, '_>, key: &str) -> Result<()> {
    vbd.limit(100, 7)?;
    for value in INVALID {
        let errors: u64 = vbd.number("qos/config_errors")?;
        vbd.write(&[(key, value)])?;
        vbd.wait_file("qos/config_errors", &(errors + 1).to_string())
            .with_context(|| format!("{key} = {value:?}"))?;
        check::equal(
            &format!("qos/state with {key} = {value:?}"),
            vbd.state()?.as_str(),
            "invalid",
        )?;
        check::equal(
            &format!("the applied pair with {key} = {value:?}"),
            pair(vbd)?,
            (100, 7),
        )?;
        vbd.limit(100, 7)?;
        vbd.wait_file("qos/state", "idle")?;
    }
    Ok(())
}

fn valid_values(vbd: &Vbd<'_, '_>) -> Result<()> {
    // Only a bucket size: no limit yet, and that is said.
    vbd.remove("tokens-refill")?;
    vbd.wait_file("qos/state", "incomplete")?;
    vbd.remove("tokens-max")?;
    vbd.wait_file("qos/state", "unlimited")?;
    // Without a size of its own the bucket holds a tenth of a second, and never less than one.
    for (refill, max) in [
        ("1", "1"),
        ("10", "1"),
        ("11", "2"),
        ("5000", "500"),
        ("1000000000", "100000000"),
    ] {
        vbd.write(&[("tokens-refill", refill)])?;
        vbd.wait_file("qos/tokens_refill", refill)?;
        check::equal(
            &format!("the default bucket for refill {refill}"),
            vbd.text("qos/tokens_max")?.as_str(),
            max,
        )?;
    }
    // The same value again is no change.
    let changes: u64 = vbd.number("qos/config_changes")?;
    vbd.write(&[("tokens-refill", "1000000000")])?;
    vbd.write(&[("tokens-refill", "77")])?;
    vbd.wait_file("qos/tokens_refill", "77")?;
    check::equal(
        "config_changes after writing one value twice and one new",
        vbd.number::<u64>("qos/config_changes")?,
        changes + 1,
    )?;
    // 0 is "no limit", never "stop".
    vbd.write(&[("tokens-refill", "0")])?;
    vbd.wait_file("qos/state", "unlimited")?;
    vbd.remove("tokens-refill")
}

/// The words for a disk with a limit: idle with a full bucket, bursting from it, throttled without.
fn busy_states(host: &Host<'_>, guest: &Guest<'_, '_>, vbd: &Vbd<'_, '_>) -> Result<()> {
    // Off and on again starts with a tenth of a second's worth; the bucket fills in a second.
    vbd.limit(2000, 2000)?;
    vbd.wait_file("qos/tokens", "2000")?;
    check::equal(
        "qos/state with a full bucket",
        vbd.state()?.as_str(),
        "idle",
    )?;
    vbd.limit(1, 2000)?;
    let job = Job::random_reads("xvda", 3)
        .depth(1)
        .with("--rate_iops=200")
        .start(guest)?;
    vbd.wait_file("qos/state", "bursting")?;
    job.finish()?;
    vbd.limit(1, 1)?;
    let job = guest.start(&format!(
        "{} & sleep 2; kill -9 $!",
        Job::random_reads("xvda", 1000).depth(32).command()
    ))?;
    vbd.wait_file("qos/state", "throttled")?;
    vbd.wait_file("qos/throttled_usec", "[1-9][0-9]*")?;
    job.ok_within(Duration::from_secs(60))?;
    // Removing the limit lets the 32 that still wait go.
    vbd.unlimit()?;
    guest.ok("wait")?;
    let level = host.ok(&format!("cat {}/qos/wait_usec_max", vbd.sysfs()))?;
    check::that(level.parse::<u64>()? > 500_000, || {
        format!("wait_usec_max: expected more than 500000 at 1 token/s, saw {level}")
    })
}
