// SPDX-License-Identifier: GPL-2.0

//! A disk on a network: NVMe over TCP, from dom0's kernel to itself. Between both ends of each connection is a
//! program of dom0's, the wire, which is stopped or killed. The network sends a guest's pages as they are, and what
//! lies in the socket of a wire that stands still are those pages.

use anyhow::Context;
use anyhow::Result;

use crate::check;
use crate::disk::Disk;
use crate::fio::Job;
use crate::guest::Guest;
use crate::host::Host;
use crate::results::Figures;
use crate::scenarios::cycles::mapped_grants;

const MEGABYTES: u32 = 16;
/// Seconds after which the initiator takes a request for lost, and then, a connection.
const LOST: u32 = 5;
const GIVEN_UP: u32 = 3;
/// Seconds within which an error has to come: both, and what the initiator's own timers add.
const ERROR_WITHIN: f64 = 2.0 * (LOST + GIVEN_UP) as f64;
/// Too small for the target to be asked first: it goes out with its command.
const WRITE: &str = "dd if=/dev/zero of=/dev/xvdb bs=4k count=1 oflag=direct status=none";

/// A disk on a network is served. Its wire stands still: its guest waits, then has errors, no other disk waits; and
/// what the network still has in hand is not unmapped, so that the disk goes when the network lets go of it. Then the
/// wire is torn under load.
pub fn remote(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    let exported = Disk::memory(host, "nba", MEGABYTES)?;
    let other = Disk::memory(host, "nbb", MEGABYTES)?;
    let remote = Remote::new(host, &exported)?;
    let before = mapped_grants(host)?;
    let guest = host.guest("remote").start()?;
    guest.attach(&other, "xvdc")?;
    guest.attach(&remote.disk, "xvdb")?;
    verified(&guest, "xvdb")?;
    remote.stop()?;
    let write = guest.start(&format!(
        "read begin _ </proc/uptime; {WRITE} 2>/dev/null && exit; read end _ </proc/uptime; echo $begin $end"
    ))?;
    let said = write.ok_within(std::time::Duration::from_secs(300))?;
    let times: Vec<f64> = said
        .split_whitespace()
        .map(str::parse)
        .collect::<Result<_, _>>()?;
    let [begin, end] = times[..] else {
        anyhow::bail!("a write got through a wire that stands still: {said:?}");
    };
    figures.insert("seconds until the error".into(), (end - begin).into());
    check::within("seconds until the error", end - begin, 1.0..=ERROR_WITHIN)?;
    verified(&guest, "xvdc")?;

    detached_late(&guest, &remote, figures)?;
    remote.mend()?;
    torn_under_load(&guest, &remote).context("a torn wire")?;
    guest.destroy()?;
    host.ok(&format!("lab_grants_are {before} 30"))?;
    remote.remove()?;
    exported.remove(host)?;
    other.remove(host)
}

/// The disk is detached while the wire has a page of the guest's in hand: it goes when the wire does.
fn detached_late(
    guest: &Guest<'_, '_>,
    remote: &Remote<'_, '_>,
    figures: &mut Figures,
) -> Result<()> {
    let (host, vbd) = (guest.host, guest.vbd("xvdb"));
    host.ok(&format!(
        "xl block-detach {} xvdb >/run/detach.log 2>&1 & detach=$!",
        guest.name
    ))?;
    let frontend = format!("/local/domain/{}/device/vbd/{}", vbd.domid, vbd.vdev);
    host.store_wait(&format!("{frontend}/state"), "6")?;
    host.ok("lab_rest 2 && kill -0 $detach")
        .context("the disk is gone before the network has let go of its page")?;
    let held = mapped_grants(host)?;
    remote.tear()?;
    host.ok(&format!("wait $detach && lab_gone {} 30", vbd.sysfs()))?;
    let after = mapped_grants(host)?;
    figures.insert(
        "grants that the network held back".into(),
        (held - after).into(),
    );
    check::within(
        "grants that the network held back",
        held - after,
        1..=i64::MAX,
    )
}

