// SPDX-License-Identifier: GPL-2.0

//! The C helpers of this room (prototypes in `helpers.h`). bindgen reads that
//! header together with Xen's; this is where the rest of the room takes them from.

pub(super) use kernel::bindings::{
    block_device,
    file, //
};

pub(super) use crate::xenbus::bindings::{
    xbk_bio_alloc,
    xbk_disk,
    xbk_disk_is_read_only,
    xbk_disk_of,
    xbk_disk_open,
    xbk_disk_read,
    xbk_disk_sectors,
    xbk_disk_uncache,
    xbk_module_get, //
};
