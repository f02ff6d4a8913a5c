// SPDX-License-Identifier: GPL-2.0

//! A block frontend in user space: it speaks the ring protocol itself, in each layout, and also
//! says what a polite frontend never would. It runs in a guest whose kernel leaves the disk alone
//! (`module_blacklist=xen_blkfront`) and has the modules xen-gntalloc and xen-evtchn.
//!
//! It prints one JSON object a line and ends with status 0 when nothing failed.

#![deny(unsafe_code)]

mod arena;
mod bench;
mod cases;
mod churn;
mod crowd;
mod disk;
mod events;
mod flood;
mod grants;
mod hold;
mod layout;
mod link;
mod model;
mod ordered;
mod plan;
mod pool;
mod queue;
mod reconnect;
mod request;
mod resources;
mod store;
#[expect(unsafe_code)]
mod sys;
mod watch;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use anyhow::Result;
use clap::Parser;
use clap::Subcommand;
use serde_json::json;

use crate::arena::Arena;
use crate::bench::Bench;
use crate::disk::Disk;
use crate::disk::Setup;
use crate::events::Events;
use crate::grants::Grants;
use crate::layout::Layout;
use crate::link::Link;
use crate::model::Run;
use crate::pool::Pool;

/// Pages for data: what a full ring of direct requests needs, and some.
const POOL_PAGES: usize = 600;

#[derive(Parser)]
#[command(about, version)]
struct Arguments {
    /// Number of the virtual disk; 51712 is xvda.
    #[arg(long, global = true, default_value_t = 51712)]
    vdev: u32,
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Random requests over a shadow of the disk, once for each way to connect.
    Run {
        #[arg(long)]
        seed: u64,
        /// Requests per connection.
        #[arg(long)]
        requests: u64,
        #[command(flatten)]
        only: Only,
    },
    /// Cases of the catalogue, in each way to connect that makes a difference to them.
    Cases {
        #[command(flatten)]
        wanted: cases::Wanted,
        /// How often those do so that repeat themselves.
        #[arg(long, default_value_t = 20_000)]
        loops: u64,
        /// Grants of frames that are not this guest's, as `granter` (a kernel module) makes them.
        #[arg(long, value_delimiter = ',')]
        foreign: Vec<u32>,
        #[command(flatten)]
        only: Only,
    },
    /// Connects and holds that until the end of the input.
    Hold {
        #[arg(long, default_value_t = 1)]
        queues: u32,
        #[arg(long, default_value_t = 0)]
        order: u32,
        /// With rings full of the largest reads.
        #[arg(long)]
        full: bool,
        /// Sends so many events for nothing.
        #[arg(long, default_value_t = 0)]
        events: u32,
    },
    /// Keeps the rings of a disk full of reads of a page, or of something else, with persistent grants, and
    /// counts them.
    Flood {
        #[arg(long, value_enum, default_value_t)]
        kind: flood::Kind,
        /// Seconds that are not counted.
        #[arg(long)]
        warm_up: u64,
        /// Seconds that are.
        #[arg(long)]
        seconds: u64,
        #[arg(long, default_value_t = 0)]
        order: u32,
        #[arg(long, default_value_t = 1)]
        queues: u32,
    },
    /// Connects and closes with requests in flight, over and over.
    Reconnect {
        #[arg(long)]
        times: usize,
        #[command(flatten)]
        only: Only,
    },
    /// Changes the limit of a disk of this host's, at random, and checks each time that sysfs
    /// shows what has to be in force. Runs in dom0.
    Churn {
        /// The backend's directory in xenstore.
        #[arg(long)]
        keys: String,
        /// The disk's directory in sysfs.
        #[arg(long)]
        sysfs: std::path::PathBuf,
        #[arg(long)]
        count: u64,
        #[arg(long)]
        seed: u64,
    },
    /// Connects, and sends a write and a write barrier behind it.
    Ordered,
    /// Connects many disks and has each of their queues answer a read.
    Crowd(crowd::Crowd),
    /// Prints for how many nanoseconds dom0's first processor has run, then all those of other
    /// domains. Runs in dom0.
    RunTime { others: Vec<u16> },
    /// Prints when the domain shuts down, runs again and is gone, in nanoseconds of CLOCK_MONOTONIC. Ends
    /// when it is gone. Runs in dom0.
    Watch { domid: u16 },
    /// Has Xen suspend the domain, which is not asked. Runs in dom0.
    Suspend { domid: u16 },
    /// Lets it run again. Runs in dom0.
    Resume { domid: u16 },
    /// Prints a node of xenstore.
    Read { node: String },
    /// Lists the cases.
    List,
    #[command(flatten)]
    Resources(resources::Task),
}

/// Narrows down the ways to connect.
#[derive(clap::Args, Clone, Default)]
struct Only {
    #[arg(long)]
    layout: Option<String>,
    #[arg(long)]
    queues: Option<u32>,
    #[arg(long)]
    order: Option<u32>,
    #[arg(long)]
    persistent: Option<bool>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match act(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("{}", json!({"ok": false, "seen": format!("{error:#}")}));
            ExitCode::FAILURE
        }
    }
}

