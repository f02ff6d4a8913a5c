// SPDX-License-Identifier: GPL-2.0

//! Disabling preemption.
//!
//! C header: [`include/linux/preempt.h`](srctree/include/linux/preempt.h)

use kernel::types::NotThreadSafe;

use super::bindings;

/// Evidence that preemption of the current task is disabled.
///
/// The guard is also an RCU read-side critical section: no RCU grace period ends while it exists.
/// The task must not sleep while it holds a guard. On PREEMPT_RT that includes spinlocks that are
/// not raw, and freeing memory.
///
/// # Invariants
///
/// `new` has disabled preemption of the current task for this guard. The type is not `Send`, so
/// this is the task that created the guard.
pub(crate) struct PreemptGuard(NotThreadSafe);

impl PreemptGuard {
    /// Disables preemption until the guard is dropped.
    ///
    /// Context: any.
    pub(crate) fn new() -> Self {
        // SAFETY: The call has no preconditions.
        unsafe { bindings::xbk_preempt_disable() };
        // INVARIANT: Preemption was disabled above.
        Self(NotThreadSafe)
    }
}

impl Drop for PreemptGuard {
    fn drop(&mut self) {
        // SAFETY: By the type invariant `new` has disabled preemption of the current task.
        unsafe { bindings::xbk_preempt_enable() };
    }
}
