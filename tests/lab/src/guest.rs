// SPDX-License-Identifier: GPL-2.0

//! Guests: created with `xl`, spoken to through their consoles.

use std::cell::Cell;
use std::cell::RefCell;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::Context;
use anyhow::Result;

use crate::check;
use crate::disk::Disk;
use crate::guest_type::GuestType;
use crate::host::Host;
use crate::shell::Running;
use crate::shell::Shell;
use crate::vbd::Vbd;

const BOOT_DEADLINE: Duration = Duration::from_secs(300);
/// Seconds of host time after which a save, restore or migration is taken for hung.
const MOVE_DEADLINE: u64 = 420;

/// What all guests have in common.
pub fn definition(guests: GuestType) -> String {
    format!(
        "type = \"{}\"\non_crash = \"preserve\"\n{}{EXTRA}",
        guests.name(),
        guests.settings()
    )
}

/// What all kernels are told.
const EXTRA: &str =
    "extra = \"console=hvc0 quiet cryptomgr.notests mitigations=off rodata=off init_on_alloc=0";

/// A guest to be started.
pub struct GuestSpec<'h, 'l> {
    host: &'h Host<'l>,
    name: String,
    memory: u32,
    disks: Vec<String>,
    /// An archive behind its initrd.
    archive: Option<String>,
    own_frontend: bool,
    processors: u32,
    /// Further words on its kernel's command line.
    options: String,
    /// Further lines of its configuration.
    settings: String,
    booted: bool,
}

impl<'h, 'l> GuestSpec<'h, 'l> {
    pub(crate) fn new(host: &'h Host<'l>, name: String) -> Self {
        GuestSpec {
            host,
            name,
            memory: host.guests().memory(),
            disks: Vec::new(),
            archive: None,
            own_frontend: false,
            processors: 1,
            options: String::new(),
            settings: String::new(),
            booted: false,
        }
    }

    /// Gives it a disk, such as `xvda`.
    pub fn disk(mut self, disk: &Disk, vdev: &str) -> Self {
        self.disks.push(disk.xl(vdev));
        self
    }

    /// Gives it a disk by a line of its configuration.
    pub fn disk_line(mut self, line: &str) -> Self {
        self.disks.push(line.into());
        self
    }

    /// Gives it a disk that it may only read.
    pub fn read_only_disk(mut self, disk: &Disk, vdev: &str) -> Self {
        self.disks.push(disk.xl(vdev).replace(",rw", ",r"));
        self
    }

    /// Gives it so many megabytes of memory, or as many as it needs at least.
    pub fn memory(mut self, megabytes: u32) -> Self {
        self.memory = self.memory.max(megabytes);
        self
    }

    /// Adds an archive of the lab, such as `stress-ng`, to its root file system.
    pub fn archive(mut self, name: &str) -> Self {
        self.archive = Some(format!("/lab-guest/{name}.cpio"));
        self
    }

    /// Gives it more than one virtual processor.
    pub fn processors(mut self, count: u32) -> Self {
        self.processors = count;
        self
    }

    /// Tells its kernel something, such as a parameter of a module.
    pub fn kernel_option(mut self, option: &str) -> Self {
        self.options += &format!(" {option}");
        self
    }

    /// Its kernel leaves the disks alone; `/frontend` (tests/frontend) can have them.
    pub fn own_frontend(mut self) -> Self {
        self.archive = Some("/lab/frontend.cpio".into());
        self.own_frontend = true;
        self
    }

    /// It has what serves other guests' disks, and may.
    pub fn driver_domain(mut self) -> Self {
        self.archive = Some("/lab/driver-domain.cpio".into());
        self.settings += "driver_domain = 1\n";
        self.memory(384).booted()
    }

    /// It stays, as xl's word for that is, when it has powered off. It boots by itself.
    pub fn preserved(mut self) -> Self {
        self.settings += "on_poweroff = \"preserve\"\n";
        self.booted()
    }

    /// Has it boot with its disks. Otherwise it may be one that is up already and is given them
    /// with `xl block-attach`.
    pub fn booted(mut self) -> Self {
        self.booted = true;
        self
    }

    /// Starts it and waits until its shell answers.
    pub fn start(self) -> Result<Guest<'h, 'l>> {
        let spare = if self.is_usual() {
            self.host.take_spare()
        } else {
            None
        };
        let steps = self.steps(spare.as_deref());
        self.meet(&steps, spare.is_some())
    }

    /// Has Xen's own service start it whenever the host boots; [`GuestSpec::join`] then finds it.
    pub fn install(&self) -> Result<()> {
        let (configure, name) = (self.configure(), &self.name);
        self.host
            .ok(&format!(
                "{configure} && mkdir -p /etc/xen/auto && mv /run/{name}.cfg /etc/xen/auto/"
            ))
            .map(drop)
    }

