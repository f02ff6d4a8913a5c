// SPDX-License-Identifier: GPL-2.0

//! A booted Xen host as its administrator sees it: shells in dom0, a loaded backend, xenstore.

use std::cell::Cell;
use std::cell::RefCell;
use std::fs;
use std::fs::File;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;

use crate::device::Device;
use crate::guest::Guest;
use crate::guest::GuestSpec;
use crate::guest_type::GuestType;
use crate::lab::Backend;
use crate::lab::Lab;
use crate::qemu::Qemu;
use crate::scenario::Machine;
use crate::shell::Diary;
use crate::shell::Running;
use crate::shell::Shell;
use crate::snapshot::Snapshot;

const BOOT_DEADLINE: Duration = Duration::from_secs(300);
/// The same for a Debian with all that it starts; also for how long one may take to go down.
const DEBIAN_DEADLINE: Duration = Duration::from_secs(900);
pub const FUNCTIONS: &str = include_str!("dom0.sh");

/// A host with the backend loaded. Used from the thread that booted it, killed when dropped.
pub struct Host<'l> {
    pub lab: &'l Lab,
    machine: Machine,
    pub dir: PathBuf,
    pub qemu: Qemu,
    diary: Diary,
    dom0: Shell,
    /// Only for collecting logs: usable when the other one hangs.
    pub post_mortem: Shell,
    /// Console ports that no guest uses.
    ports: RefCell<Vec<(usize, UnixStream)>>,
    names: Cell<u32>,
    /// Guests that nobody has taken yet.
    spares: RefCell<Vec<String>>,
    off: Cell<bool>,
    device: Cell<Device>,
}

impl<'l> Host<'l> {
    /// Gets a host that is up, and loads the backend under test.
    pub fn boot(lab: &'l Lab, machine: Machine) -> Result<Self> {
        let snapshot = Snapshot::of(lab, machine)?;
        let dir = lab.host_dir(&machine.name())?;
        let qemu = Qemu::resume(lab, machine, &snapshot, &dir)?;
        let host = Host::new(lab, machine, qemu, dir, snapshot.spares)?;
        host.equip().map_err(|e| e.context(host.boot_failure()))?;
        Ok(host)
    }

    /// Boots a host that writes to `disk`, with nothing of ours in it.
    pub fn power_on(lab: &'l Lab, machine: Machine, disk: &Path) -> Result<Self> {
        let dir = lab.host_dir(&machine.name())?;
        let qemu = Qemu::power_on(lab, machine, disk, &dir)?;
        let host = Host::new(lab, machine, qemu, dir, Vec::new())?;
        host.wait_up().map_err(|e| e.context(host.boot_failure()))?;
        Ok(host)
    }

    /// Waits for the shells, and then for all that starts by itself.
    fn wait_up(&self) -> Result<()> {
        let deadline = if self.machine.kind.boots_its_disk() {
            DEBIAN_DEADLINE
        } else {
            BOOT_DEADLINE
        };
        for shell in [&self.dom0, &self.post_mortem] {
            shell.wait_boot("dom0", deadline)?;
        }
        if self.machine.kind.boots_its_disk() {
            // Whether all went well is for the scenario to ask.
            self.dom0
                .ok_within("systemctl is-system-running --wait || true", deadline)?;
        }
        Ok(())
    }

    /// Reboots a host that boots its disk; ends when all has started that starts by itself.
    pub fn reboot(&self) -> Result<()> {
        self.dom0.leave("systemctl reboot")?;
        self.wait_up().map_err(|e| e.context(self.boot_failure()))?;
        self.load_functions()
    }

    fn load_functions(&self) -> Result<()> {
        for shell in [&self.dom0, &self.post_mortem] {
            shell.ok(FUNCTIONS)?;
        }
        Ok(())
    }

    fn new(
        lab: &'l Lab,
        machine: Machine,
        mut qemu: Qemu,
        dir: PathBuf,
        spares: Vec<String>,
    ) -> Result<Self> {
        let diary = Diary {
            file: File::create(dir.join("commands.log"))?,
            emulator: qemu.pid(),
        };
        let mut streams = qemu.shells.drain(..);
        let mut shell = |name| {
            let stream = streams.next().context("too few shells")?;
            let shell = Shell::new(name, stream).with_diary(copy(&diary)?);
            anyhow::Ok(shell.with_patience(lab.patience()))
        };
        let (dom0, post_mortem) = (shell("dom0")?, shell("dom0 (logs)")?);
        drop(streams);
        let ports = RefCell::new(qemu.guests.drain(..).enumerate().rev().collect());
        Ok(Host {
            lab,
            machine,
            dir,
            qemu,
            diary,
            dom0,
            post_mortem,
            ports,
            names: Cell::new(0),
            spares: RefCell::new(spares),
            off: Cell::new(false),
            device: Cell::new(Device::AtOnce),
        })
    }

