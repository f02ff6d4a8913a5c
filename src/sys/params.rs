// SPDX-License-Identifier: GPL-2.0

//! The current values of the module parameters. `params.c` defines the parameters.
//!
//! C header: [`include/linux/moduleparam.h`](srctree/include/linux/moduleparam.h)

use kernel::prelude::*;

use super::bindings;

macro_rules! parameters {
    ($($name:ident: $type:ty = $get:ident;)*) => {$(
        #[doc = concat!("Returns the parameter `", stringify!($name), "`. Context: any.")]
        pub(crate) fn $name() -> $type {
            // SAFETY: The helper only reads a variable.
            unsafe { bindings::$get() }
        }
    )*};
}

parameters! {
    max_buffer_pages: u32 = xbk_param_max_buffer_pages;
    max_persistent_grants: u32 = xbk_param_max_persistent_grants;
    persistent_grant_unused_seconds: u32 = xbk_param_persistent_grant_unused_seconds;
    max_queues: u32 = xbk_param_max_queues;
    max_ring_page_order: u32 = xbk_param_max_ring_page_order;
    max_guest_frames: u32 = xbk_param_max_guest_frames;
    feature_persistent: bool = xbk_param_feature_persistent;
    buffer_squeeze_duration_ms: u32 = xbk_param_buffer_squeeze_duration_ms;
    log_stats: u32 = xbk_param_log_stats;
    default_tokens_refill: u32 = xbk_param_default_tokens_refill;
    default_tokens_max: u32 = xbk_param_default_tokens_max;
}

/// Returns the text of the parameter `domains`. Sleeps.
///
/// # Errors
///
/// `ENOMEM`.
pub(crate) fn domains() -> Result<KVec<u8>> {
    let mut text = KVec::from_elem(0, bindings::XBK_DOMAINS_SIZE as usize, GFP_KERNEL)?;
    // SAFETY: `text` has as many bytes as the helper is told. It may sleep, as this may.
    let len = unsafe { bindings::xbk_param_domains(text.as_mut_ptr().cast(), text.len()) };
    text.truncate(len);
    Ok(text)
}

/// Sets the defaults that depend on the machine. The module calls this once, before it reads any
/// parameter.
pub(crate) fn init() {
    // SAFETY: The call has no preconditions.
    unsafe { bindings::xbk_params_init() }
}

/// Returns an unpredictable number. Context: any.
pub(crate) fn random() -> u32 {
    // SAFETY: The call has no preconditions.
    unsafe { bindings::xbk_random_u32() }
}
