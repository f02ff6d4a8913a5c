// SPDX-License-Identifier: GPL-2.0

//! A scenario: what an administrator does on a host and what must then be seen.

use anyhow::Result;

use crate::guest_type::GuestType;
use crate::host::Host;
use crate::lab::Backend;
use crate::qemu::Clock;
use crate::results::Figures;

/// Which host a scenario runs on. Each has one of its own, so that none sees what another did.
///
/// All but the last count time in instructions: idle time is skipped, nothing depends on how busy
/// this machine is, and two such hosts beside each other fill two processors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// For what is judged by a clock: 1 ns an instruction.
    Timed,
    /// For everything else.
    Plain,
    /// For the same things many times: dom0 records who allocated what.
    Cycles,
    /// As the plain one, but Xen lets dom0 map only so many grants.
    Scarce,
    /// Two processors at the host's own speed, with nothing beside it: what only happens when two
    /// processors really run at once, happens here.
    Parallel,
    /// A Debian as its package manager leaves it, from its own disk (tests/debian): systemd, udev,
    /// GRUB and Xen's own units, nothing of ours loaded. It can reboot.
    Debian,
    /// The same with packages and more kernels, see tests/debian/install-kernels.
    Kernels,
}

impl Kind {
    pub fn clock(self) -> Clock {
        match self {
            // A guest gets well past 5000 requests a second.
            Kind::Timed => Clock::Instructions { shift: 0 },
            Kind::Plain | Kind::Cycles | Kind::Scarce | Kind::Debian | Kind::Kernels => {
                Clock::Instructions { shift: 1 }
            }
            Kind::Parallel => Clock::Wall,
        }
    }

    /// What dom0's kernel is told besides.
    pub fn dom0_options(self) -> &'static str {
        match self {
            Kind::Cycles => "rodata=off slab_debug=U,kmalloc-*",
            // Protecting the kernel's own text and checking all page tables takes seconds; the
            // parallel host does that.
            Kind::Timed | Kind::Plain | Kind::Scarce => "rodata=off",
            Kind::Parallel => "",
            // In its own configuration of GRUB.
            Kind::Debian | Kind::Kernels => "",
        }
    }

    /// What Xen is told besides.
    pub fn xen_options(self) -> &'static str {
        match self {
            // A frame holds 256 mapped grants.
            Kind::Scarce => " gnttab_max_maptrack_frames=8",
            _ => "",
        }
    }

    /// Whether the machine boots what is on its disk, and can do so again.
    pub fn boots_its_disk(self) -> bool {
        matches!(self, Kind::Debian | Kind::Kernels)
    }

    pub fn name(self) -> &'static str {
        match self {
            Kind::Timed => "timed",
            Kind::Plain => "plain",
            Kind::Cycles => "cycles",
            Kind::Scarce => "scarce",
            Kind::Parallel => "parallel",
            Kind::Debian => "debian",
            Kind::Kernels => "kernels",
        }
    }
}

/// A machine: a kind of host, and what its guests are unless one is told otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    pub kind: Kind,
    pub guests: GuestType,
}

impl Machine {
    /// With guests that any processor can run.
    pub const fn of(kind: Kind) -> Self {
        Machine {
            kind,
            guests: GuestType::Pv,
        }
    }

    pub fn name(self) -> String {
        match self.guests {
            GuestType::Pv => self.kind.name().into(),
            guests => format!("{}-{}", self.kind.name(), guests.name()),
        }
    }

    /// Idle guests that it begins with.
    pub fn spares(self) -> u32 {
        let most = match self.guests {
            GuestType::Pv => 3,
            // They take more memory, and time to make.
            GuestType::Pvh | GuestType::Hvm => 2,
        };
        match self.kind {
            Kind::Timed | Kind::Plain => most,
            Kind::Cycles => 1,
            Kind::Scarce | Kind::Parallel => 2,
            Kind::Debian | Kind::Kernels => 0,
        }
    }
}

/// What a scenario does.
pub type Script = fn(&Host<'_>, &mut Figures) -> Result<()>;

/// One entry of the registry.
pub struct Scenario {
    pub name: &'static str,
    /// Rows of the requirements that it proves.
    pub rows: &'static [&'static str],
    pub about: &'static str,
    pub kind: Kind,
    /// Whether it also makes sense with the C driver.
    pub any_backend: bool,
    pub script: Script,
}

impl Scenario {
    pub fn fits(&self, backend: Backend) -> bool {
        self.any_backend || backend == Backend::Rblkback
    }
}
