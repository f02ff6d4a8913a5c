// SPDX-License-Identifier: GPL-2.0

//! One-shot hrtimers on CLOCK_MONOTONIC that are re-armed in place.
//!
//! The kernel crate's `HrTimer` returns a handle for each start, and the drop of an old handle
//! cancels a newer start. A timer that several contexts arm and disarm under a lock needs the rules
//! of the C API instead.
//!
//! C header: [`include/linux/hrtimer.h`](srctree/include/linux/hrtimer.h)

use core::mem::transmute_copy;

use kernel::{
    bindings,
    container_of,
    prelude::*,
    time::hrtimer::HrTimerRestart,
    types::Opaque, //
};

/// What a callback returns. The kernel's bindings have the C enum as an integer, or as a type around one.
const NORESTART: bindings::hrtimer_restart =
    // SAFETY: Either is a C `unsigned int`, of which every value is valid.
    unsafe { transmute_copy(&(HrTimerRestart::NoRestart as u32)) };

/// Handles the expiry of a [`OneShot`].
pub(crate) trait Expire: Send + Sync + 'static {
    /// The timer has expired. The function may arm `timer` again.
    ///
    /// Context: hard interrupt; on PREEMPT_RT a thread of the kernel, which may take spinlocks.
    fn expired(timer: &OneShot<Self>)
    where
        Self: Sized;
}

/// A timer and the value that its callback uses.
///
/// Drop disarms the timer and waits for a running callback. It must not run in hard interrupt
/// context, which includes the callback.
#[pin_data(PinnedDrop)]
pub(crate) struct OneShot<T: Expire> {
    #[pin]
    timer: Opaque<bindings::hrtimer>,
    #[pin]
    value: T,
}

// SAFETY: Any thread may call the hrtimer functions. `T` is `Send`.
unsafe impl<T: Expire> Send for OneShot<T> {}
// SAFETY: Any threads may call the hrtimer functions concurrently. `T`, which is shared with the
// callback, is `Sync`.
unsafe impl<T: Expire> Sync for OneShot<T> {}

impl<T: Expire> OneShot<T> {
    /// Creates a timer that is not armed.
    pub(crate) fn new(value: impl PinInit<T, Error>) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            timer <- Opaque::ffi_init(|timer| {
                // SAFETY: `timer` is valid for writes and pinned.
                unsafe {
                    bindings::hrtimer_setup(
                        timer,
                        Some(Self::callback),
                        bindings::CLOCK_MONOTONIC as i32,
                        bindings::hrtimer_mode_HRTIMER_MODE_ABS,
                    );
                }
            }),
            value <- value,
        }? Error)
    }

    /// Returns the value.
    pub(crate) fn value(&self) -> &T {
        &self.value
    }

    /// Arms the timer for the time `at`, in nanoseconds of CLOCK_MONOTONIC. If the timer is armed
    /// already, the new time replaces the old one.
    ///
    /// Context: any.
    pub(crate) fn arm(&self, at: u64) {
        let at = i64::try_from(at).unwrap_or(i64::MAX);
        // SAFETY: `new` has set up the timer. It is pinned, and `drop` cancels it before the memory
        // is freed.
        unsafe {
            bindings::hrtimer_start_range_ns(
                self.timer.get(),
                at,
                0,
                bindings::hrtimer_mode_HRTIMER_MODE_ABS,
            )
        };
    }

    /// Disarms the timer. Does not wait for a callback that is running, which may arm the timer
    /// again.
    ///
    /// Context: any.
    pub(crate) fn disarm(&self) {
        // SAFETY: `new` has set up the timer.
        unsafe { bindings::hrtimer_try_to_cancel(self.timer.get()) };
    }

    extern "C" fn callback(timer: *mut bindings::hrtimer) -> bindings::hrtimer_restart {
        let field: *mut Opaque<bindings::hrtimer> = timer.cast();
        // SAFETY: The timer core passes the timer of a `OneShot<T>`. `drop` waits for the callback
        // before the memory is freed.
        T::expired(unsafe { &*container_of!(field, Self, timer) });
        NORESTART
    }
}

#[pinned_drop]
impl<T: Expire> PinnedDrop for OneShot<T> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: `new` has set up the timer.
        unsafe { bindings::hrtimer_cancel(self.timer.get()) };
    }
}

/// Returns the time of CLOCK_MONOTONIC in nanoseconds.
///
/// Context: any.
pub(crate) fn now() -> u64 {
    // SAFETY: The call has no preconditions.
    u64::try_from(unsafe { bindings::ktime_get() }).unwrap_or(0)
}

/// Returns the time since some moment before the boot in nanoseconds, as of the last tick: a load and a
/// multiplication, where [`now`] reads the clock. Not to be compared with [`now`].
///
/// Context: any.
pub(crate) fn coarse_now() -> u64 {
    // SAFETY: The call has no preconditions.
    unsafe { bindings::jiffies64_to_nsecs(jiffies() as u64) }
}

/// Returns `jiffies`, the kernel's count of ticks, which wraps around. A load, where [`now`] reads the
/// clock.
///
/// Context: any.
pub(crate) fn jiffies() -> usize {
    // SAFETY: The variable exists for as long as the kernel runs. It is a word that is written as a
    // whole, and read as such here.
    unsafe { core::ptr::read_volatile(&raw const bindings::jiffies) }
}
