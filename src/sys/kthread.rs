// SPDX-License-Identifier: GPL-2.0

//! Kernel threads that run one function each time they are woken. They freeze with the
//! system, between two runs: devices are suspended then and must not get I/O.
//!
//! C header: [`include/linux/kthread.h`](srctree/include/linux/kthread.h)

use core::{
    mem::ManuallyDrop,
    ptr::{
        null_mut,
        NonNull, //
    }, //
};

use kernel::{
    error::from_err_ptr,
    fmt,
    prelude::*,
    str::CString,
    sync::{
        aref::ARef,
        atomic::{
            ordering::{
                Acquire,
                Full, //
            },
            Atomic,
            AtomicFlag, //
        },
        Arc, //
    },
    task::Task, //
};

use super::bindings;
use super::preempt::PreemptGuard;

/// The function and the data of a thread.
pub(crate) trait ThreadFn: Send + Sync + 'static {
    /// Returns the object that wakes the thread. It must be the same one at each call.
    fn wakeup(&self) -> &Wakeup;

    /// Does the pending work, and returns how long the thread sleeps afterwards.
    ///
    /// Context: the thread. May sleep.
    fn run(this: &Arc<Self>) -> Sleep;
}

/// How long a thread sleeps after a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sleep {
    /// Until it is woken.
    UntilWoken,
    /// Until it is woken, but at most this number of milliseconds. 0 has no limit.
    AtMost(u32),
}

/// Wakes the thread of a [`ThreadFn`].
///
/// # Invariants
///
/// `task` is null, or came from [`ARef::into_raw`] and owns a reference. Once it is not null it
/// does not change until drop.
pub(crate) struct Wakeup {
    /// Whether the thread was woken since its last [`Self::take`].
    pending: AtomicFlag,
    task: Atomic<*mut Task>,
}

impl Wakeup {
    /// Creates a wakeup without a thread.
    pub(crate) fn new() -> Self {
        // INVARIANT: `task` is null.
        Self {
            pending: AtomicFlag::new(false),
            task: Atomic::new(null_mut()),
        }
    }

    /// Has the thread run its function once more. That run sees all writes before this call.
    ///
    /// A thread that is not started yet runs the function when it starts. After the end of the
    /// thread the call has no effect.
    ///
    /// Context: any.
    pub(crate) fn wake(&self) {
        // Later callers return at once and rely on this one to wake the thread, so this one must
        // not be preempted before it has done so.
        let _guard = PreemptGuard::new();
        // If a wakeup is pending, the thread has not begun the run yet.
        if self.pending.xchg(true, Full) {
            return;
        }
        let task = self.task.load(Acquire);
        if !task.is_null() {
            // SAFETY: By the type invariant `task` owns a reference until `self` is dropped.
            unsafe { &*task }.wake_up();
        }
    }

    /// Sets the task that [`Self::wake`] wakes.
    ///
    /// # Errors
    ///
    /// `EBUSY` if a task is set already.
    fn attach(&self, task: ARef<Task>) -> Result {
        let raw = core::ptr::from_ref::<Task>(&task).cast_mut();
        // INVARIANT: On success the pointer takes over the reference of `task`.
        if self.task.cmpxchg(null_mut(), raw, Full).is_err() {
            return Err(EBUSY);
        }
        // This ends `task` without giving its reference up. It returns `raw`.
        let _ = ARef::into_raw(task);
        Ok(())
    }

    /// Runs `f` in the I/O context of the thread: what `f` sends to a device counts for the thread's
    /// cgroup and has its I/O priority.
    ///
    /// Context: a work item, outside of another such call. May sleep.
    pub(crate) fn in_io_context<R>(&self, f: impl FnOnce() -> R) -> R {
        let task = self.task.load(Acquire);
        if task.is_null() {
            return f();
        }
        // SAFETY: By the type invariant `task` owns a reference until `self` is dropped. `Task` is a
        // transparent wrapper.
        unsafe { bindings::xbk_io_context_adopt(task.cast()) };
        let outcome = f();
        // SAFETY: The call has no preconditions.
        unsafe { bindings::xbk_io_context_reset() };
        outcome
    }

    /// Clears the pending wakeup, and returns whether there was one.
    fn take(&self) -> bool {
        self.pending.xchg(false, Full)
    }
}

