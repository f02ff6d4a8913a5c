// SPDX-License-Identifier: GPL-2.0

//! Block devices and files in dom0 that back a guest's disk.

use anyhow::Result;

use crate::device::Device;
use crate::host::Host;

/// Something in dom0 that can back a guest's disk. Ends with [`Disk::remove`].
pub struct Disk {
    /// `/dev/...`, or the path of a raw file.
    pub path: String,
    /// A hotplug script other than Debian's.
    script: Option<String>,
    kind: Kind,
    access: &'static str,
}

enum Kind {
    NullBlk(String),
    ScsiDebug,
    Holder,
    File,
    /// The file behind it.
    Loop(String),
    /// The name of a device mapper target.
    Linear(String),
    /// The device mapper target and what is below it.
    Mapped(Box<(Disk, Disk)>),
    /// Whose end is somebody else's matter.
    Elsewhere,
    /// A device of QEMU's: its directory in sysfs.
    Emulated(String),
}

impl Disk {
    /// A disk that keeps what is written, on the kind of device that the scenario runs on.
    pub fn memory(host: &Host<'_>, name: &str, megabytes: u32) -> Result<Disk> {
        Disk::of(
            host,
            host.device(),
            name,
            megabytes,
            "echo 1 >memory_backed",
        )
    }

    /// As [`Disk::memory`], with more of null_blk's attributes set by a shell command.
    pub fn memory_with(host: &Host<'_>, name: &str, megabytes: u32, setting: &str) -> Result<Disk> {
        let setting = format!("echo 1 >memory_backed && {setting}");
        Disk::of(host, host.device(), name, megabytes, &setting)
    }

    /// A disk that keeps nothing, on the kind of device that the scenario runs on.
    pub fn blank(host: &Host<'_>, name: &str, megabytes: u32) -> Result<Disk> {
        Disk::of(host, host.device(), name, megabytes, "echo 0 >irqmode")
    }

    /// A null_blk that answers at once and keeps nothing, whatever the scenario runs on.
    pub fn instant(host: &Host<'_>, name: &str, megabytes: u32) -> Result<Disk> {
        Disk::of(host, Device::AtOnce, name, megabytes, "echo 0 >irqmode")
    }

    /// A disk that answers each request late and keeps nothing, so that a busy guest has all its
    /// requests under way there at any moment: after 50 ms, unless the scenario runs on another
    /// kind that does.
    pub fn slow(host: &Host<'_>, name: &str, megabytes: u32) -> Result<Disk> {
        let device = match host.device() {
            Device::AtOnce => Device::Ms50,
            other => other,
        };
        Disk::of(host, device, name, megabytes, "echo 0 >irqmode")
    }

    /// A disk on some kind of device; the setting is for where there is a null_blk.
    fn of(
        host: &Host<'_>,
        device: Device,
        name: &str,
        megabytes: u32,
        setting: &str,
    ) -> Result<Disk> {
        match device {
            Device::Nvme | Device::Virtio => emulated(host, device, megabytes),
            Device::Loop => Disk::looped(host, name, megabytes),
            Device::Mapped => {
                let below = null_blk(host, device, &format!("{name}-below"), megabytes, setting)?;
                let mapped = Disk::linear(host, name, &below, megabytes)?;
                let kind = Kind::Mapped(Box::new((mapped, below)));
                Ok(Disk::new(format!("/dev/mapper/{name}"), kind))
            }
            _ => null_blk(host, device, name, megabytes, setting),
        }
    }

    /// A SCSI disk that keeps nothing, and has a cache that can be flushed. It answers when a null_blk of
    /// the scenario's device would.
    pub fn flushed(host: &Host<'_>) -> Result<Disk> {
        let pace = match host.device().delay().as_nanos() {
            0 => "delay=0".to_string(),
            delay => format!("ndelay={delay}"),
        };
        Disk::scsi(host, &format!("fake_rw=1 {pace} virtual_gb=1"))
    }

    /// A SCSI disk as the parameters of scsi_debug say.
    pub fn scsi(host: &Host<'_>, parameters: &str) -> Result<Disk> {
        let name = host.ok(&format!(
            "modprobe sd_mod && modprobe scsi_debug {parameters} && \
             lab_until 30 'ls /sys/bus/pseudo/drivers/scsi_debug/adapter0/host*/target*/*/block'"
        ))?;
        Ok(Disk::new(format!("/dev/{name}"), Kind::ScsiDebug))
    }