    /// The guest, which the host has started or, if its shell is `idle`, restored by itself.
    pub fn join(self, idle: bool) -> Result<Guest<'h, 'l>> {
        self.meet("true", idle)
    }

    /// Runs the steps that make it, joins its console and waits until its shell answers, which may
    /// be `idle` already.
    fn meet(self, steps: &str, idle: bool) -> Result<Guest<'h, 'l>> {
        let (port, stream) = self.host.take_port()?;
        let text = self
            .host
            .ok_within(&format!("{steps} && {}", join(&self.name, port)), 300)
            .with_context(|| format!("starting {}", self.name))?;
        let (bridge, domid) = identity(&text)?;
        let shell = Shell::new(&format!("guest {}", self.name), stream.try_clone()?)
            .with_diary(self.host.diary()?)
            .with_patience(self.host.lab.patience());
        if idle {
            shell.wait_idle(BOOT_DEADLINE)?;
        } else {
            shell.wait_boot(&self.name, BOOT_DEADLINE)?;
        }
        if self.own_frontend {
            shell.ok("modprobe xen-gntalloc limit=16384 && modprobe xen-evtchn")?;
        }
        Ok(Guest {
            host: self.host,
            name: self.name,
            domid: Cell::new(domid),
            shell,
            port,
            stream,
            bridge: RefCell::new(bridge),
        })
    }

    /// Whether any guest with its disks will do.
    fn is_usual(&self) -> bool {
        !self.booted
            && self.memory == self.host.guests().memory()
            && self.processors == 1
            && self.options.is_empty()
            && self.archive.is_none()
            && !self.own_frontend
    }

    /// What makes it, of an idle guest if there is one.
    fn steps(&self, spare: Option<&str>) -> String {
        let name = &self.name;
        let Some(spare) = spare else {
            return self.create();
        };
        let mut steps = vec![self.configure(), format!("xl rename {spare} {name}")];
        for disk in &self.disks {
            steps.push(format!("xl block-attach {name} '{disk}'"));
        }
        steps.join(" && ")
    }

    /// The command that creates it, for who expects that to fail.
    pub fn create(&self) -> String {
        format!(
            "{} && xl create -q /run/{}.cfg",
            self.configure(),
            self.name
        )
    }

    /// Writes its configuration.
    fn configure(&self) -> String {
        let name = &self.name;
        let disks: Vec<String> = self.disks.iter().map(|d| format!("\"{d}\"")).collect();
        // Archives that follow each other are one. Once per host is enough.
        let archive = self.archive.as_deref().unwrap_or_default();
        let initrd = match archive.rsplit_once('/') {
            Some((_, file)) => format!("/run/initrd-with-{file}"),
            None => "/lab-guest/initrd".into(),
        };
        let extra = if self.own_frontend {
            " module_blacklist=xen_blkfront"
        } else {
            ""
        };
        format!(
            "[ -e {initrd} ] || cat /lab-guest/initrd {archive} >{initrd}\n\
             cat >/run/{name}.cfg <<'CFG'\n\
             name = \"{name}\"\nmemory = {}\nvcpus = {}\nramdisk = \"{initrd}\"\n\
             {}{extra}{}\"\n\
             {}disk = [{}]\n\
             CFG\n\
             [ -s /run/{name}.cfg ]",
            self.memory,
            self.processors,
            definition(self.host.guests()),
            self.options,
            self.settings,
            disks.join(", "),
        )
    }
}

/// Joins a guest's console to a port and prints what [`identity`] reads.
fn join(name: &str, port: usize) -> String {
    format!(
        "{{ lab-console {name} {port} </dev/null >/run/{name}.bridge 2>&1 & echo $!; }} && xl domid {name}"
    )
}

/// The process that joins console and port, and the guest's number.
fn identity(text: &str) -> Result<(String, u32)> {
    let mut last = text.lines().rev();
    let domid = last
        .next()
        .and_then(|l| l.parse().ok())
        .with_context(|| format!("no domid in:\n{text}"))?;
    Ok((last.next().unwrap_or_default().to_string(), domid))
}

/// A running guest. Ends with [`Guest::destroy`]; one that is only dropped is left to its host.
pub struct Guest<'h, 'l> {
    pub host: &'h Host<'l>,
    pub name: String,
    /// Changes when the guest is saved or migrated.
    domid: Cell<u32>,
    shell: Shell,
    port: usize,
    stream: UnixStream,
    /// The process in dom0 that joins console and port.
    bridge: RefCell<String>,
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

