// SPDX-License-Identifier: GPL-2.0

//! Block devices and files in dom0 that back a guest's disk.

use anyhow::Result;

use crate::host::Host;

/// Something in dom0 that can back a guest's disk. Ends with [`Disk::remove`].
pub struct Disk {
    /// `/dev/...`, or the path of a raw file.
    pub path: String,
    kind: Kind,
}

enum Kind {
    NullBlk(String),
    File,
}

impl Disk {
    /// A null_blk that keeps what is written.
    pub fn memory(host: &Host<'_>, name: &str, megabytes: u32) -> Result<Disk> {
        null_blk(host, name, megabytes, "echo 1 >memory_backed")
    }

    /// A null_blk that answers at once and keeps nothing.
    pub fn instant(host: &Host<'_>, name: &str, megabytes: u32) -> Result<Disk> {
        null_blk(host, name, megabytes, "echo 0 >irqmode")
    }

    /// A sparse raw file; `xl` puts a loop device before it.
    pub fn file(host: &Host<'_>, name: &str, megabytes: u32) -> Result<Disk> {
        let path = format!("/run/{name}.img");
        host.ok(&format!("truncate -s {megabytes}M {path}"))?;
        Ok(Disk {
            path,
            kind: Kind::File,
        })
    }

    /// Its `xl` disk specification.
    pub fn xl(&self, vdev: &str) -> String {
        format!("{},raw,{vdev},rw", self.path)
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

    /// Takes it away; it must not be in use.
    pub fn remove(self, host: &Host<'_>) -> Result<()> {
        let script = match &self.kind {
            Kind::NullBlk(name) => format!(
                "echo 0 >/sys/kernel/config/nullb/{name}/power && rmdir /sys/kernel/config/nullb/{name}"
            ),
            Kind::File => format!("rm {0} && [ -z \"$(losetup -nl -j {0})\" ]", self.path),
        };
        host.ok(&script).map(drop)
    }
}

fn null_blk(host: &Host<'_>, name: &str, megabytes: u32, setting: &str) -> Result<Disk> {
    host.ok(&format!(
        "mkdir /sys/kernel/config/nullb/{name} && ( cd /sys/kernel/config/nullb/{name} && echo {megabytes} >size && \
         echo 2 >queue_mode && {setting} && echo 1 >power ) && [ -b /dev/{name} ]"
    ))?;
    Ok(Disk {
        path: format!("/dev/{name}"),
        kind: Kind::NullBlk(name.into()),
    })
}
