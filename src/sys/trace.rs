// SPDX-License-Identifier: GPL-2.0

//! Tracepoints; `trace.h` says what they tell. Any context.
//!
//! C header: [`include/linux/tracepoint.h`](srctree/include/linux/tracepoint.h)

use super::bindings;

/// How tracepoints name a disk.
#[derive(Clone, Copy)]
pub(crate) struct TraceId {
    /// The frontend's domain.
    pub(crate) domain: u16,
    /// The virtual device's number.
    pub(crate) device: u32,
}

impl TraceId {
    /// `requests` of ring `ring` may go.
    pub(crate) fn admit(self, ring: u8, requests: u32) {
        // SAFETY: No preconditions.
        unsafe { bindings::xbk_trace_admit(self.domain, self.device, ring, requests) }
    }

    /// `requests` of ring `ring` have to wait.
    pub(crate) fn throttle(self, ring: u8, requests: u32) {
        // SAFETY: No preconditions.
        unsafe { bindings::xbk_trace_throttle(self.domain, self.device, ring, requests) }
    }

    /// Ring `ring` is woken.
    pub(crate) fn wake(self, ring: u8) {
        // SAFETY: No preconditions.
        unsafe { bindings::xbk_trace_wake(self.domain, self.device, ring) }
    }

    /// This limit is in force.
    pub(crate) fn limit(self, refill: u32, max: u32) {
        // SAFETY: No preconditions.
        unsafe { bindings::xbk_trace_limit(self.domain, self.device, refill, max) }
    }
}
