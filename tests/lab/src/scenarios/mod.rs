// SPDX-License-Identifier: GPL-2.0

//! The registry.

mod access;
mod alive;
mod attach;
mod bad_keys;
mod budget;
mod changes;
mod chosen;
mod config_file;
mod cost;
mod crash;
mod cycles;
mod deep_ring;
mod driver_domain;
mod events;
mod filesystem;
mod flushes;
mod frontend;
pub mod guests;
mod held_pages;
mod hostile;
mod installed;
mod integrity;
mod kernels;
pub mod late;
mod live_change;
mod memory;
mod migrations;
mod module;
mod moves;
mod neighbour;
mod no_timer;
mod ordinary;
mod parameters;
mod peers;
mod persistent;
mod priced;
mod pv_grub;
mod rate;
mod rates;
mod reconnect;
mod refused;
mod resize;
mod resources;
mod same_keys;
mod sectors;
mod shutdown;
mod slow_neighbour;
mod states;
mod take;
mod takeover;
mod telling;
mod throttled_end;
mod update;
mod upgraded;
mod vm_cap;
mod xentop;

use crate::scenario::Kind;
use crate::scenario::Scenario;

/// Not in a run of everything: what they prove changes seldom, and others come close to it.
const AT_LENGTH: &[&str] = &[
    "takeover-queues",
    "update-fails",
    "ordinary",
    "upgraded",
    "kernels",
    "memory",
    "migrate",
    // Of a PV guest by steps.
    "migrations",
    // At once, by xl.
    "migrate-refused",
    "peers",
    "rates-one-disk",
    "rates-eight-disks",
    "rates-eight-disks-queues",
    "rates-eight-disks-fast",
    "rates-eight-disks-queues-fast",
];

/// Whether a run of a scenario is left out of `make test`.
pub fn is_at_length(run: &str) -> bool {
    [
        AT_LENGTH,
        alive::AT_LENGTH,
        resources::AT_LENGTH,
        late::AT_LENGTH,
        guests::AT_LENGTH,
    ]
    .iter()
    .any(|list| list.contains(&run))
}

/// All there are.
pub fn all() -> impl Iterator<Item = &'static Scenario> {
    ALL.iter().chain(alive::ALL).chain(resources::ALL)
}

/// Only by name: they need more than `make test` builds.
pub const BY_NAME: &[&str] = &["gate-cost"];

/// Only where dom0's kernel is a PREEMPT_RT one.
pub const REALTIME: &[&str] = &["spinlocks"];

/// The longest ones.
pub const LONG: &[&str] = &[
    "hostile-guest",
    "rate",
    "config-file",
    "kills",
    "rates-one-disk",
    "rates-eight-disks",
    "rates-eight-disks-queues",
    "rates-eight-disks-fast",
    "rates-eight-disks-queues-fast",
    "cycles",
    "reconnect",
    "random-changes",
    "ordinary",
    "installed",
    "upgraded",
    "kernels",
];

/// Their host is gone afterwards.
pub const LAST: &[&str] = &["shutdown", "xenstored-killed"];

