// SPDX-License-Identifier: GPL-2.0

//! One emulated machine: spawned, spoken to over sockets, killed when dropped.

use std::cell::Cell;
use std::cell::RefCell;
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

use crate::check;
use crate::lab::Lab;
use crate::qmp::Control;
use crate::scenario::Kind;
use crate::scenario::Machine;
use crate::snapshot::Snapshot;

const SERIAL: &str = "serial.log";
/// A tar, on a disk of its own that a saved machine finds another one behind when it goes on.
const PAYLOAD: &str = "payload.tar";
const PAYLOAD_BYTES: u64 = 64 << 20;
/// Megabytes: dom0's, a few guests' and Xen's own.
const MEMORY: &str = "4096";
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
    control: RefCell<Control>,
    /// How many disks it was given since.
    plugged: Cell<u32>,
    pub shells: Vec<UnixStream>,
    pub guests: Vec<UnixStream>,
    dir: PathBuf,
}

impl Qemu {
    /// Turns a machine on that keeps its logs in `dir` and what it writes to its disk in `disk`.
    pub fn power_on(lab: &Lab, machine: Machine, disk: &Path, dir: &Path) -> Result<Self> {
        File::create(dir.join(PAYLOAD))?.set_len(PAYLOAD_BYTES)?;
        let mut command = emulator(lab, machine);
        add_drives(&mut command, disk, "", dir);
        Qemu::spawn(command, dir)
    }

    /// Lets a saved machine go on. What it writes is forgotten with it.
    pub fn resume(lab: &Lab, machine: Machine, snapshot: &Snapshot, dir: &Path) -> Result<Self> {
        let payload = dir.join(PAYLOAD);
        lab.make_payload(&payload)?;
        let payload = File::options().write(true).open(&payload)?;
        check::within(
            "bytes of the payload",
            payload.metadata()?.len(),
            0..=PAYLOAD_BYTES,
        )?;
        payload.set_len(PAYLOAD_BYTES)?;
        fs::copy(snapshot.serial(), dir.join(SERIAL))?;
        let mut command = emulator(lab, machine);
        add_drives(&mut command, &snapshot.disk(), ",snapshot=on", dir);
        command.args(["-incoming", "defer"]);
        let mut qemu = Qemu::spawn(command, dir)?;
        let resumed = qemu.control.get_mut().resume(&snapshot.state());
        resumed.with_context(|| qemu.complaint())?;
        Ok(qemu)
    }

    /// Writes the machine's state to a file and ends it.
    pub fn save(&mut self, file: &Path) -> Result<()> {
        self.control.get_mut().save(file)?;
        self.child.wait()?;
        Ok(())
    }

    fn spawn(mut command: Command, dir: &Path) -> Result<Self> {
        command.arg("-chardev").arg(format!(
            "file,id=serial,append=on,path={}",
            dir.join(SERIAL).display()
        ));
        command.args(["-serial", "chardev:serial"]);
        command.args(["-device", "virtio-serial-pci,max_ports=16"]);
        let mut near = Vec::new();
        let mut mappings = Vec::new();
        let mut socket = |command: &mut Command, id: &str| -> Result<()> {
            let (ours, theirs) = UnixStream::pair()?;
            let child_fd = 10 + near.len() as i32;
            command.args(["-chardev", &format!("socket,id={id},fd={child_fd}")]);
            mappings.push(FdMapping {
                parent_fd: OwnedFd::from(theirs),
                child_fd,
            });
            near.push(ours);
            Ok(())
        };
        let names = (0..SHELLS)
            .map(|i| format!("shell.{i}"))
            .chain((0..GUESTS).map(|i| format!("guest.{i}")));
        for (i, name) in names.enumerate() {
            socket(&mut command, &format!("c{i}"))?;
            command.args([
                "-device",
                &format!("virtserialport,chardev=c{i},name={name}"),
            ]);
        }
        socket(&mut command, "control")?;
        command.args(["-mon", "chardev=control,mode=control"]);
        command.fd_mappings(mappings)?;
        let log = File::create(dir.join("qemu.log"))?;
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let child = command.spawn().context("cannot start qemu-system-x86_64")?;
        let control = near.pop().context("too few sockets")?;
        let guests = near.split_off(SHELLS);
        let dir = dir.to_path_buf();
        let complaint = || fs::read_to_string(dir.join("qemu.log")).unwrap_or_default();
        Ok(Qemu {
            child,
            plugged: Cell::new(0),
            control: RefCell::new(Control::new(control).with_context(complaint)?),
            shells: near,
            guests,
            dir,
        })
    }

    /// Has the address of each instruction written to `file` until [`Qemu::log_nothing`].
    pub fn log_instructions(&self, file: &Path) -> Result<()> {
        self.control.borrow_mut().log_instructions(file)
    }

