// SPDX-License-Identifier: GPL-2.0

//! What differs between the kernel releases that the module is built for. No other Rust file asks for the
//! release, and of the C files only `compat.c` is compiled for some releases and not for others.
//!
//! `Kbuild` says which release is the oldest, and sets `kernel_before_7_3`. When 7.3 is the oldest, this
//! file and `compat.c` go, and who imports from here imports from the kernel crate instead.

#[cfg(not(kernel_before_7_3))]
pub(crate) use kernel::{
    new_spinlock_irq,
    sync::{
        rcu::synchronize_rcu,
        SpinLockIrq, //
    },
};

#[cfg(kernel_before_7_3)]
pub(crate) use self::before_7_3::{
    new_spinlock_irq,
    synchronize_rcu,
    SpinLockIrq, //
};

/// What the kernel crate has as of Linux 7.3, with the same names and for the same use.
#[cfg(kernel_before_7_3)]
mod before_7_3 {
    use kernel::{
        prelude::*,
        sync::lock::{
            Backend,
            Lock, //
        }, //
    };

    use super::super::bindings;

    /// Waits until all RCU read-side critical sections have ended that have begun before. Sleeps.
    pub(crate) fn synchronize_rcu() {
        // SAFETY: The call has no preconditions but that the caller may sleep.
        unsafe { bindings::synchronize_rcu() };
    }

    /// A value behind a spinlock that disables interrupts, or that sleeps, on PREEMPT_RT.
    ///
    /// The kernel's own counts how many guards there are. This one restores what it found, so of two
    /// guards the one that was taken last has to be dropped first.
    pub(crate) type SpinLockIrq<T> = Lock<T, SpinLockIrqBackend>;

    /// Initialises a [`SpinLockIrq`], with a lock class of its own for each place in the code.
    macro_rules! new_spinlock_irq {
        ($value:expr, $name:literal $(,)?) => {
            $crate::sys::compat::SpinLockIrq::new(
                $value,
                ::kernel::c_str!($name),
                ::kernel::static_lock_class!(),
            )
        };
    }
    pub(crate) use new_spinlock_irq;

    /// How a [`SpinLockIrq`] is taken.
    pub(crate) struct SpinLockIrqBackend;

    // SAFETY: A `spinlock_t` has one owner at a time. `relock` is the default one, which locks by `lock`.
    unsafe impl Backend for SpinLockIrqBackend {
        type State = bindings::spinlock_t;
        /// The interrupt state from before the lock was taken.
        type GuardState = usize;

        unsafe fn init(
            lock: *mut Self::State,
            name: *const c_char,
            key: *mut bindings::lock_class_key,
        ) {
            // SAFETY: The caller guarantees that `lock` is valid for writes, and the others for ever.
            unsafe { bindings::__spin_lock_init(lock, name, key) }
        }

        unsafe fn lock(lock: *mut Self::State) -> usize {
            // SAFETY: The caller guarantees that the lock was initialised.
            unsafe { bindings::xbk_spin_lock(lock) }
        }

        unsafe fn unlock(lock: *mut Self::State, flags: &usize) {
            // SAFETY: The caller owns the lock, and `flags` are what taking it returned.
            unsafe { bindings::xbk_spin_unlock(lock, *flags) }
        }

        unsafe fn try_lock(lock: *mut Self::State) -> Option<usize> {
            let mut flags = 0;
            // SAFETY: The caller guarantees that the lock was initialised, and `flags` can be written.
            unsafe { bindings::xbk_spin_trylock(lock, &mut flags) }.then_some(flags)
        }

        unsafe fn assert_is_held(lock: *mut Self::State) {
            // SAFETY: The caller guarantees that the lock was initialised.
            unsafe { bindings::spin_assert_is_held(lock) }
        }
    }
}
