// SPDX-License-Identifier: GPL-2.0

//! Tracepoints, which `trace.h` defines. All functions may be called in any context.
//!
//! C header: [`include/linux/tracepoint.h`](srctree/include/linux/tracepoint.h)

use super::bindings;

/// Identifies a disk in the tracepoints.
#[derive(Clone, Copy)]
pub(crate) struct TraceId {
    /// The id of the frontend's domain.
    pub(crate) domain: u16,
    /// The number of the virtual device in xenstore.
    pub(crate) device: u32,
}

impl TraceId {
    /// `requests` requests of ring `ring` are admitted.
    pub(crate) fn admit(self, ring: u8, requests: u32) {
        // SAFETY: The call has no preconditions.
        unsafe { bindings::xbk_trace_admit(self.domain, self.device, ring, requests) }
    }

    /// `requests` requests of ring `ring` have to wait for tokens.
    pub(crate) fn throttle(self, ring: u8, requests: u32) {
        // SAFETY: The call has no preconditions.
        unsafe { bindings::xbk_trace_throttle(self.domain, self.device, ring, requests) }
    }

    /// Ring `ring`, which waited for tokens, is woken.
    pub(crate) fn wake(self, ring: u8) {
        // SAFETY: The call has no preconditions.
        unsafe { bindings::xbk_trace_wake(self.domain, self.device, ring) }
    }

    /// The limit of the disk has changed to `refill` tokens per second and a bucket of `max`
    /// tokens.
    pub(crate) fn limit(self, refill: u32, max: u32) {
        // SAFETY: The call has no preconditions.
        unsafe { bindings::xbk_trace_limit(self.domain, self.device, refill, max) }
    }
}