    /// Ends that.
    pub fn log_nothing(&self) -> Result<()> {
        self.control.borrow_mut().log_nothing()
    }

    /// Gives the running machine another disk, of zeroes, by the name of one of QEMU's drivers. It
    /// is not there when a machine is saved. Gives its serial number.
    pub fn plug_disk(&self, driver: &str, dir: &Path, megabytes: u32) -> Result<String> {
        self.plugged.set(self.plugged.get() + 1);
        let serial = format!("lab-{}", self.plugged.get());
        let path = dir.join(&serial);
        File::create(&path)?.set_len(u64::from(megabytes) << 20)?;
        self.control
            .borrow_mut()
            .plug_disk(driver, &serial, &path)?;
        // QEMU has it open; nothing is left when it ends, however it does.
        fs::remove_file(path)?;
        Ok(serial)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// All that Xen's and dom0's consoles have written.
    pub fn serial(&self) -> String {
        let bytes = fs::read(self.dir.join(SERIAL)).unwrap_or_default();
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
        let _ = fs::remove_file(self.dir.join(PAYLOAD));
    }
}

/// A processor with AMD's virtualisation and nested page tables, which Xen takes from that vendor alone.
const SVM: &str = ",+svm,+npt,vendor=AuthenticAMD";

fn processor_arguments(machine: Machine) -> Vec<String> {
    let text = match machine.kind.clock() {
        // It has SVM anyway.
        Clock::Wall => "-accel tcg,thread=multi -cpu max -smp 2".to_string(),
        Clock::Instructions { shift } => {
            // rdrand: without it every early process waits for the kernel to gather entropy. Its
            // numbers come from the seed, so that runs repeat.
            let svm = if machine.guests.needs_svm() { SVM } else { "" };
            format!(
                "-accel tcg,thread=single -icount shift={shift},sleep=off,align=off -cpu Nehalem,+rdrand{svm} -seed 1 -smp 1"
            )
        }
    };
    text.split(' ').map(String::from).collect()
}

/// What a machine is, but for its disks and whatever differs each time.
pub fn definition(lab: &Lab, machine: Machine) -> Vec<String> {
    let kind = machine.kind;
    let mut words = vec!["-display", "none"];
    if !kind.boots_its_disk() {
        words.push("-no-reboot");
    }
    words.extend(["-nodefaults", "-m", MEMORY]);
    let mut words: Vec<String> = words.into_iter().map(String::from).collect();
    words.extend(processor_arguments(machine));
    if !kind.boots_its_disk() {
        words.extend(boot_arguments(lab, kind));
    }
    words
}

/// Xen, dom0's kernel and its initrd, and what they are told.
fn boot_arguments(lab: &Lab, kind: Kind) -> Vec<String> {
    let image = |name: &str| lab.image(name).display().to_string();
    let (kernel, initrd) = lab.dom0_kernel();
    // eager-fpu: under TCG, Xen's lazy FPU switching corrupts vector registers of user space. The
    // other mitigations cost most of the time in emulation, and there is nothing to protect.
    let xen = format!(
        "console=com1 com1=115200,8n1 dom0_mem=1500M,max:1500M spec-ctrl=no,eager-fpu=1 xpti=0 pv-l1tf=0 \
         loglvl=all guest_loglvl=all{}",
        kind.xen_options()
    );
    // notests: the kernel's tests of its own ciphers, which nothing here uses.
    let linux = format!(
        "console=hvc0 root=/dev/vda rw mitigations=off cryptomgr.notests {}",
        kind.dom0_options()
    );
    // QEMU separates the images by commas.
    let linux = linux.replace(',', ",,");
    vec![
        "-kernel".into(),
        image("xen"),
        "-append".into(),
        xen,
        "-initrd".into(),
        format!("{} {linux},{}", kernel.display(), initrd.display()),
    ]
}

fn emulator(lab: &Lab, machine: Machine) -> Command {
    // QEMU dies with the thread that started it, however that ends.
    let mut command = Command::new("nice");
    command.args([
        "-n",
        machine.kind.clock().niceness(),
        "setpriv",
        "--pdeathsig",
        "KILL",
    ]);
    command.args(["--", "qemu-system-x86_64"]);
    command.args(definition(lab, machine));
    command
}

fn add_drives(command: &mut Command, disk: &Path, options: &str, dir: &Path) {
    let mut drive = |file: &Path, options: &str| {
        command.arg("-drive");
        command.arg(format!("file={},if=virtio,{options}", file.display()));
    };
    drive(disk, &format!("format=qcow2{options}"));
    drive(&dir.join(PAYLOAD), "format=raw,readonly=on");
}
