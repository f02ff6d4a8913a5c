// SPDX-License-Identifier: GPL-2.0

//! A kernel thread that does one thing whenever it is rung for.
//!
//! C header: [`include/linux/kthread.h`](srctree/include/linux/kthread.h)

use core::ptr::null_mut;

use kernel::{
    bindings,
    error::from_err_ptr,
    fmt,
    prelude::*,
    str::CString,
    sync::{
        atomic::{
            ordering::{
                Acquire,
                Full,
                Release, //
            },
            Atomic,
            AtomicFlag, //
        },
        Arc, //
    },
    types::NotThreadSafe, //
};

use super::helpers;

/// What a thread does.
pub(crate) trait Duty: Send + Sync + 'static {
    /// What wakes the thread.
    fn bell(&self) -> &Bell;

    /// Does what there is to do. May sleep.
    fn run(this: &Arc<Self>) -> Next;
}

/// What a thread does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// It waits until somebody rings.
    Wait,
    /// As that, but no longer than so many milliseconds.
    WaitAtMost(u32),
}

/// The current task is not preempted while this lives. A grace period of RCU does not end
/// meanwhile, either. Nothing may sleep.
pub(crate) struct Uninterrupted(NotThreadSafe);

impl Uninterrupted {
    /// From here on.
    pub(crate) fn new() -> Self {
        // SAFETY: No preconditions; undone once, in `drop`, by the same task.
        unsafe { helpers::xbk_preempt_disable() };
        Self(NotThreadSafe)
    }
}

impl Drop for Uninterrupted {
    fn drop(&mut self) {
        // SAFETY: Disabled in `new` by this task.
        unsafe { helpers::xbk_preempt_enable() };
    }
}

/// Wakes the thread of a [`Duty`].
///
/// # Invariants
///
/// `task` is null or a task of which we hold a reference.
pub(crate) struct Bell {
    rung: AtomicFlag,
    task: Atomic<*mut bindings::task_struct>,
}

impl Bell {
    /// A bell that nobody hears yet.
    pub(crate) fn new() -> Self {
        Self {
            rung: AtomicFlag::new(false),
            task: Atomic::new(null_mut()),
        }
    }

    /// Has the thread run once more, from the beginning: whatever was written before is
    /// seen by it. Without effect before it is started and after it has ended. Any
    /// context.
    pub(crate) fn ring(&self) {
        // Whoever rings next relies on the one before, who must not be held up here.
        let _here = Uninterrupted::new();
        // Rung already: then the thread has yet to look.
        if self.rung.xchg(true, Full) {
            return;
        }
        let task = self.task.load(Acquire);
        if !task.is_null() {
            // SAFETY: By the type invariant; a task that has ended is left alone.
            unsafe { bindings::wake_up_process(task) };
        }
    }

    /// Was it rung since this was asked last?
    fn answer(&self) -> bool {
        self.rung.xchg(false, Full)
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        let task = self.task.load(Acquire);
        if !task.is_null() {
            // SAFETY: By the type invariant. Its thread has ended: see `Thread`.
            unsafe { helpers::xbk_task_put(task) };
        }
    }
}

/// A running thread and its duty. Drop ends it, after its current run; sleeps.
///
/// # Invariants
///
/// `task` runs `main::<D>` with the duty, until drop; we hold a reference to it.
pub(crate) struct Thread<D: Duty> {
    duty: Arc<D>,
    task: *mut bindings::task_struct,
}

// SAFETY: A thread may be ended by any other one.
unsafe impl<D: Duty> Send for Thread<D> {}
// SAFETY: A shared `Thread` gives only its duty away, which is Sync.
unsafe impl<D: Duty> Sync for Thread<D> {}

impl<D: Duty> Thread<D> {
    /// Starts a thread that shows up as `name`. One for each duty. Sleeps.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; `EINTR` if the caller is being killed; `EBUSY` if the duty has a thread.
    pub(crate) fn start(duty: Arc<D>, name: fmt::Arguments<'_>) -> Result<Self> {
        let name = CString::try_from_fmt(name)?;
        if !duty.bell().task.load(Acquire).is_null() {
            return Err(EBUSY);
        }
        let data = Arc::as_ptr(&duty).cast_mut().cast();
        // SAFETY: `duty` lives until drop has seen the thread end.
        let task = from_err_ptr(unsafe {
            helpers::xbk_thread_create(Some(main::<D>), data, name.as_char_ptr())
        })?;
        // SAFETY: Created just now, with a reference of ours.
        unsafe { helpers::xbk_task_get(task) };
        // INVARIANT: The reference just taken is the bell's.
        duty.bell().task.store(task, Release);
        // SAFETY: Created just now.
        unsafe { bindings::wake_up_process(task) };
        // INVARIANT: Started just now; the helper took a reference.
        Ok(Self { duty, task })
    }
}

impl<D: Duty> core::ops::Deref for Thread<D> {
    type Target = Arc<D>;

    fn deref(&self) -> &Arc<D> {
        &self.duty
    }
}

impl<D: Duty> Drop for Thread<D> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant, a thread of ours that was not stopped, and a
        // reference.
        unsafe { bindings::kthread_stop_put(self.task) };
    }
}

/// The body of a thread.
///
/// # Safety
///
/// `data` is a `D` in an [`Arc`] that lives as long as the thread runs.
unsafe extern "C" fn main<D: Duty>(data: *mut c_void) -> c_int {
    // SAFETY: By the contract.
    let duty = unsafe { Arc::from_raw(data.cast::<D>().cast_const()) };
    // The reference is the caller's, who gives it back.
    let duty = core::mem::ManuallyDrop::new(duty);
    let mut next = Next::Wait;
    loop {
        // SAFETY: No preconditions; what follows sleeps or runs, nothing else.
        unsafe { helpers::xbk_thread_drowse() };
        // SAFETY: This is a kernel thread.
        if unsafe { bindings::kthread_should_stop() } {
            break;
        }
        if !duty.bell().answer() {
            let most = match next {
                Next::Wait => 0,
                Next::WaitAtMost(ms) => ms,
            };
            // SAFETY: No preconditions.
            unsafe { helpers::xbk_thread_sleep(most) };
            duty.bell().answer();
        }
        // SAFETY: No preconditions.
        unsafe { helpers::xbk_thread_rouse() };
        next = D::run(&duty);
    }
    // SAFETY: No preconditions.
    unsafe { helpers::xbk_thread_rouse() };
    0
}
