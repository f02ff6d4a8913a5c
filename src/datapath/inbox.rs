// SPDX-License-Identifier: GPL-2.0

//! What comes back to a worker: jobs that the disk has finished, answers of
//! discards.
//!
//! Jobs come in any context and without a lock: see [`PostBox`]. Answers of discards are
//! few and have a spinlock, process context only; a leaf. Nothing in here allocates: there
//! is room for an answer per slot of the ring.

use kernel::{
    new_spinlock,
    prelude::*,
    sync::{
        atomic::{
            ordering::{
                Full,
                Relaxed, //
            },
            AtomicFlag, //
        },
        SpinLock, //
    }, //
};

use super::job::Core;
use super::job::Job;
use super::ring::Answer;
use crate::sys::post::Letter;
use crate::sys::post::PostBox;

/// The inbox of one worker.
#[pin_data]
pub(crate) struct Inbox {
    jobs: PostBox<Core>,
    /// There are answers.
    answered: AtomicFlag,
    #[pin]
    answers: SpinLock<KVec<Answer>>,
}

impl Inbox {
    /// An empty inbox; `answers` has room for one per slot.
    pub(crate) fn new(answers: KVec<Answer>) -> impl PinInit<Self> {
        pin_init!(Self {
            jobs: PostBox::new(),
            answered: AtomicFlag::new(false),
            answers <- new_spinlock!(answers, "rblkback::inbox"),
        })
    }

    /// Puts a finished job in. Returns whether the worker has to be woken. Any context.
    #[must_use]
    pub(crate) fn put_job(&self, job: KBox<Letter<Core>>) -> bool {
        self.jobs.put(job)
    }

    /// Puts an answer in; the worker has to be woken.
    pub(crate) fn put_answer(&self, answer: Answer) {
        // Never full: an answer is of a slot.
        let _ = self.answers.lock().push_within_capacity(answer);
        self.answered.store(true, Relaxed);
    }

    /// The jobs that were put in. From now on the worker is not woken for more of them,
    /// until [`Self::sleep`].
    pub(crate) fn collect(&self) -> impl Iterator<Item = Job> {
        self.jobs.collect().map(Job::returned)
    }

    /// Exchanges the answers that were put in for `answers`, which is empty.
    pub(crate) fn collect_answers(&self, answers: &mut KVec<Answer>) {
        if self.answered.load(Relaxed) && self.answered.xchg(false, Full) {
            core::mem::swap(&mut *self.answers.lock(), answers);
        }
    }

    /// The worker stops looking, unless there are jobs: then returns `false`.
    pub(crate) fn sleep(&self) -> bool {
        self.jobs.sleep()
    }
}
