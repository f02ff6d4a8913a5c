// SPDX-License-Identifier: GPL-2.0

//! What the owner of a bucket's timer has to do after each change of the bucket.

use super::super::ids::Member;

/// What to do with the timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimerAction {
    /// No member waits: stop the timer.
    Stop,
    /// Wake this member now, so that it asks for tokens again.
    Wake(Member),
    /// Arm the timer for this time, in nanoseconds of CLOCK_MONOTONIC.
    ArmAt(u64),
}
