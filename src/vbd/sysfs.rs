// SPDX-License-Identifier: GPL-2.0

//! Files of a disk below `/sys/bus/xen-backend/devices/vbd-<domain>-<device>/`.
//!
//! `physical_device`, `mode` and `statistics/` have the names and units of xen-blkback: xentop and
//! libvirt open them by name. `qos/` is ours. `Documentation/ABI/` describes each file.

use kernel::{
    fmt,
    prelude::*,
    sync::atomic::ordering::Relaxed, //
};

use super::binding::Binding;
use crate::logic::tokens::limits::Limit;
use crate::logic::tokens::view::LimitView;
use crate::qos::guest::CapView;
use crate::xenbus::attribute::Entry;
use crate::xenbus::attribute::Group;
use crate::xenbus::attribute::Groups;
use crate::xenbus::attribute::Listed;
use crate::xenbus::attribute::Show;

const NS_PER_US: u64 = 1000;

/// Declares files: a type per file, its name, and how to get its value.
macro_rules! files {
    ($($file:ident = $name:literal, |$binding:ident| $value:expr;)*) => {$(
        struct $file;

        impl Show for $file {
            type Data = Binding;
            const NAME: &'static CStr = $name;

            fn show($binding: &Binding, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&$value, f)
            }
        }
    )*};
}

files! {
    PhysicalDevice = c"physical_device", |binding| binding.vbd.identity.lock().number;
    Mode = c"mode", |binding| binding.vbd.identity.lock().mode;

    OutOfMemory = c"oo_req", |binding| binding.vbd.context.stats.out_of_memory.load(Relaxed);
    Reads = c"rd_req", |binding| binding.vbd.context.stats.reads.load(Relaxed);
    Writes = c"wr_req", |binding| binding.vbd.context.stats.writes.load(Relaxed);
    Flushes = c"f_req", |binding| binding.vbd.context.stats.flushes.load(Relaxed);
    Discards = c"ds_req", |binding| binding.vbd.context.stats.discards.load(Relaxed);
    SectorsRead = c"rd_sect", |binding| binding.vbd.context.stats.sectors_read.load(Relaxed);
    SectorsWritten = c"wr_sect", |binding| binding.vbd.context.stats.sectors_written.load(Relaxed);

    TokensRefill = c"tokens_refill", |binding| view(binding).limit.map_or(0, |limit| limit.refill());
    TokensMax = c"tokens_max", |binding| view(binding).limit.map_or(0, |limit: Limit| limit.max());
    Tokens = c"tokens", |binding| view(binding).tokens;
    TokensSize = c"tokens_size", |binding| view(binding).size;
    BytesRefill = c"bytes_refill", |binding| view(binding).bytes_limit.map_or(0, |limit| limit.refill());
    BytesMax = c"bytes_max", |binding| view(binding).bytes_limit.map_or(0, |limit: Limit| limit.max());
    Bytes = c"bytes", |binding| view(binding).bytes;
    VmRefill = c"vm_tokens_refill", |binding| cap(binding).limit.map_or(0, |limit| limit.refill());
    VmMax = c"vm_tokens_max", |binding| cap(binding).limit.map_or(0, |limit: Limit| limit.max());
    VmTokens = c"vm_tokens", |binding| cap(binding).tokens;
    VmThrottledTime = c"vm_throttled_usec", |binding| cap(binding).throttled / NS_PER_US;
    IoCount = c"io_count", |binding| binding.vbd.gate().spent();
    IoRate = c"io_rate", |binding| view(binding).rate;
    State = c"state", |binding| view(binding).state.name();
    Throttled = c"nr_throttled", |binding| view(binding).meter.nr_throttled;
    ThrottledTime = c"throttled_usec", |binding| view(binding).throttled / NS_PER_US;
    WaitMax = c"wait_usec_max", |binding| view(binding).meter.wait_max / NS_PER_US;
    ConfigChanges = c"config_changes", |binding| view(binding).meter.changes;
    ConfigErrors = c"config_errors", |binding| view(binding).meter.errors;
}

fn view(binding: &Binding) -> LimitView {
    binding.vbd.gate().view()
}

fn cap(binding: &Binding) -> CapView {
    binding.vbd.gate().slot().cap_view()
}

const DEVICE: &Group<Binding> = &Group::new(
    None,
    &[
        Entry::of::<PhysicalDevice>(),
        Entry::of::<Mode>(),
        Entry::END,
    ],
);

const STATISTICS: &Group<Binding> = &Group::new(
    Some(c"statistics"),
    &[
        Entry::of::<OutOfMemory>(),
        Entry::of::<Reads>(),
        Entry::of::<Writes>(),
        Entry::of::<Flushes>(),
        Entry::of::<Discards>(),
        Entry::of::<SectorsRead>(),
        Entry::of::<SectorsWritten>(),
        Entry::END,
    ],
);

const QOS: &Group<Binding> = &Group::new(
    Some(c"qos"),
    &[
        Entry::of::<TokensRefill>(),
        Entry::of::<TokensMax>(),
        Entry::of::<Tokens>(),
        Entry::of::<TokensSize>(),
        Entry::of::<BytesRefill>(),
        Entry::of::<BytesMax>(),
        Entry::of::<Bytes>(),
        Entry::of::<VmRefill>(),
        Entry::of::<VmMax>(),
        Entry::of::<VmTokens>(),
        Entry::of::<VmThrottledTime>(),
        Entry::of::<IoCount>(),
        Entry::of::<IoRate>(),
        Entry::of::<State>(),
        Entry::of::<Throttled>(),
        Entry::of::<ThrottledTime>(),
        Entry::of::<WaitMax>(),
        Entry::of::<ConfigChanges>(),
        Entry::of::<ConfigErrors>(),
        Entry::END,
    ],
);

/// All files of a disk.
pub(crate) const GROUPS: Groups<Binding> = Groups::new(&[
    Listed::of(DEVICE),
    Listed::of(STATISTICS),
    Listed::of(QOS),
    Listed::END,
]);
