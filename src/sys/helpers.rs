// SPDX-License-Identifier: GPL-2.0

//! The C helpers of this room (prototypes in `helpers.h`). bindgen reads that
//! header together with Xen's; this is where the rest of the room takes them from.

pub(super) use kernel::bindings::{
    block_device,
    file, //
};

pub(super) use crate::xenbus::bindings::{
    xbk_disk,
    xbk_disk_discard,
    xbk_disk_is_read_only,
    xbk_disk_merges_late,
    xbk_disk_of,
    xbk_disk_open,
    xbk_disk_read,
    xbk_disk_sectors,
    xbk_disk_uncache,
    xbk_module_get,
    xbk_param_buffer_squeeze_duration_ms,
    xbk_param_default_tokens_max,
    xbk_param_default_tokens_refill,
    xbk_param_feature_persistent,
    xbk_param_log_stats,
    xbk_param_max_buffer_pages,
    xbk_param_max_guest_frames,
    xbk_param_max_persistent_grants,
    xbk_param_max_queues,
    xbk_param_max_ring_page_order,
    xbk_param_persistent_grant_unused_seconds,
    xbk_params_init,
    xbk_plug_expect,
    xbk_preempt_disable,
    xbk_preempt_enable,
    xbk_random_u32,
    xbk_task_get,
    xbk_task_put,
    xbk_thread_create,
    xbk_thread_drowse,
    xbk_thread_rouse,
    xbk_thread_sleep,
    xbk_trace_admit,
    xbk_trace_limit,
    xbk_trace_throttle,
    xbk_trace_wake, //
};