    /// Brings what belongs to the checkout. What the disk had at its beginning when the host was
    /// saved may still be in the page cache, hence direct.
    fn equip(&self) -> Result<()> {
        self.load_functions()?;
        self.ok(
            "mkdir -p /lab && dd if=/dev/vdb iflag=direct bs=1M status=none | tar -xf - -C /lab",
        )?;
        if self.machine.kind.boots_its_disk() {
            return Ok(());
        }
        self.ok("cp /lab/block-tokens /etc/xen/scripts/")?;
        self.ok(self.lab.backend.load_command()).map(drop)
    }

    fn boot_failure(&self) -> String {
        let serial = self.qemu.serial();
        let tail = crate::logs::last_lines(&serial, 40);
        format!(
            "the Xen host did not start (logs in {})\n{}{tail}",
            self.dir.display(),
            self.qemu.complaint()
        )
    }

    /// What backs the disks of the scenario that it is used for.
    pub fn device(&self) -> Device {
        self.device.get()
    }

    /// What its guests are unless one is told otherwise.
    pub fn guests(&self) -> GuestType {
        self.machine.guests
    }

    /// From now on disks are on such devices.
    pub fn use_device(&self, device: Device) {
        self.device.set(device);
    }

    /// Runs a command in dom0 that must succeed.
    pub fn ok(&self, command: &str) -> Result<String> {
        self.dom0.ok(command)
    }

    /// As [`Host::ok`], with a deadline that fits a longer command.
    pub fn ok_within(&self, command: &str, seconds: u64) -> Result<String> {
        self.dom0.ok_within(command, Duration::from_secs(seconds))
    }

    /// Runs a command in dom0; gives its status and output.
    pub fn run(&self, command: &str) -> Result<crate::shell::Output> {
        self.dom0.run(command)
    }

    /// As [`Host::run`], with a deadline that fits a longer command.
    pub fn run_within(&self, command: &str, seconds: u64) -> Result<crate::shell::Output> {
        self.dom0
            .start(command)?
            .finish_within(Duration::from_secs(seconds))
    }

