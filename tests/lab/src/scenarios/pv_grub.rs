// SPDX-License-Identifier: GPL-2.0

use anyhow::Result;

use crate::check;
use crate::disk::Disk;
use crate::host::Host;
use crate::results::Figures;
use crate::vbd::Vbd;

const KERNEL: &str = "/usr/lib/grub-xen/grub-x86_64-xen.bin";
/// Kilobytes of random content that GRUB has to read right.
const KILOBYTES: u32 = 512;

/// GRUB, which has a block frontend of its own, finds its configuration on the disk, reads a file
/// of random bytes and prints its checksum on the console.
pub fn pv_grub(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    let disk = Disk::memory(host, "nb0", 32)?;
    host.ok(&format!(
        "mkdir -p /run/grub/boot/grub && dd if=/dev/urandom of=/run/grub/boot/random bs=1K count={KILOBYTES} status=none && \
         cat >/run/grub/boot/grub/grub.cfg <<'CFG'\n\
         echo lab: grub reads the disk\n\
         sha256sum /boot/random\n\
         CFG\n\
         mkfs.ext4 -q -F -d /run/grub {}",
        disk.path
    ))?;
    let expected = host.ok("sha256sum </run/grub/boot/random | cut -d' ' -f1")?;
    // It has no shell to speak to, so this is no guest as other scenarios have it.
    host.ok(&format!(
        "cat >/run/grub.cfg <<'CFG'\n\
         name = \"grub\"\ntype = \"pv\"\nmemory = 64\nkernel = \"{KERNEL}\"\ndisk = [\"{}\"]\n\
         CFG\n",
        disk.xl("xvda")
    ))?;
    // Each state that the frontend is seen in, until it is done.
    host.ok("{ until [ -e /run/grub/done ]; do \
         xenstore-read /local/domain/$(xl domid grub 2>/dev/null)/device/vbd/51712/state; \
         done 2>/dev/null | uniq >/run/grub/states & } && watcher=$!")?;
    host.ok_within("xl create -q /run/grub.cfg", 300)?;
    let log = "/var/log/xen/console/guest-grub.log";
    let read = host.run(&format!(
        "timeout 60 grep -q -m 1 {expected} <(tail -f -n +1 {log})"
    ))?;
    check::that(read.status == 0, || {
        let console = host.ok(&format!("cat {log}")).unwrap_or_default();
        format!("GRUB's console: expected the checksum {expected}, saw:\n{console}")
    })?;
    host.ok("touch /run/grub/done && wait $watcher")?;
    // It serves itself in Initialised: a backend must not wait for Connected.
    let states = host.ok("cat /run/grub/states")?;
    check::that(
        states.lines().any(|state| state == "3") && !states.contains('4'),
        || format!("GRUB's frontend: expected state 3 and not 4, saw:\n{states}"),
    )?;
    // What a limit makes of booting by it: throttle.rst says so.
    let domid = host.ok("xl domid grub")?.parse()?;
    let vbd = Vbd::new(host, domid, "xvda");
    let number = |file: &str| vbd.number::<u64>(&format!("statistics/{file}"));
    let (reads, sectors) = (number("rd_req")?, number("rd_sect")?);
    check::within(
        "sectors of 512 bytes that were read",
        sectors,
        2 * u64::from(KILOBYTES)..=u64::MAX,
    )?;
    check::within(
        "reads, of 4 KiB at most",
        reads,
        sectors.div_ceil(8)..=sectors,
    )?;
    host.ok("xl destroy grub")?;
    figures.insert("reads".into(), reads.into());
    figures.insert("bytes read by GRUB".into(), (KILOBYTES << 10).into());
    host.ok("rm -r /run/grub /run/grub.cfg")?;
    disk.remove(host)
}