fn verified(guest: &Guest<'_, '_>, vdev: &str) -> Result<()> {
    let job = Job::verified_writes(vdev, "4k-64k", 4).depth(8);
    let report = job.run(guest).with_context(|| vdev.to_string())?;
    check::equal("bytes verified", report.read.io_bytes, 4 << 20)
}

/// The server is gone for good while the guest writes: it has errors, and the disk can be detached.
fn torn_under_load(guest: &Guest<'_, '_>, remote: &Remote<'_, '_>) -> Result<()> {
    let vbd = guest.attach(&remote.disk, "xvdb")?;
    verified(guest, "xvdb")?;
    let writes = guest.start(&format!("while {WRITE} 2>/dev/null; do :; done"))?;
    vbd.wait_requests(50)?;
    remote.tear()?;
    writes.ok_within(std::time::Duration::from_secs(300))?;
    check::equal("the state", vbd.key("state")?.as_deref(), Some("4"))?;
    guest.detach("xvdb")
}

/// A disk of dom0's that dom0 has again, by way of a network.
struct Remote<'h, 'l> {
    host: &'h Host<'l>,
    disk: Disk,
}

const TARGET: &str = "/sys/kernel/config/nvmet";

impl<'h, 'l> Remote<'h, 'l> {
    fn new(host: &'h Host<'l>, exported: &Disk) -> Result<Self> {
        host.ok(&format!(
            "lab_drivers nvme-core nvme-fabrics nvme-tcp nvmet nvmet-tcp && \
             echo {LOST} >/sys/module/nvme_core/parameters/io_timeout && \
             ( cd {TARGET} && mkdir subsystems/lab && echo 1 >subsystems/lab/attr_allow_any_host && \
               mkdir subsystems/lab/namespaces/1 && cd subsystems/lab/namespaces/1 && \
               echo -n {} >device_path && echo 1 >enable && \
               cd {TARGET} && mkdir ports/1 && cd ports/1 && echo tcp >addr_trtype && echo ipv4 >addr_adrfam && \
               echo 127.0.0.1 >addr_traddr && echo 4420 >addr_trsvcid && \
               ln -s {TARGET}/subsystems/lab subsystems/lab )",
            exported.path
        ))?;
        let wire = Remote {
            host,
            disk: exported.at("/dev/nvme0n1"),
        };
        wire.lay()?;
        host.ok(&format!(
            "echo transport=tcp,traddr=127.0.0.1,trsvcid=4421,nqn=lab,nr_io_queues=1,reconnect_delay=1,\
             ctrl_loss_tmo=600,fast_io_fail_tmo={GIVEN_UP} >/dev/nvme-fabrics && \
             lab_until 60 '[ -b {} ]'",
            wire.disk.path
        ))?;
        Ok(wire)
    }

    /// A process for the door, and one for each connection, in a group of their own.
    fn lay(&self) -> Result<()> {
        self.host
            .ok(
                "{ setsid socat TCP-LISTEN:4421,fork,reuseaddr TCP:127.0.0.1:4420 & } >/run/wire.log 2>&1; \
                 wire=$!; lab_until 30 'grep -q :1145 /proc/net/tcp'",
            )
            .map(drop)
    }

    fn stop(&self) -> Result<()> {
        self.host.ok("kill -STOP -- -$wire").map(drop)
    }

    /// Whatever it had in hand is lost.
    fn tear(&self) -> Result<()> {
        self.host
            .ok("kill -KILL -- -$wire; wait $wire; true")
            .map(drop)
    }

    /// There is a wire again, and the initiator has found it.
    fn mend(&self) -> Result<()> {
        self.lay()?;
        self.host
            .ok("lab_file /sys/class/nvme/nvme0/state '^live$' 60")
            .map(drop)
    }

    fn remove(self) -> Result<()> {
        self.host
            .ok(&format!(
                "echo 1 >/sys/class/nvme/nvme0/delete_controller && \
                 cd {TARGET} && rm ports/1/subsystems/lab && rmdir ports/1 && \
                 echo 0 >subsystems/lab/namespaces/1/enable && rmdir subsystems/lab/namespaces/1 subsystems/lab && cd /"
            ))
            .map(drop)
    }
}
