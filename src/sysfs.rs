// SPDX-License-Identifier: GPL-2.0

//! What an administrator sees of a disk below
//! `/sys/bus/xen-backend/devices/vbd-<domain>-<device>/`.
//!
//! `physical_device`, `mode` and `statistics/` have the names and units of
//! xen-blkback: xentop and libvirt open them by name. `qos/` is ours. Each file is
//! described in `Documentation/ABI/`.

#![forbid(unsafe_code)]

use kernel::{
    fmt,
    prelude::*,
    sync::atomic::ordering::Relaxed, //
};

use crate::datapath::guest;
use crate::driver::Bound;
use crate::logic::limits::Limit;
use crate::logic::view::View;
use crate::sys::sysfs::Entry;
use crate::sys::sysfs::Group;
use crate::sys::sysfs::Groups;
use crate::sys::sysfs::Listed;
use crate::sys::sysfs::Show;

const NS_PER_US: u64 = 1000;

/// Declares files: a type per file, its name, and how to get its value.
macro_rules! files {
    ($($file:ident = $name:literal, |$bound:ident| $value:expr;)*) => {$(
        struct $file;

        impl Show for $file {
            type Data = Bound;
            const NAME: &'static CStr = $name;

            fn show($bound: &Bound, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&$value, f)
            }
        }
    )*};
}

files! {
    PhysicalDevice = c"physical_device", |bound| bound.vbd.identity();
    Mode = c"mode", |bound| bound.vbd.mode();

    OutOfRoom = c"oo_req", |bound| bound.vbd.stats().out_of_room.load(Relaxed);
    Reads = c"rd_req", |bound| bound.vbd.stats().reads.load(Relaxed);
    Writes = c"wr_req", |bound| bound.vbd.stats().writes.load(Relaxed);
    Flushes = c"f_req", |bound| bound.vbd.stats().flushes.load(Relaxed);
    Discards = c"ds_req", |bound| bound.vbd.stats().discards.load(Relaxed);
    SectorsRead = c"rd_sect", |bound| bound.vbd.stats().sectors_read.load(Relaxed);
    SectorsWritten = c"wr_sect", |bound| bound.vbd.stats().sectors_written.load(Relaxed);

    TokensRefill = c"tokens_refill", |bound| view(bound).limit.map_or(0, |limit| limit.refill());
    TokensMax = c"tokens_max", |bound| view(bound).limit.map_or(0, |limit: Limit| limit.max());
    Tokens = c"tokens", |bound| view(bound).tokens;
    TokensSize = c"tokens_size", |bound| view(bound).size;
    BytesRefill = c"bytes_refill", |bound| view(bound).bytes_limit.map_or(0, |limit| limit.refill());
    BytesMax = c"bytes_max", |bound| view(bound).bytes_limit.map_or(0, |limit: Limit| limit.max());
    Bytes = c"bytes", |bound| view(bound).bytes;
    VmRefill = c"vm_tokens_refill", |bound| cap(bound).limit.map_or(0, |limit| limit.refill());
    VmMax = c"vm_tokens_max", |bound| cap(bound).limit.map_or(0, |limit: Limit| limit.max());
    VmTokens = c"vm_tokens", |bound| cap(bound).tokens;
    VmThrottledTime = c"vm_throttled_usec", |bound| cap(bound).throttled / NS_PER_US;
    IoCount = c"io_count", |bound| bound.vbd.gate().spent();
    IoRate = c"io_rate", |bound| view(bound).rate;
    State = c"state", |bound| view(bound).state.name();
    Throttled = c"nr_throttled", |bound| view(bound).meter.held;
    ThrottledTime = c"throttled_usec", |bound| view(bound).throttled / NS_PER_US;
    WaitMax = c"wait_usec_max", |bound| view(bound).meter.wait_max / NS_PER_US;
    ConfigChanges = c"config_changes", |bound| view(bound).meter.changes;
    ConfigErrors = c"config_errors", |bound| view(bound).meter.errors;
}

fn view(bound: &Bound) -> View {
    bound.vbd.gate().view()
}

fn cap(bound: &Bound) -> guest::View {
    bound.vbd.gate().seat().view()
}

const DEVICE: &Group<Bound> = &Group::new(
    None,
    &[
        Entry::of::<PhysicalDevice>(),
        Entry::of::<Mode>(),
        Entry::END,
    ],
);

const STATISTICS: &Group<Bound> = &Group::new(
    Some(c"statistics"),
    &[
        Entry::of::<OutOfRoom>(),
        Entry::of::<Reads>(),
        Entry::of::<Writes>(),
        Entry::of::<Flushes>(),
        Entry::of::<Discards>(),
        Entry::of::<SectorsRead>(),
        Entry::of::<SectorsWritten>(),
        Entry::END,
    ],
);

const QOS: &Group<Bound> = &Group::new(
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
pub(crate) const GROUPS: Groups<Bound> = Groups::new(&[
    Listed::of(DEVICE),
    Listed::of(STATISTICS),
    Listed::of(QOS),
    Listed::END,
]);
