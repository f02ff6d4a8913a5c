// SPDX-License-Identifier: GPL-2.0

//! Guests: created with `xl`, spoken to through their consoles.

use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::Context;
use anyhow::Result;

use crate::disk::Disk;
use crate::host::Host;
use crate::shell::Running;
use crate::shell::Shell;
use crate::vbd::Vbd;

const BOOT_DEADLINE: Duration = Duration::from_secs(300);

/// A guest to be started.
pub struct GuestSpec<'h, 'l> {
    host: &'h Host<'l>,
    name: String,
    disks: Vec<String>,
    own_frontend: bool,
    processors: u32,
}

impl<'h, 'l> GuestSpec<'h, 'l> {
    pub(crate) fn new(host: &'h Host<'l>, name: String) -> Self {
        GuestSpec {
            host,
            name,
            disks: Vec::new(),
            own_frontend: false,
            processors: 1,
        }
    }

    /// Gives it a disk, such as `xvda`.
    pub fn disk(mut self, disk: &Disk, vdev: &str) -> Self {
        self.disks.push(disk.xl(vdev));
        self
    }

    /// Gives it a disk that it may only read.
    pub fn read_only_disk(mut self, disk: &Disk, vdev: &str) -> Self {
        self.disks.push(disk.xl(vdev).replace(",rw", ",r"));
        self
    }

    /// Gives it more than one virtual processor.
    pub fn processors(mut self, count: u32) -> Self {
        self.processors = count;
        self
    }

    /// Its kernel leaves the disks alone; `/frontend` (tests/frontend) can have them.
    pub fn own_frontend(mut self) -> Self {
        self.own_frontend = true;
        self
    }

    /// `xl create`, then waits until the guest's shell answers.
    pub fn start(self) -> Result<Guest<'h, 'l>> {
        let (port, stream) = self.host.take_port()?;
        let text = self
            .host
            .ok_within(&self.script(port), 300)
            .with_context(|| format!("xl create {}", self.name))?;
        let mut last = text.lines().rev();
        let domid = last
            .next()
            .and_then(|l| l.parse().ok())
            .with_context(|| format!("no domid in:\n{text}"))?;
        let bridge = last.next().unwrap_or_default().to_string();
        let shell = Shell::new(&format!("guest {}", self.name), stream.try_clone()?)
            .with_diary(self.host.diary()?)
            .with_patience(self.host.lab.patience());
        shell.wait_boot(&self.name, BOOT_DEADLINE)?;
        if self.own_frontend {
            shell.ok("modprobe xen-gntalloc limit=16384 && modprobe xen-evtchn")?;
        }
        Ok(Guest {
            host: self.host,
            name: self.name,
            domid,
            shell,
            port,
            stream,
            bridge,
        })
    }

    fn script(&self, port: usize) -> String {
        let name = &self.name;
        let disks: Vec<String> = self.disks.iter().map(|d| format!("\"{d}\"")).collect();
        let (initrd, prepare, extra) = if self.own_frontend {
            (
                "/run/frontend-initrd",
                // Archives that follow each other are one. Once per host is enough.
                "[ -e /run/frontend-initrd ] || cat /lab-guest/initrd /lab/frontend.cpio >/run/frontend-initrd",
                " module_blacklist=xen_blkfront",
            )
        } else {
            ("/lab-guest/initrd", "", "")
        };
        format!(
            "{prepare}\ncat >/run/{name}.cfg <<'CFG'\n\
             name = \"{name}\"\ntype = \"pv\"\nmemory = 320\nvcpus = {}\n\
             kernel = \"/lab-guest/vmlinux\"\nramdisk = \"{initrd}\"\n\
             extra = \"console=hvc0 quiet cryptomgr.notests mitigations=off rodata=off init_on_alloc=0{extra}\"\n\
             disk = [{}]\non_crash = \"preserve\"\n\
             CFG\n\
             xl create -q /run/{name}.cfg && {{ lab-console {name} {port} </dev/null >/run/{name}.bridge 2>&1 & echo $!; }} \
             && xl domid {name}",
            self.processors,
            disks.join(", ")
        )
    }
}

/// A running guest. Ends with [`Guest::destroy`]; one that is only dropped is left to its host.
pub struct Guest<'h, 'l> {
    pub host: &'h Host<'l>,
    pub name: String,
    pub domid: u32,
    shell: Shell,
    port: usize,
    stream: UnixStream,
    /// The process in dom0 that joins console and port.
    bridge: String,
}

impl<'h, 'l> Guest<'h, 'l> {
    /// Runs a command in the guest that must succeed.
    pub fn ok(&self, command: &str) -> Result<String> {
        self.shell.ok(command)
    }

    /// As [`Guest::ok`], with a deadline that fits a longer command.
    pub fn ok_within(&self, command: &str, seconds: u64) -> Result<String> {
        self.shell.ok_within(command, Duration::from_secs(seconds))
    }

    /// Starts a command in the guest.
    pub fn start(&self, command: &str) -> Result<Running<'_>> {
        self.shell.start(command)
    }

    /// The backend's side of one of its disks.
    pub fn vbd(&self, vdev: &str) -> Vbd<'h, 'l> {
        Vbd::new(self.host, self.domid, vdev)
    }

    /// `xl block-attach`, then waits until the guest sees the disk.
    pub fn attach(&self, disk: &Disk, vdev: &str) -> Result<Vbd<'h, 'l>> {
        self.host.ok(&format!(
            "xl block-attach {} '{}'",
            self.name,
            disk.xl(vdev)
        ))?;
        self.wait_disk(vdev)?;
        Ok(self.vbd(vdev))
    }

    /// Waits until the guest's kernel has made the disk's node.
    pub fn wait_disk(&self, vdev: &str) -> Result<()> {
        self.vbd(vdev).wait_state("4")?;
        // The node follows the frontend's state by a moment, with no event a shell could wait for.
        self.ok(&format!("until [ -b /dev/{vdev} ]; do sleep 0.02; done"))
            .map(drop)
    }

    /// `xl block-detach`, which must succeed.
    pub fn detach(&self, vdev: &str) -> Result<()> {
        self.host
            .ok(&format!("xl block-detach {} {vdev}", self.name))
            .map(drop)
    }

    /// `xl destroy`, which must succeed.
    pub fn destroy(self) -> Result<()> {
        self.host.ok(&format!("xl destroy {}", self.name))?;
        self.gone()
    }

    /// To be called when something else has destroyed the guest: frees its console.
    pub fn gone(self) -> Result<()> {
        // Ends by itself with the console; its status says nothing.
        self.host.ok(&format!("wait {}; true", self.bridge))?;
        self.host.return_port(self.port, self.stream);
        Ok(())
    }
}