    /// A disk of zeroes that keeps pages when it is told to: tests/holder.
    pub fn holder(host: &Host<'_>) -> Result<Disk> {
        host.ok("insmod /lab/holder.ko && [ -b /dev/holder0 ]")?;
        Ok(Disk::new("/dev/holder0".into(), Kind::Holder))
    }

    /// A device mapper target over the first `megabytes` of another disk.
    pub fn linear(host: &Host<'_>, name: &str, below: &Disk, megabytes: u32) -> Result<Disk> {
        host.ok("modprobe dm-mod && mkdir -p /dev/mapper && dmsetup mknodes control")?;
        Disk::target(host, name, &linear_table(below, megabytes))
    }

    /// A device mapper device with this table, of one line or several.
    pub fn target(host: &Host<'_>, name: &str, table: &str) -> Result<Disk> {
        host.ok(&format!(
            "dmsetup create {name} --noudevsync <<'TABLE' && dmsetup mknodes {name} && [ -b /dev/mapper/{name} ]\n{table}\nTABLE"
        ))?;
        Ok(Disk::new(
            format!("/dev/mapper/{name}"),
            Kind::Linear(name.into()),
        ))
    }

    /// A sparse raw file; `xl` puts a loop device before it.
    pub fn file(host: &Host<'_>, name: &str, megabytes: u32) -> Result<Disk> {
        let path = format!("/run/{name}.img");
        host.ok(&format!("truncate -s {megabytes}M {path}"))?;
        Ok(Disk::new(path, Kind::File))
    }

    fn new(path: String, kind: Kind) -> Disk {
        Disk {
            path,
            script: None,
            kind,
            access: "rw",
        }
    }

    /// The same bytes under another path, by which there is nothing to be removed.
    pub fn at(&self, path: &str) -> Disk {
        Disk::new(path.into(), Kind::Elsewhere)
    }

    /// What guests may do with it, in the words of `xl`: `rw` unless changed here.
    pub fn access(self, access: &'static str) -> Disk {
        Disk { access, ..self }
    }

    /// A sparse raw file behind a loop device that the administrator has set up.
    pub fn looped(host: &Host<'_>, name: &str, megabytes: u32) -> Result<Disk> {
        let file = Disk::file(host, name, megabytes)?.path;
        let path = host.ok(&format!("losetup -f --show {file}"))?;
        Ok(Disk::new(path, Kind::Loop(file)))
    }

    /// Its `xl` disk specification.
    pub fn xl(&self, vdev: &str) -> String {
        match &self.script {
            Some(script) => format!(
                "vdev={vdev},format=raw,access=rw,script={script},target={}",
                self.path
            ),
            None => format!("{},raw,{vdev},{}", self.path, self.access),
        }
    }

    /// From now on attaches it with a hotplug script that does the least there is to do. Debian's
    /// own one starts some sixty processes. Only for block devices.
    pub fn attach_by_short_script(&mut self, host: &Host<'_>) -> Result<()> {
        self.attach_by_script(host, "true")
    }

    /// The same with a command of the script's own, for toolstacks that write other keys than xl.
    pub fn attach_by_script(&mut self, host: &Host<'_>, command: &str) -> Result<()> {
        let file = format!(
            "/run/attach-{}",
            self.path.trim_start_matches("/dev/").replace('/', "-")
        );
        let number = self.physical_device(host)?;
        host.ok(&format!(
            "cat >{file} <<'SCRIPT' && chmod +x {file}\n#!/bin/sh\n[ \"$1\" = add ] || exit 0\n{command}\n\
             exec xenstore-write $XENBUS_PATH/physical-device {number} $XENBUS_PATH/hotplug-status connected\n\
             SCRIPT\n"
        ))?;
        self.script = Some(file);
        Ok(())
    }

    /// The kernel's number of the device, as tracepoints print it. Only for block devices.
    pub fn dev_t(&self, host: &Host<'_>) -> Result<u32> {
        let numbers = host.ok(&format!(
            "echo $((16#$(stat -c %t {0}) << 20 | 16#$(stat -c %T {0})))",
            self.path
        ))?;
        Ok(numbers.parse()?)
    }

    /// `major:minor` in hexadecimal, as the key `physical-device` has it.
    pub fn physical_device(&self, host: &Host<'_>) -> Result<String> {
        host.ok(&format!("stat -c %t:%T {}", self.path))
    }

