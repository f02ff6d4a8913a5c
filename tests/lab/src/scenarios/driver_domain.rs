// SPDX-License-Identifier: GPL-2.0

//! The module in a domain of its own, which is not dom0 and has no privilege: what xl calls a driver
//! domain. Its own `xl devd` runs the hotplug scripts there.

use anyhow::Context;
use anyhow::Result;

use crate::check;
use crate::disk::Disk;
use crate::fio::Job;
use crate::guest::Guest;
use crate::host::FUNCTIONS;
use crate::host::Host;
use crate::host::quote;
use crate::results::Figures;

const NAME: &str = "driver";
const MEGABYTES: u32 = 16;
/// Requests a second and a bucket, as the disk line of the guest's configuration has them.
const REFILL: u64 = 200;
const MAX: u64 = 20;
const SECONDS: u32 = 5;
/// What the domain serves, and what it has its programs from: dom0's own disk.
const SERVED: &str = "xvdy";
const PROGRAMS: &str = "xvdz";
/// Prepares the domain: dom0's userland below a memory file system, Xen's devices, the module, and
/// the daemon that runs hotplug scripts, which need /dev/stdin for their lock.
const PREPARE: &str = "\
    cd / && for m in squashfs overlay; do xz -dc /$m.ko.xz >/tmp/$m.ko && insmod /tmp/$m.ko; done && \
    mkdir -p /image /writable /domain && mount -t squashfs -o ro /dev/xvdz /image && \
    mount -t tmpfs tmpfs /writable && mkdir /writable/upper /writable/work && \
    mount -t overlay overlay -o lowerdir=/image,upperdir=/writable/upper,workdir=/writable/work /domain && \
    ln -sfn /proc/self/fd/0 /dev/stdin && \
    for d in proc sys dev; do mount --bind /$d /domain/$d; done && mount -t tmpfs tmpfs /domain/run && \
    mkdir -p /domain/run/xen /domain/run/lock /domain/run/xen-hotplug /domain/lab && \
    cp /rblkback.ko /domain/lab/ && cp /block-tokens /domain/etc/xen/scripts/ && \
    chroot /domain modprobe -a xen-evtchn xen-gntdev xen-gntalloc xen-privcmd xenfs loop && \
    chroot /domain mount -t xenfs xenfs /proc/xen && \
    insmod /rblkback.ko && chroot /domain xl devd";

/// A driver domain serves a guest's disk, under the limit of its disk line and under one that is
/// written later; lets go of it; loses the module and gets it back under the guest's load; and is replaced
/// by another one while the guest is saved. The guest's verify notices nothing.
pub fn driver_domain(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    let disk = Disk::memory(host, "nb0", MEGABYTES)?;
    let domain = DriverDomain::start(host, &disk)?;
    let guest = host.guest("served").start()?;
    let line = format!("script=block-tokens,target=refill={REFILL}/max={MAX}:/dev/{SERVED}");
    domain.attach(&guest, &line)?;
    limits(&domain, &guest, figures)?;
    guest.detach("xvdb")?;
    domain.serves_nobody()?;

    domain.attach(&guest, &format!("target=/dev/{SERVED}"))?;
    let verify = Job::verified_writes("xvdb", "4k-44k", MEGABYTES)
        .depth(16)
        .repeat(&guest)?;
    domain.reload_module(&guest)?;
    guest.save()?;
    domain.end()?;
    let domain = DriverDomain::start(host, &disk)?;
    guest.restore().context("on another driver domain")?;
    domain.wait_requests(&guest, 50)?;
    let (runs, report) = verify.stop()?;
    let bytes = u64::from(MEGABYTES) << 20;
    check::equal("bytes verified", report.read.io_bytes, bytes)?;
    figures.insert("bytes verified".into(), (runs * bytes).into());
    guest.detach("xvdb")?;
    domain.serves_nobody()?;
    guest.destroy()?;
    domain.end()?;
    disk.remove(host)
}

/// Reads as fast as the limit of the disk line lets them, and then as another one does.
fn limits(
    domain: &DriverDomain<'_, '_>,
    guest: &Guest<'_, '_>,
    figures: &mut Figures,
) -> Result<()> {
    for refill in [REFILL, REFILL / 4] {
        domain.limit(guest, refill)?;
        let report = Job::random_reads("xvdb", SECONDS).depth(8).run(guest)?;
        let reads = report.read.total_ios;
        // fio waits for the eight that are under way at the end.
        let most = refill * u64::from(SECONDS) + MAX + 8;
        check::within("reads under the limit", reads, most - 28..=most)?;
        figures.insert(format!("reads in {SECONDS} s at {refill}/s"), reads.into());
    }
    Ok(())
}