const ALL: &[Scenario] = &[
    Scenario {
        name: "attach",
        rows: &["P1", "P3", "P4", "P5", "P17", "P20"],
        about: "a disk is attached: handshake, keys, sysfs, statistics",
        kind: Kind::Plain,
        any_backend: false,
        script: attach::attach,
    },
    Scenario {
        name: "integrity",
        rows: &["P7", "P9"],
        about: "what a guest writes is what it and dom0 read back, on a block device and on a file",
        kind: Kind::Plain,
        any_backend: true,
        script: integrity::integrity,
    },
    Scenario {
        name: "bad-keys",
        rows: &["P22", "D09", "H33", "H34", "H48"],
        about: "junk in every key that is read is refused by name and hurts nothing else",
        kind: Kind::Plain,
        any_backend: false,
        script: bad_keys::bad_keys,
    },
    Scenario {
        name: "refused-disks",
        rows: &[],
        about: "a disk that cannot be taken says why and leaves nothing",
        kind: Kind::Plain,
        any_backend: false,
        script: refused::refused_disks,
    },
    Scenario {
        name: "budget",
        rows: &["H39"],
        about: "disks share the frames of their guest, and one that comes late is served with fewer",
        kind: Kind::Plain,
        any_backend: false,
        script: budget::budget,
    },
    Scenario {
        name: "limit-values",
        rows: &["D21"],
        about: "every value a limit can have, and the state each shows",
        kind: Kind::Timed,
        any_backend: false,
        script: states::limit_values,
    },
    Scenario {
        name: "neighbour",
        rows: &["H56"],
        about: "a guest's disk is unharmed while its neighbour is throttled and killed",
        kind: Kind::Plain,
        any_backend: false,
        script: neighbour::neighbour,
    },
    Scenario {
        name: "no-timer",
        rows: &[],
        about: "a disk without a limit arms no timer",
        kind: Kind::Timed,
        any_backend: false,
        script: no_timer::no_timer,
    },
    Scenario {
        name: "rebind",
        rows: &["P6", "D13"],
        about: "the backend is unbound and bound under a guest that verifies its writes",
        kind: Kind::Plain,
        any_backend: true,
        script: module::rebind,
    },
    Scenario {
        name: "frontend-model",
        rows: &["P5", "P7", "P8", "P9", "P10", "P11", "P12", "H08", "H10"],
        about: "seeded random requests over a shadow of the disk, for each way to connect",
        kind: Kind::Plain,
        any_backend: true,
        script: frontend::model,
    },
    Scenario {
        name: "hostile-guest",
        rows: &[
            "H01", "H02", "H03", "H04", "H05", "H06", "H07", "H08", "H09", "H10", "H11", "H12",
            "H13", "H14", "H15", "H16", "H17", "H18", "H20", "H21", "H22", "H23", "H24", "H25",
            "H26", "H27", "H28", "H29", "H30", "H31", "H32", "H33", "H34", "H35", "H36",
        ],
        about: "requests, rings and keys that make no sense are refused and hurt nobody else",
        kind: Kind::Cycles,
        any_backend: true,
        script: hostile::hostile,
    },
    Scenario {
        name: "unload",
        rows: &["P15", "D13"],
        about: "the module is refused unloading while in use, and comes and goes otherwise",
        kind: Kind::Plain,
        any_backend: true,
        script: module::unload,
    },
    Scenario {
        name: "version",
        rows: &[],
        about: "modinfo and sysfs tell the module's version",
        kind: Kind::Plain,
        any_backend: false,
        script: module::version,
    },
    Scenario {
        name: "modprobe",
        rows: &["U2"],
        about: "whoever asks for xen-blkback gets rblkback, and xen-blkback where there is no rblkback",
        kind: Kind::Plain,
        any_backend: false,
        script: module::modprobe,
    },
    Scenario {
        name: "rate",
        rows: &["H54"],
        about: "a backlogged guest gets its rate, no less and in no window more",
        kind: Kind::Timed,
        any_backend: false,
        script: rate::rate,
    },
    Scenario {
        name: "live-change",
        rows: &["D21"],
        about: "limits change under load within 10 ms and without a gift",
        kind: Kind::Timed,
        any_backend: false,
        script: live_change::live_change,
    },
    Scenario {
        name: "throttled-end",
        rows: &["P15", "H55"],
        about: "detaching and destroying at 1 token/s with a full ring takes the usual time",
        kind: Kind::Timed,
        any_backend: false,
        script: throttled_end::throttled_end,
    },
    Scenario {
        name: "flushes",
        rows: &["H28", "U33"],
        about: "flushes cost tokens like any other request",
        kind: Kind::Timed,
        any_backend: false,
        script: flushes::flushes,
    },
    Scenario {
        name: "cycles",
        rows: &["P15"],
        about: "attaching and detaching a disk again and again leaves nothing behind",
        kind: Kind::Cycles,
        any_backend: true,
        script: cycles::attach_detach,
    },
    Scenario {
        name: "kills",
        rows: &["P15", "H56"],
        about: "guests killed in mid-I/O leave nothing behind",
        kind: Kind::Cycles,
        any_backend: true,
        script: cycles::kills,
    },
    Scenario {
        name: "filesystem",
        rows: &["P7", "P8", "P9", "P10"],
        about: "a file system: mkfs, stress-ng with verify, fstrim, and e2fsck finds nothing",
        kind: Kind::Plain,
        any_backend: true,
        script: filesystem::filesystem,
    },
    Scenario {
        name: "xentop",
        rows: &["P17"],
        about: "xentop shows what a guest did on its disks",
        kind: Kind::Plain,
        any_backend: true,
        script: xentop::xentop,
    },
    Scenario {
        name: "pv-grub",
        rows: &["P5", "P7", "U33", "U36"],
        about: "GRUB's own frontend reads a file right and hands the disk back",
        kind: Kind::Plain,
        any_backend: true,
        script: pv_grub::pv_grub,
    },
    Scenario {
        name: "sector-4096",
        rows: &["P4", "P7", "H25"],
        about: "a disk with sectors of 4096 bytes: keys, size, and the same bytes as in dom0",
        kind: Kind::Plain,
        any_backend: true,
        script: sectors::sector_4096,
    },
    Scenario {
        name: "resize",
        rows: &["P14", "D16", "D17"],
        about: "the device grows and shrinks, and an idle guest sees it",
        kind: Kind::Plain,
        any_backend: true,
        script: resize::resize,
    },
    Scenario {
        name: "read-only",
        rows: &["P3", "P7", "H30", "H57"],
        about: "a read-only disk and a CD-ROM are read and not written",
        kind: Kind::Plain,
        any_backend: true,
        script: access::read_only,
    },
    Scenario {
        name: "save-restore",
        rows: &["P16", "D19"],
        about: "a guest is saved and restored in mid-I/O",
        kind: Kind::Plain,
        any_backend: true,
        script: moves::save_restore,
    },
    Scenario {
        name: "migrate",
        rows: &["P16", "D20"],
        about: "a guest becomes another domain, as migration does it, in mid-I/O",
        kind: Kind::Plain,
        any_backend: true,
        script: moves::migrate,
    },
    Scenario {
        name: "migrations",
        rows: &["P16", "D20"],
        about: "a guest is migrated many times, and its pause measured beside xen-blkback's",
        kind: Kind::Plain,
        any_backend: false,
        script: migrations::migrations,
    },
    Scenario {
        name: "migrate-refused",
        rows: &["D20"],
        about: "a migration fails at its receiver, and the guest goes on under its limit",
        kind: Kind::Plain,
        any_backend: false,
        script: migrations::migrate_refused,
    },
    Scenario {
        name: "driver-domain",
        rows: &["U16"],
        about: "a domain that is not dom0 serves a guest's disk, and is replaced",
        kind: Kind::Plain,
        any_backend: false,
        script: driver_domain::driver_domain,
    },
    Scenario {
        name: "slow-neighbour",
        rows: &["P10", "P15", "D05", "H31"],
        about: "a backing device stands still under a guest that ends; its neighbours do not notice",
        kind: Kind::Plain,
        any_backend: false,
        script: slow_neighbour::slow_neighbour,
    },
    Scenario {
        name: "held-pages",
        rows: &["P12", "P15", "D06"],
        about: "a device keeps pages after its answer: they are not unmapped, and nothing else waits",
        kind: Kind::Plain,
        any_backend: false,
        script: held_pages::held_pages,
    },
    Scenario {
        name: "crash",
        rows: &["P15"],
        about: "a guest's kernel crashes in mid-I/O",
        kind: Kind::Plain,
        any_backend: true,
        script: crash::crash,
    },
    Scenario {
        name: "reconnect",
        rows: &["P1", "P15", "H45"],
        about: "a frontend comes and goes with requests in flight, and nothing is left behind",
        kind: Kind::Cycles,
        any_backend: true,
        script: reconnect::reconnect,
    },
    Scenario {
        name: "same-keys",
        rows: &["P2", "P3", "P4", "P17"],
        about: "the same session on xen-blkback leaves the same keys and files",
        kind: Kind::Plain,
        any_backend: false,
        script: same_keys::same_keys,
    },
    Scenario {
        name: "persistent",
        rows: &["P12", "P18", "P19", "B9"],
        about: "grants stay mapped up to a bound, and are given back in time and under pressure",
        kind: Kind::Plain,
        any_backend: false,
        script: persistent::persistent,
    },
    Scenario {
        name: "events",
        rows: &["P13"],
        about: "events for nothing are held back, others are not",
        kind: Kind::Plain,
        any_backend: true,
        script: events::events,
    },
    Scenario {
        name: "parameters",
        rows: &["P2", "P18", "P21"],
        about: "module parameters refuse what makes no sense and do what they say",
        kind: Kind::Plain,
        any_backend: false,
        script: parameters::parameters,
    },
    Scenario {
        name: "memory",
        rows: &["H09", "P18"],
        about: "what a connected queue costs dom0, idle and full, beside xen-blkback",
        kind: Kind::Plain,
        any_backend: false,
        script: memory::memory,
    },
    Scenario {
        name: "deep-ring",
        rows: &[],
        about: "a ring of 16 pages costs dom0 no more for a request than one of a page",
        kind: Kind::Timed,
        any_backend: false,
        script: deep_ring::deep_ring,
    },
    Scenario {
        name: "takeover",
        rows: &["P6", "D13", "B1"],
        about: "busy disks move between xen-blkback and rblkback",
        kind: Kind::Plain,
        any_backend: false,
        script: takeover::takeover,
    },
    Scenario {
        name: "chosen",
        rows: &[],
        about: "both drivers are loaded, and each serves the guests that it is to serve",
        kind: Kind::Plain,
        any_backend: false,
        script: chosen::chosen,
    },
    Scenario {
        name: "take",
        rows: &["P6"],
        about: "one command moves a guest's disks between both drivers, or leaves them where they were",
        kind: Kind::Plain,
        any_backend: false,
        script: take::take,
    },
    Scenario {
        name: "update",
        rows: &[],
        about: "the module is exchanged under busy guests, and their limits hold",
        kind: Kind::Timed,
        any_backend: false,
        script: update::update_module,
    },
    Scenario {
        name: "update-fails",
        rows: &[],
        about: "an exchange is refused or undone, and guests go on",
        kind: Kind::Plain,
        any_backend: false,
        script: update::update_fails,
    },
    Scenario {
        name: "takeover-queues",
        rows: &["P6", "D13", "B1"],
        about: "the same with four rings each",
        kind: Kind::Plain,
        any_backend: false,
        script: takeover::takeover_queues,
    },
    Scenario {
        name: "rates",
        rows: &["H54"],
        about: "rate, bound and shares for more disks, queues and buckets",
        kind: Kind::Timed,
        any_backend: false,
        script: rates::rates,
    },
    Scenario {
        name: "rates-one-disk",
        rows: &["H54"],
        about: "the same for one disk at every rate, with every bucket, 1 and 4 queues",
        kind: Kind::Timed,
        any_backend: false,
        script: rates::one_disk,
    },
    Scenario {
        name: "rates-eight-disks",
        rows: &["H54"],
        about: "the same for eight disks side by side, with one queue each",
        kind: Kind::Timed,
        any_backend: false,
        script: rates::eight_disks,
    },
    Scenario {
        name: "rates-eight-disks-queues",
        rows: &["H54"],
        about: "the same with four queues each",
        kind: Kind::Timed,
        any_backend: false,
        script: rates::eight_disks_queues,
    },
    Scenario {
        name: "rates-eight-disks-fast",
        rows: &["H54"],
        about: "eight disks with one queue each, as fast as the guest can",
        kind: Kind::Timed,
        any_backend: false,
        script: rates::eight_disks_fast,
    },
    Scenario {
        name: "rates-eight-disks-queues-fast",
        rows: &["H54"],
        about: "the same with four queues each",
        kind: Kind::Timed,
        any_backend: false,
        script: rates::eight_disks_queues_fast,
    },
    Scenario {
        name: "latency",
        rows: &[],
        about: "one request at a time waits for its token and no longer",
        kind: Kind::Timed,
        any_backend: false,
        script: rates::latency,
    },
    Scenario {
        name: "priced",
        rows: &["H28"],
        about: "limits that count a request's size hold large reads to it",
        kind: Kind::Timed,
        any_backend: false,
        script: priced::priced,
    },
    Scenario {
        name: "random-changes",
        rows: &["D21"],
        about: "the limit changes at random under load, and keeps its word",
        kind: Kind::Timed,
        any_backend: false,
        script: changes::random_changes,
    },
    Scenario {
        name: "vm-cap",
        rows: &[],
        about: "all disks of a guest share a cap",
        kind: Kind::Timed,
        any_backend: false,
        script: vm_cap::vm_cap,
    },
    Scenario {
        name: "config-file",
        rows: &["D19", "D20"],
        about: "a disk line of a VM's configuration carries the limit",
        kind: Kind::Plain,
        any_backend: false,
        script: config_file::config_file,
    },
    Scenario {
        name: "guest-sees",
        rows: &[],
        about: "a guest reads its own limit",
        kind: Kind::Plain,
        any_backend: false,
        script: telling::guest_sees,
    },
    Scenario {
        name: "tracepoints",
        rows: &[],
        about: "trace-cmd records what the gate does",
        kind: Kind::Plain,
        any_backend: false,
        script: telling::tracepoints,
    },
    Scenario {
        name: "peers",
        rows: &[],
        about: "our limit beside the kernel's own",
        kind: Kind::Timed,
        any_backend: false,
        script: peers::peers,
    },
    Scenario {
        name: "gate-cost",
        rows: &[],
        about: "what the gate costs dom0; by tests/cost/gate",
        kind: Kind::Plain,
        any_backend: false,
        script: cost::gate_cost,
    },
    Scenario {
        name: "ordinary",
        rows: &["U2"],
        about: "in an ordinary Debian the module, installed by hand, serves guests from the next boot on",
        kind: Kind::Debian,
        any_backend: false,
        script: ordinary::ordinary,
    },
    Scenario {
        name: "installed",
        rows: &[],
        about: "in an ordinary Debian the packages are installed, lose the module, and are purged",
        kind: Kind::Debian,
        any_backend: false,
        script: installed::installed,
    },
    Scenario {
        name: "upgraded",
        rows: &[],
        about: "in an ordinary Debian a running guest is taken over, and apt brings the next version under it",
        kind: Kind::Debian,
        any_backend: false,
        script: upgraded::upgraded,
    },
    Scenario {
        name: "kernels",
        rows: &["U10"],
        about: "in an ordinary Debian DKMS builds for a second kernel, and a third one has xen-blkback",
        kind: Kind::Kernels,
        any_backend: false,
        script: kernels::kernels,
    },
    Scenario {
        name: "shutdown",
        rows: &["P15"],
        about: "dom0 is powered off under guests that use their disks",
        kind: Kind::Plain,
        any_backend: true,
        script: shutdown::shutdown,
    },
    Scenario {
        name: "parallel-integrity",
        rows: &["P7", "P9"],
        about: "as integrity, on two processors",
        kind: Kind::Parallel,
        any_backend: true,
        script: integrity::parallel_integrity,
    },
    Scenario {
        name: "parallel-rebind",
        rows: &["P6", "D13"],
        about: "as rebind, on two processors",
        kind: Kind::Parallel,
        any_backend: true,
        script: module::rebind,
    },
    Scenario {
        name: "parallel-races",
        rows: &["H03", "H05", "H06"],
        about: "a guest rewrites its requests while the backend reads them",
        kind: Kind::Parallel,
        any_backend: true,
        script: hostile::races,
    },
];
