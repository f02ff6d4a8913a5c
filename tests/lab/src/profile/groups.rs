// SPDX-License-Identifier: GPL-2.0

//! What an instruction was executed for: the groups of the table's upper half, and calls to count.

use super::paths::Paths;
use super::symbols::Function;
use super::symbols::Place;
use super::symbols::Symbols;

/// Functions that begin a group.
enum Begin {
    /// By name; a `*` at the end stands for any ending.
    Xen(&'static [&'static str]),
    /// By name, the modules' among them.
    Kernel(&'static [&'static str]),
    /// All of a module.
    Module(&'static str),
    User,
}

use Begin::Kernel;
use Begin::Module;
use Begin::User;
use Begin::Xen;

/// An instruction belongs to the group of the innermost function of its path that begins one.
const GROUPS: &[(&str, Begin)] = &[
    // First, for one of these functions is a module's.
    (
        "events: sending, EOI",
        Kernel(&["notify_remote_via_irq", "xbk_notify", "xen_irq_lateeoi"]),
    ),
    ("backend: the module and what it calls", Module("rblkback")),
    (
        "backend: the module and what it calls",
        Module("xen_blkback"),
    ),
    ("disk: null_blk", Module("null_blk")),
    (
        "disk: block layer",
        Kernel(&[
            "submit_bio*",
            "bio_*",
            "blk_*",
            "blkdev_*",
            "__blk_*",
            "__submit_bio*",
        ]),
    ),
    (
        "grants: the kernel's part",
        Kernel(&[
            "gnttab_*",
            "__gnttab_*",
            "set_foreign_p2m_mapping",
            "clear_foreign_p2m_mapping",
        ]),
    ),
    (
        "events: taking one in",
        Kernel(&[
            "asm_exc_xen_hypervisor_callback",
            "xen_evtchn_do_upcall",
            "__xen_evtchn_do_upcall",
        ]),
    ),
    (
        "threads: waking one up",
        Kernel(&[
            "try_to_wake_up",
            "__queue_work",
            "queue_work_on",
            "__wake_up*",
            "wake_up_*",
        ]),
    ),
    (
        "threads: switching",
        Kernel(&[
            "schedule",
            "__schedule",
            "schedule_idle",
            "finish_task_switch*",
            "__switch_to_asm",
        ]),
    ),
    (
        "threads: workqueue",
        Kernel(&[
            "worker_thread",
            "process_one_work",
            "process_scheduled_works",
            "kthread_worker*",
        ]),
    ),
    (
        "memory: allocating, freeing",
        Kernel(&[
            "kmem_cache_*",
            "kfree",
            "__kmalloc*",
            "mempool_*",
            "__kvmalloc*",
            "kvfree*",
        ]),
    ),
    (
        "timers, ticks",
        Kernel(&[
            "hrtimer_*",
            "tick_*",
            "run_timer_softirq",
            "update_process_times",
            "handle_softirqs",
        ]),
    ),
    (
        "idle loop",
        Kernel(&["do_idle", "cpuidle_*", "default_idle*"]),
    ),
    ("programs, system calls", User),
    (
        "Xen: scheduling, context switch",
        Xen(&["schedule", "context_switch", "__context_switch"]),
    ),
    ("Xen: event channel calls", Xen(&["do_event_channel_op"])),
    ("Xen: grant table calls", Xen(&["do_grant_table_op"])),
    ("Xen: sched_op calls", Xen(&["do_sched_op"])),
    (
        "Xen: timers",
        Xen(&[
            "do_set_timer_op",
            "do_vcpu_op",
            "timer_softirq_action",
            "apic_timer_interrupt",
        ]),
    ),
    (
        "Xen: the guest's own traps",
        Xen(&[
            "do_iret",
            "do_page_fault",
            "do_general_protection",
            "do_device_not_available",
        ]),
    ),
    (
        "Xen: page tables, segments",
        Xen(&[
            "do_mmuext_op",
            "do_mmu_update",
            "do_update_va_mapping",
            "do_set_segment_base",
            "do_update_descriptor",
        ]),
    ),
];

/// What belongs to none.
const XEN_REST: &str = "Xen: entry, exit, the rest";
const DOM0: &str = "dom0's kernel: the rest";

