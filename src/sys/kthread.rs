// SPDX-License-Identifier: GPL-2.0

//! A kernel thread that runs one function each time it is woken.
//!
//! C header: [`include/linux/kthread.h`](srctree/include/linux/kthread.h)

use core::ptr::null_mut;

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

/// What a thread runs.
pub(crate) trait ThreadFn: Send + Sync + 'static {
    /// What wakes the thread.
    fn wakeup(&self) -> &Wakeup;

    /// Does what there is to do. Context: the thread; may sleep.
    fn run(this: &Arc<Self>) -> Sleep;
}

/// How long a thread sleeps after a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sleep {
    /// Until it is woken.
    UntilWoken,
    /// Until it is woken, but no longer than so many milliseconds.
    AtMost(u32),
}

/// Wakes the thread of a [`ThreadFn`].
///
/// # Invariants
///
/// `task` is null, or came from [`ARef::into_raw`] and stands for that reference.
pub(crate) struct Wakeup {
    pending: AtomicFlag,
    task: Atomic<*mut Task>,
}

impl Wakeup {
    /// A wakeup that no thread listens to yet.
    pub(crate) fn new() -> Self {
        // INVARIANT: `task` is null.
        Self {
            pending: AtomicFlag::new(false),
            task: Atomic::new(null_mut()),
        }
    }

    /// Has the thread run once more, from the beginning: it sees what was written before this
    /// call. Without effect before the thread is started and after it has ended. Context: any.
    pub(crate) fn wake(&self) {
        // The next caller relies on this one to wake the thread, so nothing may hold this one up.
        let _guard = PreemptGuard::new();
        // A wakeup is pending already: then the thread has yet to look.
        if self.pending.xchg(true, Full) {
            return;
        }
        let task = self.task.load(Acquire);
        if !task.is_null() {
            // SAFETY: By the type invariant we have a reference to the task.
            unsafe { &*task }.wake_up();
        }
    }

    /// Tells the task to wake from now on.
    ///
    /// # Errors
    ///
    /// `EBUSY` if there is one already; then nothing changes.
    fn attach(&self, task: ARef<Task>) -> Result {
        let raw = ARef::into_raw(task).as_ptr();
        // INVARIANT: The pointer stands for the reference that `into_raw` left to us.
        if self.task.cmpxchg(null_mut(), raw, Full).is_err() {
            // SAFETY: `raw` came from `into_raw` above, and it went nowhere.
            drop(unsafe { ARef::from_raw(core::ptr::NonNull::new_unchecked(raw)) });
            return Err(EBUSY);
        }
        Ok(())
    }

    /// Was the thread woken since it asked this last?
    fn take(&self) -> bool {
        self.pending.xchg(false, Full)
    }
}

impl Drop for Wakeup {
    fn drop(&mut self) {
        if let Some(task) = core::ptr::NonNull::new(self.task.load(Acquire)) {
            // SAFETY: By the type invariant the pointer stands for a reference.
            drop(unsafe { ARef::from_raw(task) });
        }
    }
}

/// A running thread and what it runs. Drop ends the thread after its current run; it sleeps.
///
/// # Invariants
///
/// `task` runs `main::<F>` with `function` until drop; we have a reference to it.
pub(crate) struct Kthread<F: ThreadFn> {
    function: Arc<F>,
    task: *mut bindings::task_struct,
}

// SAFETY: Any thread may end another one.
unsafe impl<F: ThreadFn> Send for Kthread<F> {}
// SAFETY: A shared `Kthread` gives only its function away, which is Sync.
unsafe impl<F: ThreadFn> Sync for Kthread<F> {}

impl<F: ThreadFn> Kthread<F> {
    /// Starts a thread that `ps` shows as `name`. A function has one thread in its life. Sleeps.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; `EINTR` if the caller is being killed; `EBUSY` if the function had a thread.
    pub(crate) fn start(function: Arc<F>, name: fmt::Arguments<'_>) -> Result<Self> {
        let name = CString::try_from_fmt(name)?;
        let data = Arc::as_ptr(&function).cast_mut().cast();
        // SAFETY: `function` lives until drop has seen the thread end.
        let task = from_err_ptr(unsafe {
            bindings::xbk_thread_create(Some(main::<F>), data, name.as_char_ptr())
        })?;
        // INVARIANT: Created just now, with a reference of ours.
        let thread = Self { function, task };
        // SAFETY: By the type invariant the task is alive; `Task` is a transparent wrapper.
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
        // SAFETY: By the type invariant the thread was not stopped yet, and the reference is ours.
        unsafe { bindings::kthread_stop_put(self.task) };
    }
}

/// The body of a thread.
///
/// # Safety
///
/// `data` is an `F` in an [`Arc`] that lives as long as the thread runs.
unsafe extern "C" fn main<F: ThreadFn>(data: *mut c_void) -> c_int {
    // SAFETY: By the contract of this function.
    let function = unsafe { Arc::from_raw(data.cast::<F>().cast_const()) };
    // The reference is the creator's, who gives it back.
    let function = core::mem::ManuallyDrop::new(function);
    let mut sleep = Sleep::UntilWoken;
    loop {
        // SAFETY: No preconditions. What follows sleeps or runs, nothing else.
        unsafe { bindings::xbk_thread_prepare_to_sleep() };
        // SAFETY: This is a kernel thread.
        if unsafe { bindings::kthread_should_stop() } {
            break;
        }
        if !function.wakeup().take() {
            let most = match sleep {
                Sleep::UntilWoken => 0,
                Sleep::AtMost(ms) => ms,
            };
            // SAFETY: No preconditions.
            unsafe { bindings::xbk_thread_sleep(most) };
            function.wakeup().take();
        }
        // SAFETY: No preconditions.
        unsafe { bindings::xbk_thread_finish_sleep() };
        sleep = F::run(&function);
    }
    // SAFETY: No preconditions.
    unsafe { bindings::xbk_thread_finish_sleep() };
    0
}
