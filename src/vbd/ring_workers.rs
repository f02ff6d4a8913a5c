// SPDX-License-Identifier: GPL-2.0

//! The workers of a disk's rings, with their threads.
//!
//! They stay when the frontend connects anew, and go with the disk: an administrator may have given a
//! thread a cgroup, a priority or a processor, as the guest's limit or share of the host.
//!
//! Context: the disk's work item.

use kernel::{
    prelude::*,
    sync::Arc, //
};

use crate::datapath::disk_context::DiskContext;
use crate::datapath::disk_context::DiskEvents;
use crate::datapath::worker::Worker;
use crate::logic::ids::RingId;
use crate::logic::vdev::VdevName;
use crate::sys::compat::synchronize_rcu;
use crate::sys::kthread::Kthread;
use crate::sys::trace::TraceId;

/// The workers of a disk: that of ring `n` has number `n`.
pub(super) struct RingWorkers {
    workers: KVec<Arc<Worker>>,
    /// Of the first workers, by number.
    threads: KVec<Kthread<Worker>>,
}

impl RingWorkers {
    /// None yet.
    pub(super) const fn new() -> Self {
        Self {
            workers: KVec::new(),
            threads: KVec::new(),
        }
    }

    /// Makes space for `count` workers. Sleeps.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(super) fn reserve(&mut self, count: usize) -> Result {
        grow(&mut self.workers, count)?;
        grow(&mut self.threads, count)
    }

    /// The worker of ring `number`, made if there is none. Rings are asked for by number, beginning with
    /// 0. Sleeps.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, also if [`Self::reserve`] was asked for fewer.
    pub(super) fn worker(
        &mut self,
        context: &Arc<DiskContext>,
        events: &Arc<dyn DiskEvents>,
        number: RingId,
    ) -> Result<Arc<Worker>> {
        if let Some(worker) = self.workers.get(usize::from(number)) {
            return Ok(worker.clone());
        }
        let worker = Worker::new(context.clone(), events.clone(), number)?;
        self.workers
            .push_within_capacity(worker.clone())
            .map_err(|_| ENOMEM)?;
        Ok(worker)
    }

    /// Starts the threads that are not there yet. Sleeps.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(super) fn start_threads(&mut self, context: &DiskContext) -> Result {
        let started = self.threads.len();
        for (number, worker) in (0..=RingId::MAX).zip(&self.workers).skip(started) {
            let thread = start_thread(context, worker.clone(), number)?;
            self.threads
                .push_within_capacity(thread)
                .map_err(|_| ENOMEM)?;
        }
        Ok(())
    }

    /// Ends all but the first `count`. None of the others may be connected. Sleeps.
    pub(super) fn truncate(&mut self, count: usize) {
        if self.workers.len() <= count {
            return;
        }
        while self.threads.len() > count {
            drop(self.threads.pop());
        }
        // An end of I/O may still have a reference, see `Worker::release`.
        synchronize_rcu();
        while self.workers.len() > count {
            drop(self.workers.pop());
        }
    }
}

/// Gives a vector the capacity for `count` entries.
fn grow<T>(entries: &mut KVec<T>, count: usize) -> Result {
    if entries.capacity() < count {
        let mut larger = KVec::with_capacity(count, GFP_KERNEL)?;
        for entry in entries.drain_all() {
            // The larger one has capacity for all of them.
            let _ = larger.push_within_capacity(entry);
        }
        *entries = larger;
    }
    Ok(())
}

/// Starts the thread of a worker. Its name is the one that xen-blkback gives it, which scripts know,
/// and which differs from all others within the 15 characters that most tools show.
fn start_thread(
    context: &DiskContext,
    worker: Arc<Worker>,
    number: RingId,
) -> Result<Kthread<Worker>> {
    let TraceId { domain, device } = context.gate.trace_id();
    Kthread::start(worker, fmt!("{}.{}-{}", domain, VdevName(device), number))
}