fn act(arguments: &Arguments) -> Result<bool> {
    if let Task::List = arguments.command {
        for case in cases::all() {
            println!("{} {}", case.row, case.name);
        }
        return Ok(true);
    }
    match &arguments.command {
        Task::Churn {
            keys,
            sysfs,
            count,
            seed,
        } => return churn::churn(keys, sysfs, *count, *seed).map(|()| true),
        Task::RunTime { others } => {
            println!("{}", sys::run_time()?);
            for domid in others {
                println!("{}", sys::run_time_of(*domid)?);
            }
            return Ok(true);
        }
        Task::Watch { domid } => return watch::watch(*domid).map(|()| true),
        Task::Suspend { domid } => return sys::suspend(*domid).map(|()| true),
        Task::Resume { domid } => return sys::resume(*domid).map(|()| true),
        Task::Crowd(wanted) => return crowd::crowd(wanted).map(|()| true),
        Task::Resources(task) => return task.act(arguments.vdev).map(|()| true),
        Task::Read { node } => {
            let value = store::Store::open()?.read(node)?;
            println!("{}", value.as_deref().unwrap_or_default());
            return Ok(value.is_some());
        }
        _ => {}
    }
    let disk = Disk::open(arguments.vdev)?;
    match &arguments.command {
        Task::List
        | Task::Churn { .. }
        | Task::Crowd(_)
        | Task::RunTime { .. }
        | Task::Watch { .. }
        | Task::Suspend { .. }
        | Task::Resume { .. }
        | Task::Resources(_)
        | Task::Read { .. } => Ok(true),
        Task::Cases {
            wanted,
            loops,
            foreign,
            only,
        } => {
            disk.reset()?;
            let only = Only {
                // Persistent grants stay mapped, which would hide what these cases look for.
                persistent: only.persistent.or(Some(false)),
                ..only.clone()
            };
            let setups = setups(&disk, &only)?;
            let first = *setups.first().context("no way to connect is left")?;
            let mut bench = Bench::new(disk, first, POOL_PAGES, *loops)?;
            bench.foreign = foreign.clone();
            cases::run(&mut bench, &setups, wanted)
        }
        Task::Run {
            seed,
            requests,
            only,
        } => run(&disk, *seed, *requests, only),
        Task::Ordered => ordered::ordered(&disk).map(|()| true),
        Task::Reconnect { times, only } => {
            disk.reset()?;
            reconnect::reconnect(&disk, &setups(&disk, only)?, *times).map(|()| true)
        }
        Task::Flood {
            kind,
            warm_up,
            seconds,
            order,
            queues,
        } => {
            let setup = Setup {
                persistent: true,
                order: *order,
                queues: *queues,
                ..Setup::plain(&layout::ALL[0])
            };
            let [warm_up, counted] = [*warm_up, *seconds].map(Duration::from_secs);
            flood::flood(&disk, &setup, *kind, warm_up, counted).map(|()| true)
        }
        Task::Hold {
            queues,
            order,
            full,
            events,
        } => {
            let setup = Setup {
                queues: *queues,
                order: *order,
                ..Setup::plain(&layout::ALL[0])
            };
            hold::hold(&disk, &setup, *full, *events).map(|()| true)
        }
    }
}

/// The ways to connect that the backend offers and the user wants.
fn setups(disk: &Disk, only: &Only) -> Result<Vec<Setup>> {
    let offer = disk.offer()?;
    let mut setups = Vec::new();
    for layout in &layout::ALL {
        for queues in one_and(1, 4.min(offer.queues)) {
            for order in one_and(0, 4.min(offer.order)) {
                for persistent in [false, true] {
                    setups.push(Setup {
                        queues,
                        order,
                        persistent,
                        ..Setup::plain(layout)
                    });
                }
            }
        }
    }
    let layout = only.layout.as_deref().and_then(Layout::by_name);
    setups.retain(|s| {
        layout.is_none_or(|l| l == s.layout)
            && only.queues.is_none_or(|q| q == s.queues)
            && only.order.is_none_or(|o| o == s.order)
            && only.persistent.is_none_or(|p| p == s.persistent)
    });
    Ok(setups)
}

/// The least and the most, which may be the same.
fn one_and(least: u32, most: u32) -> Vec<u32> {
    let mut both = vec![least, most];
    both.dedup();
    both
}

fn run(disk: &Disk, seed: u64, requests: u64, only: &Only) -> Result<bool> {
    let (grants, events) = (Grants::open()?, Events::open()?);
    let pool = Pool {
        pages: grants.pages(POOL_PAGES)?,
    };
    disk.reset()?;
    let segments = disk.offer()?.segments;
    let mut arena = None;
    let mut good = true;
    for (number, setup) in (0..).zip(setups(disk, only)?) {
        let setup = Setup {
            numbered: number % 2 == 1,
            // All but the first wrap within the run.
            start: 0u32.wrapping_sub(16 * number as u32),
            ..setup
        };
        let mut once = || -> Result<_> {
            let mut link = Link::connect(disk, &grants, &events, &setup)?;
            let arena = match &mut arena {
                Some(arena) => arena,
                None => arena.insert(Arena::new(&mut link, &pool)?),
            };
            Run::new(&mut link, arena, &pool, segments, seed + number).run(requests)
        };
        let result = once();
        let mut line = describe(&setup);
        line["seed"] = json!(seed + number);
        line["persistent"] = json!(setup.persistent);
        line["ok"] = json!(result.is_ok());
        match result {
            Ok(tally) => line["done"] = serde_json::to_value(tally)?,
            Err(error) => {
                line["seen"] = json!(format!("{error:#}"));
                good = false;
            }
        }
        println!("{line}");
        disk.reopen()?;
    }
    Ok(good)
}

fn describe(setup: &Setup) -> serde_json::Value {
    json!({"layout": setup.layout.name, "queues": setup.queues, "order": setup.order})
}
