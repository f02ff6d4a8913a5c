// SPDX-License-Identifier: GPL-2.0

//! Staying on the processor.
//!
//! C header: [`include/linux/preempt.h`](srctree/include/linux/preempt.h)

use kernel::types::NotThreadSafe;

use super::bindings;

/// Disables preemption until it is dropped.
///
/// No RCU grace period ends meanwhile either. The caller must not sleep while it holds the guard.
pub(crate) struct PreemptGuard(NotThreadSafe);

impl PreemptGuard {
    /// Disables preemption of the current task. Context: any.
    pub(crate) fn new() -> Self {
        // SAFETY: The call has no preconditions. `drop` undoes it once, in the same task.
        unsafe { bindings::xbk_preempt_disable() };
        Self(NotThreadSafe)
    }
}

impl Drop for PreemptGuard {
    fn drop(&mut self) {
        // SAFETY: `new` disabled preemption in this task; the guard cannot be sent to another.
        unsafe { bindings::xbk_preempt_enable() };
    }
}