    /// The device's directory in sysfs. Only for block devices.
    pub fn sysfs(&self, host: &Host<'_>) -> Result<String> {
        host.ok(&format!(
            "realpath -e /sys/dev/block/$((16#$(stat -c %t {0}))):$((16#$(stat -c %T {0})))",
            self.path
        ))
    }

    /// Holds back all I/O of a device mapper disk until [`Disk::resume`].
    pub fn suspend(&self, host: &Host<'_>) -> Result<()> {
        host.ok(&format!(
            "dmsetup suspend --noflush --nolockfs {}",
            self.path
        ))
        .map(drop)
    }

    /// Lets the I/O of a suspended disk go.
    pub fn resume(&self, host: &Host<'_>) -> Result<()> {
        host.ok(&format!("dmsetup resume --noudevsync {}", self.path))
            .map(drop)
    }

    /// Gives a device mapper disk another size.
    pub fn resize(&self, host: &Host<'_>, below: &Disk, megabytes: u32) -> Result<()> {
        let table = linear_table(below, megabytes);
        host.ok(&format!(
            "dmsetup load {0} --table '{table}' && dmsetup resume --noudevsync {0}",
            self.path
        ))
        .map(drop)
    }

    /// Takes it away; it must not be in use.
    pub fn remove(self, host: &Host<'_>) -> Result<()> {
        let script = match self.kind {
            Kind::NullBlk(name) => format!(
                "echo 0 >/sys/kernel/config/nullb/{name}/power && rmdir /sys/kernel/config/nullb/{name}"
            ),
            Kind::ScsiDebug => "rmmod scsi_debug".into(),
            Kind::Holder => "rmmod holder".into(),
            // The loop device goes when its last user has closed it, which no one announces;
            // after a scenario none may be left.
            Kind::File => format!("rm {}", self.path),
            Kind::Linear(name) => {
                format!("dmsetup remove --noudevsync {name} && rm -f /dev/mapper/{name}")
            }
            Kind::Loop(file) => format!("losetup -d {} && rm {file}", self.path),
            Kind::Mapped(both) => {
                let (mapped, below) = *both;
                mapped.remove(host)?;
                return below.remove(host);
            }
            Kind::Elsewhere => return Ok(()),
            Kind::Emulated(sysfs) => format!("echo 1 >{sysfs}/remove"),
        };
        host.ok(&script).map(drop)
    }
}

/// As large as any request may be that a guest sends, so that none is cut that a real disk would
/// take whole: null_blk by itself takes 255 sectors.
const MAX_SECTORS: u32 = 2560;

fn null_blk(
    host: &Host<'_>,
    device: Device,
    name: &str,
    megabytes: u32,
    setting: &str,
) -> Result<Disk> {
    let pace = match device.delay().as_nanos() {
        0 => "true".to_string(),
        delay => format!("echo 2 >irqmode && echo {delay} >completion_nsec"),
    };
    host.ok(&format!(
        "mkdir /sys/kernel/config/nullb/{name} && ( cd /sys/kernel/config/nullb/{name} && echo {megabytes} >size && \
         echo 2 >queue_mode && echo {MAX_SECTORS} >max_sectors && {setting} && {pace} && echo 1 >power ) && \
         [ -b /dev/{name} ]"
    ))?;
    Ok(Disk::new(
        format!("/dev/{name}"),
        Kind::NullBlk(name.into()),
    ))
}

/// A disk that QEMU has only now, and that dom0's kernel looks for when it is told to.
fn emulated(host: &Host<'_>, device: Device, megabytes: u32) -> Result<Disk> {
    let (driver, modules) = match device {
        Device::Nvme => ("nvme", "lab_drivers nvme-core nvme"),
        _ => ("virtio-blk-pci", "true"),
    };
    let serial = host.qemu.plug_disk(driver, &host.dir, megabytes)?;
    let found = host.ok(&format!(
        "{modules} && echo 1 >/sys/bus/pci/rescan && lab_until 60 'lab_by_serial {serial}'"
    ))?;
    let (name, sysfs) = found.split_once(' ').unwrap_or((&found, ""));
    Ok(Disk::new(
        format!("/dev/{name}"),
        Kind::Emulated(sysfs.into()),
    ))
}

fn linear_table(below: &Disk, megabytes: u32) -> String {
    format!("0 {} linear {} 0", u64::from(megabytes) * 2048, below.path)
}