/// A guest that serves the disks of others.
struct DriverDomain<'h, 'l> {
    host: &'h Host<'l>,
    guest: Guest<'h, 'l>,
}

impl<'h, 'l> DriverDomain<'h, 'l> {
    fn start(host: &'h Host<'l>, disk: &Disk) -> Result<Self> {
        let guest = host
            .guest_named(NAME)
            .disk(disk, SERVED)
            .disk_line(&format!("/dev/vda,raw,{PROGRAMS},r"))
            .driver_domain()
            .start()?;
        guest.wait_disks(&[SERVED.into(), PROGRAMS.into()])?;
        guest.ok(FUNCTIONS)?;
        guest.ok_within(PREPARE, 300).context("the driver domain")?;
        Ok(DriverDomain { host, guest })
    }

    /// `xl block-attach` of a disk that it serves.
    fn attach(&self, guest: &Guest<'_, '_>, line: &str) -> Result<()> {
        let line = format!("format=raw,vdev=xvdb,access=rw,backend={NAME},{line}");
        self.host
            .ok_within(&format!("xl block-attach {} '{line}'", guest.name), 120)?;
        let status = format!("{}/hotplug-status", self.keys(guest));
        self.host
            .store_wait(&status, "connected")
            .map_err(|error| error.context(self.logs()))?;
        guest.wait_node("xvdb")
    }

    /// What its own daemon and kernel say.
    fn logs(&self) -> String {
        self.guest
            .ok("tail -n 20 /domain/var/log/xen/*.log; dmesg | tail -n 20; ps")
            .unwrap_or_else(|error| format!("{error:#}"))
    }

    /// The keys of the guest's disk, which lie in the driver domain's own part of xenstore.
    fn keys(&self, guest: &Guest<'_, '_>) -> String {
        let number = guest.vbd("xvdb").vdev;
        format!(
            "/local/domain/{}/backend/vbd/{}/{number}",
            self.guest.domid(),
            guest.domid()
        )
    }

    fn limit(&self, guest: &Guest<'_, '_>, refill: u64) -> Result<()> {
        let key = format!("{}/tokens-refill", self.keys(guest));
        self.host.store_write(&[(key, &refill.to_string())])?;
        let file = format!("{}/qos/tokens_refill", guest.vbd("xvdb").sysfs());
        self.guest
            .ok(&format!("lab_file {file} '^{refill}$' 30"))
            .map(drop)
    }

    fn wait_requests(&self, guest: &Guest<'_, '_>, count: u64) -> Result<()> {
        let sysfs = quote(&guest.vbd("xvdb").sysfs());
        self.guest
            .ok(&format!("lab_requests {sysfs} {count} 60"))
            .map(drop)
    }

    /// Takes the module out under the guest's load, and loads it again.
    fn reload_module(&self, guest: &Guest<'_, '_>) -> Result<()> {
        self.wait_requests(guest, 50)?;
        let device = guest.vbd("xvdb").device();
        self.guest.ok(&format!(
            "echo {device} >/sys/bus/xen-backend/drivers/rblkback/unbind && \
             lab_file /sys/module/rblkback/refcnt '^0$' 30 && rmmod rblkback && insmod /rblkback.ko"
        ))?;
        self.wait_requests(guest, 50)
    }

    /// Nothing of a detached disk is left: neither its device nor its keys.
    fn serves_nobody(&self) -> Result<()> {
        self.guest
            .ok("lab_until 30 '! ls /sys/bus/xen-backend/devices | grep vbd'")?;
        let keys = format!("/local/domain/{}/backend/vbd", self.guest.domid());
        self.host
            .ok(&format!(
                "lab_until 30 '[ -z \"$(xenstore-ls -f {keys} 2>/dev/null | grep frontend)\" ]'"
            ))
            .map(drop)
    }

    /// It must have served without a complaint of its kernel.
    fn end(self) -> Result<()> {
        let complaints = self
            .guest
            .ok("dmesg | grep -E -A 20 'WARNING:|BUG:|Oops|rblkback: .* error' || true")?;
        check::equal("the driver domain's complaints", complaints.as_str(), "")?;
        self.guest.destroy()
    }
}
