// SPDX-License-Identifier: GPL-2.0

//! A scenario: what an administrator does on a host and what must then be seen.

use anyhow::Result;

use crate::host::Host;
use crate::lab::Backend;
use crate::qemu::Clock;
use crate::results::Figures;

/// Which host a scenario runs on. Scenarios of one kind share one host, in order.
///
/// All but the last count time in instructions: idle time is skipped, nothing depends on how busy
/// this machine is, and two such hosts beside each other fill two processors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// For the rates.
    Rates,
    /// For everything else that is judged by a clock.
    Timed,
    /// What an administrator does with a disk.
    Plain,
    /// What guests do with a disk, and what becomes of it in its life.
    Clients,
    /// The same things many times.
    Cycles,
    /// Two processors at the host's own speed, with nothing beside it: what only happens when two
    /// processors really run at once, happens here.
    Parallel,
}

impl Kind {
    /// Those that may run beside each other, the longest first.
    pub const COUNTED: [Kind; 5] = [
        Kind::Rates,
        Kind::Cycles,
        Kind::Clients,
        Kind::Plain,
        Kind::Timed,
    ];

    pub fn clock(self) -> Clock {
        match self {
            // 1 ns an instruction: a guest gets well past 5000 requests a second.
            Kind::Rates | Kind::Timed => Clock::Instructions { shift: 0 },
            Kind::Plain | Kind::Clients | Kind::Cycles => Clock::Instructions { shift: 1 },
            Kind::Parallel => Clock::Wall,
        }
    }

    /// What dom0's kernel is told besides.
    pub fn dom0_options(self) -> &'static str {
        match self {
            // Who allocated what is recorded, for whoever looks for leaks.
            Kind::Cycles => "rodata=off slab_debug=U,kmalloc-*",
            // Protecting the kernel's own text and checking all page tables takes seconds; the
            // parallel host does that.
            Kind::Rates | Kind::Timed | Kind::Plain | Kind::Clients => "rodata=off",
            Kind::Parallel => "",
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Kind::Rates => "rates",
            Kind::Timed => "timed",
            Kind::Plain => "plain",
            Kind::Clients => "clients",
            Kind::Cycles => "cycles",
            Kind::Parallel => "parallel",
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
