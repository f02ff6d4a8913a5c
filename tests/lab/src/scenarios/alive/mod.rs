// SPDX-License-Identifier: GPL-2.0

//! What happens to the disks of running guests on real hosts: parameters change between two
//! drivers, devices are late, taken away, changed and mended, what Xen gives runs out, dom0
//! freezes, and administrators write what they are used to.

mod alloc_faults;
mod block_tokens;
mod calls;
mod cgroup;
mod comes_back;
mod corrupt;
pub(super) mod crowd;
mod detached;
mod devices;
mod error_text;
mod faults;
mod few_handles;
mod freezer;
mod held;
mod live_update;
mod local;
mod log_lines;
mod modes;
mod names;
mod network;
pub(super) mod probe;
mod realtime;
mod rebound;
mod slow_connect;
mod suspended;
mod thin;
mod xenstored;

use crate::scenario::Kind;
use crate::scenario::Scenario;
use crate::scenario::Script;

/// Not in a run of everything.
pub const AT_LENGTH: &[&str] = &[
    "destroy-remove",
    "crowd",
    "crowd-frames",
    "rebound-moved",
    "rebound-moved-one",
    "suspended-queues",
];

pub const ALL: &[Scenario] = &[
    plain(
        "rebound-queues",
        &["B2"],
        "a busy disk is bound again where fewer queues are offered than it has",
        rebound::fewer_queues,
    ),
    plain(
        "rebound-pages",
        &["B2"],
        "a busy disk is bound again where smaller rings are offered than it has",
        rebound::smaller_rings,
    ),
    plain(
        "rebound-frames",
        &["B2", "B19"],
        "a busy disk is bound again where its guest may use fewer frames",
        rebound::fewer_frames,
    ),
    plain(
        "rebound-persistent",
        &["B3", "B4"],
        "a busy disk is bound again after persistent grants were switched on or off",
        rebound::persistence_changed,
    ),
    plain(
        "rebound-device",
        &["B2"],
        "a busy disk is bound again before its device is there",
        rebound::device_comes_late,
    ),
    plain(
        "rebound-moved",
        &["B1", "B2", "B3", "B4", "B19"],
        "a busy disk moves between both drivers while parameters change and its device is away",
        rebound::moved,
    ),
    plain(
        "rebound-moved-one",
        &["B1", "B2", "B3", "B4", "B19"],
        "the same with one queue",
        rebound::moved_one_queue,
    ),
    either(
        "detach-remove",
        &["B10", "U11"],
        "a device is free as soon as its disk is detached",
        detached::detach_remove,
    ),
    either(
        "destroy-remove",
        &["B10", "U11"],
        "a device is free as soon as its guest is destroyed",
        detached::destroy_remove,
    ),
    either(
        "power-off",
        &["B10"],
        "a device is free as soon as its guest has powered off",
        detached::power_off,
    ),
    plain(
        "initialised-early",
        &["B10", "U12"],
        "a frontend closes and is ready again while its requests are at a device that stands still",
        comes_back::initialised_early,
    ),
    plain(
        "device-away",
        &["B10", "B8", "U12"],
        "a frontend that begins anew over and over has a device that is away tried a bounded number of times",
        comes_back::away,
    ),
    either(
        "freezer",
        &["B17", "U13", "D18"],
        "guests' I/O pauses while dom0's tasks are frozen",
        freezer::freezer,
    ),
    either(
        "modes",
        &["U21"],
        "modes as Xen's script knows them, and disks without the key online",
        modes::modes,
    ),
    plain(
        "mode-changed",
        &["U32"],
        "a mode that is written while the disk is in use is refused with a text",
        modes::changed,
    ),
    either(
        "local-disk",
        &["U6", "U21"],
        "dom0 itself is given a disk",
        local::local_disk,
    ),
    plain(
        "local-limit",
        &["U6"],
        "a limit holds for a disk that dom0 itself uses",
        local::limited,
    ),
    either(
        "closed-by-guest",
        &["U21"],
        "a disk without the key online goes when its guest closes it, one with it stays",
        modes::closed_by_guest,
    ),
    plain(
        "log-lines",
        &["U12"],
        "the log has a line for each disk that connects and for each that cannot",
        log_lines::one_each,
    ),
    plain(
        "log-bounded",
        &["H45"],
        "a guest that connects without end does not fill the log",
        log_lines::bounded,
    ),
    plain(
        "persistent-toggled",
        &["B4"],
        "persistent grants are switched on or off while a disk connects slowly",
        slow_connect::persistence_toggled,
    ),
    plain(
        "attach-unload",
        &["B16"],
        "the module is taken out, or tried to be, while disks are attached",
        slow_connect::unloaded,
    ),
    either(
        "crowd",
        &["U5", "B19"],
        "64 disks of 8 queues of one guest connect and do I/O",
        crowd::crowd,
    ),
    plain(
        "crowd-frames",
        &["U5", "B19"],
        "disks of one guest that need just the frames it may use, and more: all connect and do I/O",
        crowd::frames,
    ),
    Scenario {
        name: "few-handles",
        rows: &["B5", "U3", "D12"],
        about: "dom0 can map fewer grants than two guests have: no request fails for that",
        kind: Kind::Scarce,
        any_backend: true,
        script: few_handles::few_handles,
    },
    plain(
        "no-limit",
        &["U4"],
        "block-tokens refuses a target without a limit",
        block_tokens::no_limit,
    ),
    plain(
        "shared-file",
        &["U28"],
        "block-tokens gives a file to one guest for writing, as Xen's own script does",
        block_tokens::shared_file,
    ),
    plain(
        "odd-names",
        &["U22"],
        "block-tokens finds targets with blanks and backslashes in their names, and links",
        block_tokens::odd_names,
    ),
    plain(
        "next-script",
        &["U8"],
        "block-tokens sets a limit in front of another block script",
        block_tokens::next_script,
    ),
    either(
        "mended",
        &["U12"],
        "a device that could not be opened is mended and its key written again",
        devices::mended,
    ),
    plain(
        "device-deleted",
        &["U14", "D03"],
        "a device is deleted under a guest: errors, a text, and another one can be attached",
        devices::deleted,
    ),
    either(
        "file-cut",
        &["D03"],
        "the file of a loop device is cut under load: errors past its end, none before it",
        devices::file_cut,
    ),
    either(
        "zoned",
        &["U26"],
        "a zoned device is refused with a text",
        devices::zoned,
    ),
    plain(
        "cgroup",
        &["U20", "U23"],
        "a ring's thread keeps its cgroup and priority, and discards are counted there",
        cgroup::cgroup,
    ),
    Scenario {
        kind: Kind::Timed,
        ..plain(
            "suspended",
            &["B18"],
            "nothing is sent to the device for a guest that is suspended to be saved or migrated",
            suspended::suspended,
        )
    },
    Scenario {
        kind: Kind::Timed,
        ..plain(
            "suspended-queues",
            &["B18"],
            "the same with four full rings",
            suspended::suspended_queues,
        )
    },
    Scenario {
        kind: Kind::Timed,
        ..plain(
            "held",
            &["B18"],
            "what was consumed and not sent when a guest was suspended waits for it",
            suspended::held,
        )
    },
    Scenario {
        kind: Kind::Timed,
        ..plain(
            "held-barrier",
            &["B18"],
            "a write barrier waits for a write when its guest is suspended: it is sent when the guest runs again",
            held::barrier,
        )
    },
    Scenario {
        kind: Kind::Scarce,
        ..plain(
            "held-map",
            &["B5", "B18"],
            "requests wait for a map when their guest is suspended: likewise",
            held::map,
        )
    },
    Scenario {
        kind: Kind::Timed,
        ..plain(
            "given-up",
            &["B18"],
            "a suspended guest with requests that wait is destroyed: at once, and nothing is sent",
            suspended::given_up,
        )
    },
    either(
        "error-range",
        &["D01"],
        "one block of a device has errors, and is mended under load",
        faults::error_range,
    ),
    either(
        "lost-commands",
        &["D04"],
        "a device cannot read some sectors, and does not answer some commands for long",
        faults::lost_commands,
    ),
    either(
        "delayed",
        &["D04"],
        "a device answers after five seconds: each request once, and no other disk waits",
        faults::delayed,
    ),
    either(
        "thin-full",
        &["D07"],
        "a thin pool runs full: writes wait, or fail, as it is set up",
        faults::thin_full,
    ),
    either(
        "set-read-only",
        &["D08"],
        "a device is made read-only under load, and writable again",
        faults::set_read_only,
    ),
    plain(
        "squeezed",
        &["D11"],
        "I/O goes on when dom0 has next to no memory",
        faults::squeezed,
    ),
    Scenario {
        kind: Kind::Parallel,
        ..plain(
            "offline",
            &["D18"],
            "one of dom0's processors is taken offline under load",
            faults::offline,
        )
    },
    plain(
        "stands-still",
        &["U24"],
        "a disk is detached whose device holds its I/O: somebody says so, and a second detach leaves nothing",
        devices::stands_still,
    ),
    plain(
        "block-size",
        &["U15"],
        "the logical block size of a device changes between two connections",
        devices::block_size,
    ),
    either(
        "dm-cache",
        &["U27"],
        "a discard on a dm-cache device changes nothing beside it",
        devices::cached,
    ),
    plain(
        "no-xenstored",
        &["U1"],
        "the module is loaded while xenstored does not answer",
        xenstored::silent,
    ),
    plain(
        "cannot-open",
        &["U30"],
        "block-tokens refuses a device that cannot be opened, or is read-only",
        block_tokens::cannot_open,
    ),
    plain(
        "transactions",
        &["B7"],
        "64 disks connect at once, with one transaction under way at a time",
        calls::transactions,
    ),
    plain(
        "grace-periods",
        &["B11"],
        "a disk of eight queues waits for no more grace periods than one of one queue",
        calls::grace_periods,
    ),
    plain(
        "spinlocks",
        &[],
        "nothing that sleeps on PREEMPT_RT is done with preemption disabled",
        realtime::spinlocks,
    ),
    plain(
        "large-blocks",
        &["B16"],
        "a device with logical blocks that guests cannot address is refused with a text",
        devices::large_blocks,
    ),
    plain(
        "alloc-faults",
        &["B8", "D10"],
        "allocations fail when a disk is bound, and under I/O",
        alloc_faults::alloc_faults,
    ),
    plain(
        "thread-names",
        &["U25"],
        "threads of different rings have names that differ where traces cut them",
        names::threads,
    ),
    plain(
        "error-texts",
        &["U31"],
        "a new disk does not inherit what was wrong with the one before",
        error_text::stale,
    ),
    either(
        "thin-discard",
        &["U39"],
        "a guest's discard frees as much of a thin disk as one of dom0's",
        thin::discard,
    ),
    either(
        "corrupt",
        &["D02"],
        "a device changes bytes, and a guest's verify finds it, as it would if the backend did",
        corrupt::corrupt,
    ),
    plain(
        "live-update",
        &["D14"],
        "xenstored is exchanged under I/O: nobody notices, limits change and disks come as before",
        live_update::live_update,
    ),
    either(
        "remote",
        &["D03", "D06"],
        "a disk over NVMe/TCP whose wire stands still with a guest's pages in it, and is torn",
        network::remote,
    ),
    plain(
        "xenstored-killed",
        &["D15"],
        "xenstored is killed: I/O and a limit go on, nobody spins, no disk can be attached",
        xenstored::killed,
    ),
];

const fn plain(
    name: &'static str,
    rows: &'static [&'static str],
    about: &'static str,
    script: Script,
) -> Scenario {
    Scenario {
        name,
        rows,
        about,
        kind: Kind::Plain,
        any_backend: false,
        script,
    }
}

/// What xen-blkback can be asked for as well.
const fn either(
    name: &'static str,
    rows: &'static [&'static str],
    about: &'static str,
    script: Script,
) -> Scenario {
    Scenario {
        any_backend: true,
        ..plain(name, rows, about, script)
    }
}