    /// Runs a command in the guest that must fail; gives what it printed.
    pub fn refused(&self, command: &str) -> Result<String> {
        let output = self.shell.run(command)?;
        check::that(output.status != 0, || {
            format!(
                "expected `{command}` to fail in {}, it succeeded:\n{}",
                self.name, output.text
            )
        })?;
        Ok(output.text)
    }

    /// Starts a command in the guest.
    pub fn start(&self, command: &str) -> Result<Running<'_>> {
        self.shell.start(command)
    }

    /// Its number on the host.
    pub fn domid(&self) -> u32 {
        self.domid.get()
    }

    /// `xl save`, then `xl restore`. What runs in the guest goes on.
    pub fn save_and_restore(&self) -> Result<()> {
        let (name, file) = (&self.name, format!("/run/{}.saved", self.name));
        self.become_another(&format!(
            "xl save {name} {file} && xl restore {file} && rm {file}"
        ))
    }

    /// `xl save`, until [`Guest::restore`]; it is in no domain meanwhile.
    pub fn save(&self) -> Result<()> {
        let name = &self.name;
        let command = format!("xl save {name} /run/{name}.saved");
        self.host.ok_within(&command, MOVE_DEADLINE).map(drop)
    }

    /// `xl restore`. What ran in the guest goes on.
    pub fn restore(&self) -> Result<()> {
        let file = format!("/run/{}.saved", self.name);
        self.become_another(&format!("xl restore {file} && rm {file}"))
    }

    /// `xl save -c`: it is suspended, and goes on as the same domain.
    pub fn checkpoint(&self) -> Result<()> {
        let (name, file) = (&self.name, format!("/run/{}.saved", self.name));
        let command = format!("xl save -c {name} {file} && rm {file}");
        self.host.ok_within(&command, MOVE_DEADLINE).map(drop)
    }

    /// As [`Guest::save_and_restore`], but the new domain gets the number of the old one, which xl
    /// otherwise keeps from being used again for a minute.
    pub fn restore_by_number(&self) -> Result<()> {
        let (name, file) = (&self.name, format!("/run/{}.saved", self.name));
        let before = self.domid();
        self.follow(&format!(
            "xl save -D {name} {file} && rm -f /run/xen/domid-history && xl restore {file} && rm {file}"
        ))?;
        check::equal("the number of the new domain", self.domid(), before)
    }

    /// Makes it another domain on the same host by migration. What runs in the guest goes on.
    pub fn migrate(&self) -> Result<()> {
        match self.host.guests() {
            GuestType::Pv => self.migrate_step_by_step(),
            GuestType::Pvh | GuestType::Hvm => self.migrate_live(),
        }
    }

    /// `xl migrate` to the same host, without the network: the receiver is a process beside it.
    fn migrate_live(&self) -> Result<()> {
        // It says how far it is all the time, on lines that never end.
        self.become_another(&format!(
            "{} >/run/{1}.migrate 2>&1 || {{ cat /run/{1}.migrate; false; }}",
            self.migration("", "xl migrate-receive"),
            self.name
        ))
    }

    fn migration(&self, options: &str, receiver: &str) -> String {
        format!("xl migrate {options} -s '' {} '{receiver}'", self.name)
    }

    /// `xl migrate` to a receiver that will not have it: it must fail, and leave the guest as it was.
    pub fn migration_refused(&self, options: &str, receiver: &str) -> Result<()> {
        let command = format!(
            "{{ {} && echo 'it was migrated'; }} 2>&1; xl domid {} && xl list | grep -c -e --incoming",
            self.migration(options, receiver),
            self.name
        );
        let output = self.host.run_within(&command, MOVE_DEADLINE)?;
        let expected = format!("\n{}\n0", self.domid());
        check::that(output.text.trim_end().ends_with(&expected), || {
            format!("{} is not where it was:\n{}", self.name, output.text)
        })
    }

    /// Does step by step what `xl migrate` to the same host does: the new domain takes the disks
    /// before the old one, which is paused, is gone. `xl migrate` itself refuses: it copies memory
    /// while the guest runs, for which a PV guest needs shadow paging, and Debian's Xen is built
    /// without that.
    fn migrate_step_by_step(&self) -> Result<()> {
        let (name, domid) = (&self.name, self.domid());
        let (file, target) = (format!("/run/{name}.saved"), format!("{name}--incoming"));
        self.become_another(&format!(
            "vm=$(xenstore-read /local/domain/{domid}/vm) && xl save -p {name} {file} && \
             {{ sed '/^name/s/{name}/{target}/' /run/{name}.cfg; echo \"uuid='${{vm#/vm/}}'\"; }} >/run/{target}.cfg && \
             xl restore -p /run/{target}.cfg {file} && rm {file} /run/{target}.cfg && \
             xl destroy {name} && xl rename {target} {name} && xl unpause {name}"
        ))
    }

    /// `xl reboot`: it begins anew, with nothing of what ran in it.
    pub fn reboot(&self) -> Result<()> {
        let (name, domid) = (&self.name, self.domid());
        // xl's own watcher creates the new domain.
        self.become_another(&format!(
            "xl reboot -F {name} && lab_until 120 'id=$(xl domid {name} 2>/dev/null) && [ $id != {domid} ] && xl list {name} >/dev/null'"
        ))?;
        self.shell.wait_boot(&self.name, BOOT_DEADLINE)
    }

    /// The guest powers itself off, a little after its shell has said so. Ends with [`Guest::gone`].
    pub fn power_off(&self) -> Result<()> {
        self.ok("{ sleep 1; echo o >/proc/sysrq-trigger; } >/dev/null 2>&1 &")
            .map(drop)
    }

    /// Runs a command that makes the guest another domain with another number.
    fn become_another(&self, command: &str) -> Result<()> {
        let before = self.domid();
        self.follow(command)?;
        check::that(self.domid() != before, || {
            format!("{} is still domain {before} after `{command}`", self.name)
        })
    }

    /// Runs a command that makes the guest another domain, and follows it there.
    fn follow(&self, command: &str) -> Result<()> {
        let text = self.host.ok_within(
            &format!(
                "{{ {command}; }} && {{ wait {}; {}; }}",
                self.bridge.borrow(),
                join(&self.name, self.port)
            ),
            MOVE_DEADLINE,
        )?;
        let (bridge, domid) = identity(&text)?;
        self.domid.set(domid);
        self.bridge.replace(bridge);
        Ok(())
    }

    /// The backend's side of one of its disks.
    pub fn vbd(&self, vdev: &str) -> Vbd<'h, 'l> {
        Vbd::new(self.host, self.domid(), vdev)
    }

    /// `xl block-attach`, then waits until the guest sees the disk.
    pub fn attach(&self, disk: &Disk, vdev: &str) -> Result<Vbd<'h, 'l>> {
        self.offer(disk, vdev)?;
        self.wait_disk(vdev)?;
        Ok(self.vbd(vdev))
    }

    /// `xl block-attach`, which ends when the backend is ready for a frontend.
    pub fn offer(&self, disk: &Disk, vdev: &str) -> Result<()> {
        let line = disk.xl(vdev);
        self.host
            .ok(&format!("xl block-attach {} '{line}'", self.name))
            .map(drop)
    }

    /// Waits until the guest's kernel has made the disk's node.
    pub fn wait_disk(&self, vdev: &str) -> Result<()> {
        self.wait_disks(&[vdev.to_string()])
    }

    /// The same of a disk that another domain than dom0 may serve.
    pub fn wait_node(&self, vdev: &str) -> Result<()> {
        self.wait_nodes(&[vdev.to_string()])
    }

    fn wait_nodes(&self, vdevs: &[String]) -> Result<()> {
        // No event tells a shell of it. It follows the backend's state by a moment, so that mostly
        // need not be waited for; if the node never comes, it says why.
        self.ok(&format!(
            "n=0; for d in {}; do until [ -b /dev/$d ] || ((++n > 3000)); do sleep 0.02; done; done",
            vdevs.join(" ")
        ))
        .map(drop)
    }

    /// Waits until the guest's kernel has made several disks' nodes.
    pub fn wait_disks(&self, vdevs: &[String]) -> Result<()> {
        self.wait_nodes(vdevs)?;
        vdevs
            .iter()
            .try_for_each(|vdev| self.vbd(vdev).wait_state("4"))
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

    /// Leaves it, idle, to whoever takes the name.
    pub(crate) fn lay_by(self) -> Result<()> {
        let bridge = self.bridge.into_inner();
        // It ends with the signal's status.
        self.host
            .ok(&format!("kill {bridge} && wait {bridge}; true"))?;
        self.host.return_port(self.port, self.stream);
        Ok(())
    }

    /// To be called when its host was rebooted: frees its console.
    pub fn lost(self) {
        self.host.return_port(self.port, self.stream);
    }

    /// To be called when something else has destroyed the guest: frees its console.
    pub fn gone(self) -> Result<()> {
        // Ends by itself with the console; its status says nothing.
        let bridge = self.bridge.into_inner();
        self.host.ok(&format!("wait {bridge}; true"))?;
        self.host.return_port(self.port, self.stream);
        Ok(())
    }
}