    /// Starts a command in dom0.
    pub fn start_command(&self, command: &str) -> Result<Running<'_>> {
        self.dom0.start(command)
    }

    /// Runs a command in dom0 that must fail; gives what it printed.
    pub fn refused(&self, command: &str) -> Result<String> {
        let output = self.run(command)?;
        if output.status == 0 {
            bail!(
                "expected `{command}` to be refused, it succeeded:\n{}",
                output.text
            );
        }
        Ok(output.text)
    }

    /// Runs a command in dom0 and gives the milliseconds it took on dom0's clock. It must succeed.
    pub fn timed(&self, command: &str) -> Result<u64> {
        let text = self.ok_within(&format!("lab_timed {command}"), 300)?;
        let (printed, last) = text.rsplit_once('\n').unwrap_or(("", &text));
        match last.split_once(' ') {
            Some((ms, "0")) => Ok(ms.parse()?),
            _ => bail!("`{command}` failed (milliseconds, status: {last}):\n{printed}"),
        }
    }

    /// Bytes of dom0's memory in use.
    pub fn memory(&self) -> Result<u64> {
        Ok(self.ok_within("lab_memory", 300)?.parse()?)
    }

    /// Nanoseconds that dom0 has run, with what Xen did for it.
    pub fn run_time(&self) -> Result<u64> {
        self.run_times([])?
            .first()
            .copied()
            .context("no run time of dom0")
    }

    /// The same of dom0, then of guests.
    pub fn run_times<'g>(
        &self,
        guests: impl IntoIterator<Item = &'g Guest<'g, 'g>>,
    ) -> Result<Vec<u64>> {
        let domids: Vec<String> = guests
            .into_iter()
            .map(|guest| guest.domid().to_string())
            .collect();
        let text = self.ok(&format!("/lab/frontend run-time {}", domids.join(" ")))?;
        text.lines()
            .map(str::parse)
            .collect::<Result<_, _>>()
            .with_context(|| format!("no run times: {text:?}"))
    }

    /// The value of a xenstore node, if there is one.
    pub fn store_read(&self, node: &str) -> Result<Option<String>> {
        let output = self.run(&format!("xenstore-read {node}"))?;
        let value = output.text.trim_end_matches('\n').to_string();
        Ok((output.status == 0).then_some(value))
    }

    /// Writes nodes in one transaction.
    pub fn store_write(&self, nodes: &[(String, &str)]) -> Result<()> {
        let pairs: Vec<String> = nodes
            .iter()
            .map(|(node, value)| format!("{node} {}", quote(value)))
            .collect();
        self.ok(&format!("xenstore-write -- {}", pairs.join(" ")))
            .map(drop)
    }

    /// Blocks until a node matches (an absent node reads `absent`); gives its value.
    pub fn store_wait(&self, node: &str, pattern: &str) -> Result<String> {
        let output = self.run(&format!("lab_wait {node} {} 60", quote(pattern)))?;
        let value = output.text.trim_end_matches('\n').to_string();
        if output.status != 0 {
            bail!("{node}: expected {pattern:?} within 60 s of the host's clock, saw {value:?}");
        }
        Ok(value)
    }

    /// Describes a guest to be started.
    pub fn guest(&self, name: &str) -> GuestSpec<'_, 'l> {
        self.names.set(self.names.get() + 1);
        GuestSpec::new(self, format!("{name}{}", self.names.get()))
    }

    /// Describes a guest with a name of its own.
    pub(crate) fn guest_named(&self, name: &str) -> GuestSpec<'_, 'l> {
        GuestSpec::new(self, name.into())
    }

    /// The name of an idle guest, if there is one.
    pub(crate) fn take_spare(&self) -> Option<String> {
        self.spares.borrow_mut().pop()
    }

    /// Where shells of this host keep their diary.
    pub(crate) fn diary(&self) -> Result<Diary> {
        copy(&self.diary)
    }

    pub(crate) fn take_port(&self) -> Result<(usize, UnixStream)> {
        self.ports
            .borrow_mut()
            .pop()
            .context("no console port is free: too many guests at once")
    }

    pub(crate) fn return_port(&self, number: usize, stream: UnixStream) {
        self.ports.borrow_mut().push((number, stream));
    }

    /// Whether the module of `backend` is in the kernel.
    pub fn loaded(&self, backend: Backend) -> Result<bool> {
        Ok(self
            .run(&format!("grep -q '^{} ' /proc/modules", backend.module()))?
            .status
            == 0)
    }

    /// Loads a backend, in the place of the one that is there. Nobody may use that one.
    pub fn load(&self, backend: Backend) -> Result<()> {
        self.ok(&format!(
            "lab_load {} {}",
            backend.module(),
            quote(backend.load_command())
        ))
        .map(drop)
    }

    /// Waits until nothing holds the module any more: a disk's last work item may end after what
    /// it did was seen.
    pub fn wait_unreferenced(&self) -> Result<()> {
        let file = format!("/sys/module/{}/refcnt", self.lab.backend.module());
        let output = self.run(&format!("lab_file {file} '^0$' 30"))?;
        if output.status != 0 {
            bail!(
                "module references: expected 0, saw {}",
                output.text.trim_end()
            );
        }
        Ok(())
    }

    /// After a scenario: no guest, no disk, no trace instance may be left behind.
    pub fn check_clean(&self) -> Result<()> {
        if self.is_off() {
            return Ok(());
        }
        let output = self.run("lab_clean 60")?;
        if output.status != 0 {
            bail!("left behind in dom0:\n{}", output.text);
        }
        Ok(())
    }

    /// Runs a command that powers the host off, and waits until it is. Gives what its console said.
    pub fn power_off(&self, command: &str, deadline: Duration) -> Result<String> {
        self.dom0.last(command, deadline)?;
        self.off.set(true);
        Ok(self.qemu.serial())
    }

    /// Leaves it as it is: what was done to it cannot be undone, and it ends with whoever has it.
    pub fn abandon(&self) {
        self.off.set(true);
    }

    /// Whether it was powered off, or abandoned: then there is nobody to ask any more.
    pub fn is_off(&self) -> bool {
        self.off.get()
    }

    /// An interactive shell in dom0 on this terminal.
    pub fn interact(&self) -> Result<()> {
        crate::terminal::interact(self.dom0.stream())
    }

    /// Saves the host's logs, as far as it still answers, into `dir`.
    pub fn save_logs(&self, dir: &Path) -> Result<()> {
        fs::create_dir_all(dir)?;
        fs::write(dir.join("serial.log"), self.qemu.serial())?;
        fs::copy(self.dir.join("commands.log"), dir.join("commands.log"))?;
        let ask = |command: &str| {
            self.post_mortem
                .ok_within(command, Duration::from_secs(60))
                .unwrap_or_else(|e| format!("{e:#}"))
        };
        fs::write(dir.join("dmesg.log"), ask("dmesg"))?;
        fs::write(dir.join("xenstore.log"), ask("xenstore-ls -f"))?;
        fs::write(
            dir.join("tasks.log"),
            ask("ps -eLo pid,stat,wchan:32,comm; xl list; tail -n 50 /var/log/xen/*.log"),
        )?;
        let consoles = self.post_mortem.ok("ls /var/log/xen/console");
        for name in consoles.unwrap_or_default().lines() {
            fs::write(
                dir.join(name),
                ask(&format!("cat /var/log/xen/console/{name}")),
            )?;
        }
        Ok(())
    }
}

fn copy(diary: &Diary) -> Result<Diary> {
    Ok(Diary {
        file: diary.file.try_clone()?,
        emulator: diary.emulator,
    })
}

/// Makes one word of a text for bash.
pub fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}
