// SPDX-License-Identifier: GPL-2.0

use anyhow::Result;

use crate::check;
use crate::disk::Disk;
use crate::fio::Job;
use crate::guest::Guest;
use crate::host::Host;
use crate::results::Figures;

/// Megabytes at first, then grown, then shrunk.
const SIZES: [u32; 3] = [32, 64, 24];
/// Of the guest's clock, from the device's change to the guest's.
const LIMIT_MS: u64 = 5000;

/// The device grows and shrinks under an idle guest, which sees that without doing I/O, and under
/// a busy one; what lies past the end cannot be read or written any more.
pub fn resize(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    let below = Disk::memory(host, "nb0", SIZES[1])?;
    let disk = Disk::linear(host, "resized", &below, SIZES[0])?;
    let guest = host.guest("resize").disk(&disk, "xvda").start()?;
    guest.wait_disk("xvda")?;
    for megabytes in &SIZES[1..] {
        disk.resize(host, &below, *megabytes)?;
        let took = size_seen(&guest, *megabytes)?;
        figures.insert(
            format!("ms until the guest sees {megabytes} MiB"),
            took.into(),
        );
        last_sector(&guest, *megabytes)?;
        check::equal(
            "the key sectors",
            guest.vbd("xvda").key("sectors")?,
            Some((u64::from(*megabytes) * 2048).to_string()),
        )?;
    }
    under_load(host, &guest, &below, &disk, figures)?;
    guest.destroy()?;
    disk.remove(host)?;
    below.remove(host)
}

/// Waits until the guest's kernel has the new size; gives the milliseconds that took there.
fn size_seen(guest: &Guest<'_, '_>, megabytes: u32) -> Result<u64> {
    let sectors = u64::from(megabytes) * 2048;
    // Nothing in a guest announces this, so it looks again and again.
    let text = guest.ok(&format!(
        "now() {{ read -r up _ </proc/uptime; echo $((10#${{up/./}} * 10)); }}; begin=$(now); \
         until read -r size </sys/block/xvda/size && [ $size = {sectors} ]; do \
         [ $(($(now) - begin)) -lt {LIMIT_MS} ] || {{ echo still $size; exit 1; }}; sleep 0.02; done; \
         echo $(($(now) - begin))"
    ))?;
    Ok(text.parse()?)
}

/// The last sector can be read and written, the one behind it cannot.
fn last_sector(guest: &Guest<'_, '_>, megabytes: u32) -> Result<()> {
    let last = megabytes * 256 - 1;
    let read = format!("dd if=/dev/xvda of=/run/last bs=4k count=1 iflag=direct skip={last}");
    let write = format!("dd if=/dev/zero of=/dev/xvda bs=4k count=1 oflag=direct seek={last}");
    guest.ok(&format!(
        "{read} && {write} && [ $(stat -c %s /run/last) = 4096 ]"
    ))?;
    // Nothing is there: dd ends with an error, or with nothing read.
    let behind = last + 1;
    guest.ok(&format!(
        "! dd if=/dev/xvda of=/run/behind bs=4k count=1 iflag=direct skip={behind} || ! [ -s /run/behind ]"
    ))?;
    guest
        .refused(&format!(
            "dd if=/dev/zero of=/dev/xvda bs=4k count=1 oflag=direct seek={behind}"
        ))
        .map(drop)
}

/// Growing and shrinking while the guest verifies what it writes below the smallest size.
fn under_load(
    host: &Host<'_>,
    guest: &Guest<'_, '_>,
    below: &Disk,
    disk: &Disk,
    figures: &mut Figures,
) -> Result<()> {
    let vbd = guest.vbd("xvda");
    let size = SIZES[2];
    let verify = Job::verified_writes("xvda", "4k-44k", size)
        .depth(8)
        .start(guest)?;
    vbd.wait_requests(20)?;
    for megabytes in [SIZES[1], size] {
        disk.resize(host, below, megabytes)?;
        host.store_wait(
            &vbd.path("sectors"),
            &format!("^{}$", u64::from(megabytes) * 2048),
        )?;
    }
    let report = verify.finish()?;
    check::equal(
        "bytes verified while the size changed",
        report.read.io_bytes,
        u64::from(size) << 20,
    )?;
    figures.insert("bytes verified".into(), report.read.io_bytes.into());
    size_seen(guest, size).map(drop)
}