impl Drop for Wakeup {
    fn drop(&mut self) {
        if let Some(task) = NonNull::new(self.task.load(Acquire)) {
            // SAFETY: By the type invariant `task` owns a reference, which is given up here.
            drop(unsafe { ARef::from_raw(task) });
        }
    }
}

/// A running thread and its function.
///
/// Drop ends the thread after its current run, and sleeps until then.
///
/// # Invariants
///
/// `task` is a thread that runs `main::<F>` with `function` until drop. This object owns a
/// reference to the task.
pub(crate) struct Kthread<F: ThreadFn> {
    function: Arc<F>,
    task: *mut bindings::task_struct,
}

// SAFETY: Any thread may stop a kernel thread. `F` is `Send` and `Sync`, so `Arc<F>` is `Send`.
unsafe impl<F: ThreadFn> Send for Kthread<F> {}
// SAFETY: A shared `Kthread` gives access only to its function, which is `Sync`.
unsafe impl<F: ThreadFn> Sync for Kthread<F> {}

impl<F: ThreadFn> Kthread<F> {
    /// Starts a thread with the name `name`. A function can have one thread during its lifetime.
    ///
    /// Context: process; sleeps.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; `EINTR` if the caller is being killed; `EBUSY` if `function` has or had a thread.
    pub(crate) fn start(function: Arc<F>, name: fmt::Arguments<'_>) -> Result<Self> {
        let name = CString::try_from_fmt(name)?;
        let data = Arc::as_ptr(&function).cast_mut().cast();
        // SAFETY: `data` is an `F` in an `Arc`. The thread runs `main::<F>` with it at most until
        // the drop of the `Kthread` below, which keeps `function` alive until the thread has ended.
        let task = from_err_ptr(unsafe {
            bindings::xbk_thread_create(Some(main::<F>), data, name.as_char_ptr())
        })?;
        // INVARIANT: The call above has created the thread, and returned a reference.
        let thread = Self { function, task };
        // SAFETY: `thread` owns a reference to the task. `Task` is a transparent wrapper.
        let task = unsafe { &*task.cast::<Task>() };
        thread.function.wakeup().attach(task.into())?;
        task.wake_up();
        Ok(thread)
    }
}

impl<F: ThreadFn> core::ops::Deref for Kthread<F> {
    type Target = Arc<F>;

    fn deref(&self) -> &Arc<F> {
        &self.function
    }
}

impl<F: ThreadFn> Drop for Kthread<F> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the thread has not been stopped, and this object owns a
        // reference to the task, which the call gives up.
        unsafe { bindings::kthread_stop_put(self.task) };
    }
}

/// The C thread function.
///
/// # Safety
///
/// The current task must be a kernel thread. `data` must point to an `F` in an [`Arc`] that has a
/// reference for as long as the thread runs.
unsafe extern "C" fn main<F: ThreadFn>(data: *mut c_void) -> c_int {
    // SAFETY: The caller guarantees that `data` is in an `Arc` with a reference. `ManuallyDrop`
    // leaves that reference to the `Kthread`, which owns it.
    let function = ManuallyDrop::new(unsafe { Arc::from_raw(data.cast::<F>().cast_const()) });
    // SAFETY: The caller guarantees that this is a kernel thread, and it has just begun.
    unsafe { bindings::xbk_thread_begin() };
    let mut sleep = Sleep::UntilWoken;
    loop {
        // The task state is set before the checks, so a wakeup after them ends the sleep.
        //
        // SAFETY: The caller guarantees that this is a kernel thread.
        let should_stop = unsafe {
            bindings::xbk_thread_prepare_to_sleep();
            bindings::kthread_should_stop()
        };
        if should_stop {
            break;
        }
        if !function.wakeup().take() {
            let max_ms = match sleep {
                Sleep::UntilWoken => 0,
                Sleep::AtMost(ms) => ms,
            };
            // SAFETY: The call has no preconditions.
            unsafe { bindings::xbk_thread_sleep(max_ms) };
            function.wakeup().take();
        }
        // SAFETY: The call has no preconditions.
        unsafe { bindings::xbk_thread_finish_sleep() };
        sleep = F::run(&function);
    }
    // SAFETY: The call has no preconditions.
    unsafe { bindings::xbk_thread_finish_sleep() };
    0
}
