// SPDX-License-Identifier: GPL-2.0

//! One emulated machine: spawned, spoken to over sockets, killed when dropped.

use std::fs;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;

use anyhow::Context;
use anyhow::Result;
use command_fds::CommandFdExt;
use command_fds::FdMapping;

use crate::lab::Lab;

pub const SHELLS: usize = 4;
pub const GUESTS: usize = 4;

/// What the machine's clock counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// Host time, two processors.
    Wall,
    /// Instructions, one processor: each takes `1 << shift` nanoseconds, and idle time is skipped.
    /// Results do not depend on how busy the machine is that runs the lab.
    Instructions { shift: u8 },
}

impl Clock {
    /// libxl gives a device 10 s of the machine's own time. Where that is real time, whatever else
    /// this computer does has to wait.
    fn niceness(self) -> &'static str {
        match self {
            Clock::Wall => "-10",
            Clock::Instructions { .. } => "0",
        }
    }
}

/// A running QEMU.
pub struct Qemu {
    child: Child,
    pub shells: Vec<UnixStream>,
    pub guests: Vec<UnixStream>,
    dir: PathBuf,
}

impl Qemu {
    /// Starts a machine that keeps its logs in `dir`; `options` are for dom0's kernel.
    pub fn start(lab: &Lab, clock: Clock, options: &str, dir: &Path) -> Result<Self> {
        let payload = dir.join("payload.tar");
        lab.make_payload(&payload)?;
        // QEMU dies with the thread that started it, however that ends.
        let mut command = Command::new("nice");
        command.args(["-n", clock.niceness(), "setpriv", "--pdeathsig", "KILL"]);
        command.args(["--", "qemu-system-x86_64"]);
        command.args([
            "-display",
            "none",
            "-no-reboot",
            "-nodefaults",
            "-m",
            "3072",
        ]);
        command.args(clock_arguments(clock));
        add_images(&mut command, lab, options, &payload);
        command
            .arg("-serial")
            .arg(format!("file:{}", dir.join("serial.log").display()));
        let mut near = Vec::new();
        let mut mappings = Vec::new();
        command.args(["-device", "virtio-serial-pci,max_ports=16"]);
        let names = (0..SHELLS)
            .map(|i| format!("shell.{i}"))
            .chain((0..GUESTS).map(|i| format!("guest.{i}")));
        for (i, name) in names.enumerate() {
            let (ours, theirs) = UnixStream::pair()?;
            let child_fd = 10 + i as i32;
            command.args(["-chardev", &format!("socket,id=c{i},fd={child_fd}")]);
            command.args([
                "-device",
                &format!("virtserialport,chardev=c{i},name={name}"),
            ]);
            mappings.push(FdMapping {
                parent_fd: OwnedFd::from(theirs),
                child_fd,
            });
            near.push(ours);
        }
        command.fd_mappings(mappings)?;
        let log = File::create(dir.join("qemu.log"))?;
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let child = command.spawn().context("cannot start qemu-system-x86_64")?;
        let guests = near.split_off(SHELLS);
        Ok(Qemu {
            child,
            shells: near,
            guests,
            dir: dir.into(),
        })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// All that Xen's and dom0's consoles have written.
    pub fn serial(&self) -> String {
        let bytes = fs::read(self.dir.join("serial.log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).replace('\r', "")
    }

    /// Why QEMU itself failed, if it said.
    pub fn complaint(&self) -> String {
        fs::read_to_string(self.dir.join("qemu.log")).unwrap_or_default()
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        // Already gone is fine: the machine may have been powered off.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_file(self.dir.join("payload.tar"));
    }
}

fn clock_arguments(clock: Clock) -> Vec<String> {
    let text = match clock {
        Clock::Wall => "-accel tcg,thread=multi -cpu max -smp 2".to_string(),
        Clock::Instructions { shift } => {
            // rdrand: without it every early process waits for the kernel to gather entropy. Its
            // numbers come from the seed, so that runs repeat.
            format!(
                "-accel tcg,thread=single -icount shift={shift},sleep=off,align=off -cpu Nehalem,+rdrand -seed 1 -smp 1"
            )
        }
    };
    text.split(' ').map(String::from).collect()
}

fn add_images(command: &mut Command, lab: &Lab, options: &str, payload: &Path) {
    let image = |name: &str| lab.image(name).display().to_string();
    let (kernel, initrd) = lab.dom0_kernel();
    // eager-fpu: under TCG, Xen's lazy FPU switching corrupts vector registers of user space. The
    // other mitigations cost most of the time in emulation, and there is nothing to protect.
    let xen = "console=com1 com1=115200,8n1 dom0_mem=1500M,max:1500M spec-ctrl=no,eager-fpu=1 xpti=0 pv-l1tf=0 \
               loglvl=all guest_loglvl=all";
    // notests: the kernel's tests of its own ciphers, which nothing here uses.
    let linux =
        format!("console=hvc0 root=/dev/vda rw mitigations=off cryptomgr.notests {options}");
    // QEMU separates the images by commas.
    let linux = linux.replace(',', ",,");
    command.args(["-kernel", &image("xen"), "-append", xen]);
    command.args([
        "-initrd",
        &format!("{} {linux},{}", kernel.display(), initrd.display()),
    ]);
    let disk = |file: &str, options: &str| format!("file={file},format=raw,if=virtio,{options}");
    command.args(["-drive", &disk(&image("dom0.img"), "snapshot=on")]);
    command.args([
        "-drive",
        &disk(&payload.display().to_string(), "readonly=on"),
    ]);
}
