// SPDX-License-Identifier: GPL-2.0

//! Boots Xen hosts in QEMU and shows what rblkback does in them: tests, a demonstration, a shell.

#![forbid(unsafe_code)]

mod admission;
mod bench;
mod check;
mod checks;
mod debug;
mod demo;
mod device;
mod disk;
mod fio;
mod flood;
mod forged;
mod fuzz;
mod guest;
mod guest_type;
mod host;
mod lab;
mod logs;
mod packages;
mod payload;
mod picture;
mod profile;
mod qemu;
mod qmp;
mod results;
mod run;
mod sample;
mod scenario;
mod scenarios;
mod shell;
mod snapshot;
mod stack_frames;
mod terminal;
mod trace;
mod unsafe_code;
mod vbd;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use anyhow::Result;
use clap::Parser;
use clap::Subcommand;

use crate::host::Host;
use crate::lab::Backend;
use crate::lab::Dom0Kernel;
use crate::lab::Lab;
use crate::run::Part;
use crate::scenario::Kind;
use crate::scenario::Machine;

#[derive(Parser)]
#[command(about, version)]
struct Arguments {
    /// What `make lab` made.
    #[arg(long, env = "LAB_DIR", global = true)]
    lab: Option<PathBuf>,
    /// The module under test.
    #[arg(long, global = true, default_value = "build/module/rblkback.ko")]
    module: PathBuf,
    /// Boot dom0 with the kernel that tests/debug/kernel or tests/kernels/kernel made.
    #[arg(long, env = "RBLKBACK_KERNEL", global = true)]
    kernel: Option<PathBuf>,
    /// The ordinary dom0 that tests/debian/dom0 made.
    #[arg(long, env = "RBLKBACK_DEBIAN", global = true)]
    debian: Option<PathBuf>,
    /// The one with more kernels, of tests/debian/dom0 kernels.
    #[arg(long, env = "RBLKBACK_KERNELS", global = true)]
    kernels: Option<PathBuf>,
    /// Multiplies all deadlines, for a computer that is busy with other things.
    #[arg(long, env = "RBLKBACK_PATIENCE", global = true, default_value_t = 1)]
    patience: u32,
    /// Which driver serves the disks.
    #[arg(long, global = true, value_enum, default_value = "rblkback")]
    backend: Backend,
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Run checks and scenarios.
    Test {
        /// Only this one (may be repeated).
        #[arg(long)]
        only: Vec<String>,
        /// Everything, however long it takes; otherwise what is named is done at length, and
        /// everything in the least time that shows something.
        #[arg(long)]
        at_length: bool,
        /// How often the scenarios that repeat something do it, instead of their own number.
        #[arg(long)]
        cycles: Option<u64>,
        /// Only one of several parts of about the same size, such as 2/4.
        #[arg(long)]
        part: Option<Part>,
    },
    /// A guest's I/O under a limit that changes live; makes a table and a picture.
    Demo,
    /// What requests cost, beside xen-blkback.
    Bench {
        /// Only this one.
        #[arg(long)]
        job: Option<String>,
    },
    /// A shell in dom0 of a freshly booted host.
    Shell {
        /// Count instructions instead of time.
        #[arg(long)]
        counted: bool,
    },
    /// Feed the pure code with inputs that find ever more of its paths.
    Fuzz {
        /// Only this target (may be repeated).
        #[arg(long)]
        only: Vec<String>,
        /// How long each target runs.
        #[arg(long, default_value_t = 60)]
        seconds: u32,
        /// Runs only this input, which an earlier run left in build/fuzz.
        #[arg(long)]
        input: Option<PathBuf>,
    },
    /// Where the instructions of a request go in dom0 and Xen.
    Profile {
        /// Only this job (may be repeated).
        #[arg(long)]
        only: Vec<String>,
        /// How many instructions of the whole host are looked at for each job and backend.
        #[arg(long, default_value_t = 12_000_000)]
        instructions: u64,
    },
    /// List checks and scenarios.
    List,
    /// Print a disk's counters at a steady pace (runs in dom0).
    #[command(hide = true)]
    Sample {
        sysfs: PathBuf,
        period_ms: u64,
        count: u32,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match act(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn act(arguments: &Arguments) -> Result<bool> {
    let lab = || {
        let dir = arguments
            .lab
            .as_deref()
            .context("no lab: give --lab or run this with `make`")?;
        let kernel = arguments.kernel.as_deref().map(Dom0Kernel::new);
        let kernel = kernel.transpose()?;
        let mut lab = Lab::new(dir, &arguments.module, arguments.backend, kernel)?;
        lab.stretch = arguments.patience;
        lab.debian.clone_from(&arguments.debian);
        lab.kernels.clone_from(&arguments.kernels);
        anyhow::Ok(lab)
    };
    match &arguments.command {
        Task::Test {
            only,
            at_length,
            cycles,
            part,
        } => {
            let mut lab = lab()?;
            lab.at_length = *at_length || !only.is_empty() || lab.is_debug();
            lab.cycles = *cycles;
            run::test(&lab, only, part.unwrap_or(Part::WHOLE))
        }
        Task::Shell { counted } => {
            let lab = lab()?;
            let kind = if *counted {
                Kind::Timed
            } else {
                Kind::Parallel
            };
            Host::boot(&lab, Machine::of(kind))?
                .interact()
                .map(|()| true)
        }
        Task::Fuzz {
            only,
            seconds,
            input,
        } => fuzz::run(only, *seconds, input.as_deref()),
        Task::Bench { job } => bench::run(&lab()?, job.as_deref()),
        Task::Demo => demo::run(&lab()?),
        Task::Profile { only, instructions } => profile::run(&lab()?, only, *instructions),
        Task::Sample {
            sysfs,
            period_ms,
            count,
        } => sample::run(sysfs, Duration::from_millis(*period_ms), *count).map(|()| true),
        Task::List => {
            for check in checks::ALL {
                println!("{:<24} (no host) {}", check.name, check.rows.join(" "));
            }
            for s in scenarios::all() {
                println!(
                    "{:<24} {}: {} {}",
                    s.name,
                    s.kind.name(),
                    s.about,
                    s.rows.join(" ")
                );
            }
            Ok(true)
        }
    }
}
