// SPDX-License-Identifier: GPL-2.0

//! What comes back to a worker: jobs that the disk has finished, answers of
//! discards.
//!
//! Lock: a spinlock that disables interrupts, because the end of an I/O takes it; a
//! leaf. Nothing in here allocates: there is room for an entry per slot of the ring.

use kernel::{
    new_spinlock_irq,
    prelude::*,
    sync::SpinLockIrq, //
};

use super::job::Job;
use super::ring::Answer;

struct State {
    jobs: KVec<KBox<Job>>,
    answers: KVec<Answer>,
    /// The worker runs and will look once more before it stops: no need to queue it.
    awake: bool,
}

/// The inbox of one worker.
#[pin_data]
pub(crate) struct Inbox {
    #[pin]
    state: SpinLockIrq<State>,
}

/// What was in an inbox. Exchanged with it, so that neither allocates.
pub(crate) struct Mail {
    /// Jobs that are finished.
    pub(super) jobs: KVec<KBox<Job>>,
    /// Answers that need nothing more.
    pub(super) answers: KVec<Answer>,
}

impl Mail {
    /// Room for what `entries` slots can bring. Sleeps.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(entries: usize) -> Result<Self> {
        Ok(Self {
            jobs: KVec::with_capacity(entries, GFP_KERNEL)?,
            answers: KVec::with_capacity(entries, GFP_KERNEL)?,
        })
    }
}

impl Inbox {
    /// An empty inbox with the room of `mail`.
    pub(crate) fn new(mail: Mail) -> impl PinInit<Self> {
        let state = State {
            jobs: mail.jobs,
            answers: mail.answers,
            awake: false,
        };
        pin_init!(Self {
            state <- new_spinlock_irq!(state, "rblkback::inbox"),
        })
    }

    /// Puts a finished job in. Returns whether the worker has to be queued. Any context.
    #[must_use]
    pub(crate) fn put_job(&self, job: KBox<Job>) -> bool {
        let mut state = self.state.lock();
        // Never full: a job is of a slot.
        let _ = state.jobs.push_within_capacity(job);
        !state.awake
    }

    /// Puts an answer in. Returns whether the worker has to be queued. Any context.
    #[must_use]
    pub(crate) fn put_answer(&self, answer: Answer) -> bool {
        let mut state = self.state.lock();
        // Never full, as above.
        let _ = state.answers.push_within_capacity(answer);
        !state.awake
    }

    /// Exchanges what is in it for `mail`, which is empty. From now on the worker is
    /// not queued for what comes, until [`Self::sleep`].
    pub(crate) fn collect(&self, mail: &mut Mail) {
        let mut state = self.state.lock();
        core::mem::swap(&mut state.jobs, &mut mail.jobs);
        core::mem::swap(&mut state.answers, &mut mail.answers);
        state.awake = true;
    }

    /// The worker stops looking, unless there is something: then returns `false`.
    pub(crate) fn sleep(&self) -> bool {
        let mut state = self.state.lock();
        state.awake = !state.jobs.is_empty() || !state.answers.is_empty();
        !state.awake
    }
}