/// Calls that are counted.
const CALLS: &[(&str, Begin)] = &[
    ("bios", Kernel(&["submit_bio"])),
    ("decisions of Xen's scheduler", Xen(&["schedule"])),
    (
        "events taken in",
        Kernel(&["xen_evtchn_do_upcall", "__xen_evtchn_do_upcall"]),
    ),
    (
        "events sent",
        Kernel(&["notify_remote_via_irq", "xbk_notify"]),
    ),
    ("hypercalls", Xen(&["pv_hypercall"])),
    ("hypercalls: event channels", Xen(&["do_event_channel_op"])),
    ("hypercalls: grant tables", Xen(&["do_grant_table_op"])),
    ("hypercalls: several at once", Xen(&["do_multicall"])),
    ("hypercalls: waiting, yielding", Xen(&["do_sched_op"])),
    (
        "hypercalls: timers",
        Xen(&["do_set_timer_op", "do_vcpu_op"]),
    ),
    ("interrupts of Xen's", Xen(&["do_IRQ"])),
    ("threads switched to", Kernel(&["__switch_to_asm"])),
    ("threads woken up", Kernel(&["try_to_wake_up"])),
];

/// The group of what is executed at the end of a path.
pub fn group(symbols: &Symbols, paths: &Paths, path: u32) -> &'static str {
    let last = symbols.get(paths.function(path) as usize);
    let xen = last.place == Place::Xen;
    // What Xen does has a purpose of its own, whoever called it.
    let named = paths
        .outwards(path)
        .map(|path| symbols.get(paths.function(path) as usize))
        .take_while(|function| (function.place == Place::Xen) == xen)
        .find_map(begun_by);
    named.unwrap_or(if xen { XEN_REST } else { DOM0 })
}

fn begun_by(function: &Function) -> Option<&'static str> {
    let group = GROUPS.iter().find(|(_, begin)| begins(begin, function))?;
    Some(group.0)
}

/// What a call of the function counts as.
pub fn counted(function: &Function) -> impl Iterator<Item = &'static str> {
    let those = CALLS.iter().filter(|(_, begin)| begins(begin, function));
    those.map(|(name, _)| *name)
}

fn begins(begin: &Begin, function: &Function) -> bool {
    match (begin, &function.place) {
        (Xen(names), Place::Xen) | (Kernel(names), Place::Kernel | Place::Module(_)) => {
            names.iter().any(|name| fits(name, &function.name))
        }
        (Module(name), Place::Module(module)) => name == module,
        (User, Place::User) => true,
        _ => false,
    }
}

/// Compilers split functions and put an ending behind a dot.
fn fits(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(beginning) => name.starts_with(beginning),
        None => name.split('.').next() == Some(pattern),
    }
}

#[cfg(test)]
mod tests {
    use super::super::paths::ROOT;
    use super::*;

    const KERNEL: &str = "ffffffff81000000 T worker_thread\n\
        ffffffff81001000 T memcpy\n\
        ffffffff81002000 t finish_task_switch.isra.0\n\
        ffffffffc0000000 t run [rblkback]\n\
        ffffffffc0001000 t xbk_notify [rblkback]\n";
    const XEN: &str = "ffff82d040000000 T do_sched_op\nffff82d040001000 T memcpy\n";

    #[test]
    fn the_innermost_beginning_counts() {
        let symbols = Symbols::parse(KERNEL, XEN).unwrap();
        let mut paths = Paths::new();
        let mut path = ROOT;
        let mut below = |address| {
            path = paths.call(path, symbols.find(address) as u32);
            path
        };
        let memcpy = below(0xffff_ffff_8100_1000);
        let worker = below(0xffff_ffff_8100_0000);
        let run = below(0xffff_ffff_c000_0000);
        let called = below(0xffff_ffff_8100_1000);
        let sent = below(0xffff_ffff_c000_1000);
        let xen = below(0xffff_82d0_4000_1000);
        let of = |path| group(&symbols, &paths, path);
        assert_eq!(of(memcpy), DOM0);
        assert_eq!(of(worker), "threads: workqueue");
        assert_eq!(of(run), "backend: the module and what it calls");
        assert_eq!(of(called), of(run));
        assert_eq!(of(sent), "events: sending, EOI");
        let sent = symbols.get(symbols.find(0xffff_ffff_c000_1000));
        assert!(counted(sent).eq(["events sent"]));
        assert_eq!(of(xen), XEN_REST);
    }

    #[test]
    fn endings_of_compilers_do_not_matter() {
        let symbols = Symbols::parse(KERNEL, XEN).unwrap();
        let switched = symbols.get(symbols.find(0xffff_ffff_8100_2000));
        assert_eq!(begun_by(switched), Some("threads: switching"));
        assert!(fits("bio_*", "bio_put"));
        assert!(!fits("bio", "bio_put"));
    }
}
