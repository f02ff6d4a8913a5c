// SPDX-License-Identifier: GPL-2.0

//! A one-shot hrtimer on CLOCK_MONOTONIC that is re-armed in place.
//!
//! The kernel crate's `HrTimer` hands out a handle per start, and dropping an old
//! handle cancels a newer start. A timer that is armed and stopped from several
//! contexts under a lock needs the plain C rules instead.
//!
//! C header: [`include/linux/hrtimer.h`](srctree/include/linux/hrtimer.h)

use kernel::{
    bindings,
    container_of,
    prelude::*,
    types::Opaque, //
};

/// What to do when the time has come.
pub(crate) trait Expire: Send + Sync + 'static {
    /// Runs in hard interrupt context: must not sleep. May arm `timer` again.
    fn expired(timer: &OneShot<Self>)
    where
        Self: Sized;
}

/// A timer and the value it acts upon.
///
/// Drop waits for a running callback; it must not happen in one, nor in hard
/// interrupt context.
#[pin_data(PinnedDrop)]
pub(crate) struct OneShot<T: Expire> {
    #[pin]
    timer: Opaque<bindings::hrtimer>,
    #[pin]
    value: T,
}

// SAFETY: hrtimer functions may be called from any context; `T` is Send.
unsafe impl<T: Expire> Send for OneShot<T> {}
// SAFETY: As above; the callback shares `T`, which is Sync.
unsafe impl<T: Expire> Sync for OneShot<T> {}

impl<T: Expire> OneShot<T> {
    /// A timer that is not armed.
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

    /// The value.
    pub(crate) fn value(&self) -> &T {
        &self.value
    }

    /// Arms the timer for `at` (nanoseconds of CLOCK_MONOTONIC), whether it was
    /// armed before or not. Any context.
    pub(crate) fn arm(&self, at: u64) {
        let at = i64::try_from(at).unwrap_or(i64::MAX);
        // SAFETY: Set up in `new`; pinned, and `drop` cancels it.
        unsafe {
            bindings::hrtimer_start_range_ns(
                self.timer.get(),
                at,
                0,
                bindings::hrtimer_mode_HRTIMER_MODE_ABS,
            )
        };
    }

    /// Stops the timer. A callback that runs already is not waited for. Any
    /// context.
    pub(crate) fn disarm(&self) {
        // SAFETY: Set up in `new`.
        unsafe { bindings::hrtimer_try_to_cancel(self.timer.get()) };
    }

    extern "C" fn callback(timer: *mut bindings::hrtimer) -> bindings::hrtimer_restart {
        let field: *mut Opaque<bindings::hrtimer> = timer.cast();
        // SAFETY: The timer core passes the timer of a live `OneShot<T>`: `drop`
        // waits for callbacks.
        T::expired(unsafe { &*container_of!(field, Self, timer) });
        bindings::hrtimer_restart::HRTIMER_NORESTART
    }
}

#[pinned_drop]
impl<T: Expire> PinnedDrop for OneShot<T> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: Set up in `new`. Waits for a running callback.
        unsafe { bindings::hrtimer_cancel(self.timer.get()) };
    }
}

/// Nanoseconds of CLOCK_MONOTONIC. Any context.
pub(crate) fn now() -> u64 {
    // SAFETY: No preconditions.
    u64::try_from(unsafe { bindings::ktime_get() }).unwrap_or(0)
}
