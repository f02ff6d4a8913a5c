// SPDX-License-Identifier: GPL-2.0

//! The worker of one ring: what its thread runs, and how long it lives.
//!
//! Whatever happens (an event of the guest, a token, the end of an I/O) only wakes the thread. Its
//! [`Engine`] then looks at everything.
//!
//! Lock: `engine`, a mutex. The thread holds it while it runs, the disk's work item while it
//! connects or disconnects. The locks of the completions, of the queue of discards and of the gate
//! are taken under it.
//!
//! Lifetime: a worker has one ring after the other, because its thread stays when the frontend connects
//! anew: an administrator may have given the thread a cgroup or a priority. While a ring is
//! connected, the event channel and the memory of each request have a reference to its
//! [`Completions`](super::completions::Completions), and so has the gate. [`Worker::release`]
//! drops those of the first two; it may only be called once [`RingControl::is_drained`].

use core::ops::Deref;

use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        Arc,
        Mutex, //
    }, //
};

use super::disk_context::DiskContext;
use super::disk_context::DiskEvents;
use super::engine::Engine;
use super::engine::RingSetup;
use super::ring_control::RingControl;
use crate::logic::ids::RingId;
use crate::logic::protocol::index::Overrun;
use crate::qos::gate::RingWaker;
use crate::sys::kthread::Sleep;
use crate::sys::kthread::ThreadFn;
use crate::sys::kthread::Wakeup;

/// The worker of one ring.
#[pin_data]
pub(crate) struct Worker {
    control: Arc<RingControl>,
    #[pin]
    engine: Mutex<Option<KBox<Engine>>>,
}

impl ThreadFn for Worker {
    fn wakeup(&self) -> &Wakeup {
        self.control.completions.wakeup()
    }

    fn run(this: &Arc<Self>) -> Sleep {
        let mut engine = this.engine.lock();
        match &mut *engine {
            Some(engine) => engine.run(&this.control),
            None => Sleep::UntilWoken,
        }
    }
}

impl Worker {
    /// A worker for ring `number` of `disk`, which is not connected yet. Sleeps.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(
        disk: Arc<DiskContext>,
        events: Arc<dyn DiskEvents>,
        number: RingId,
    ) -> Result<Arc<Self>> {
        let control = RingControl::new(disk, events, number)?;
        let worker = pin_init!(Self {
            control,
            engine <- new_mutex!(None, "rblkback::engine"),
        });
        Arc::pin_init(worker, GFP_KERNEL)
    }

    /// What the gate wakes.
    pub(crate) fn waker(&self) -> Arc<dyn RingWaker> {
        self.control.completions.clone()
    }

    /// Connects the worker to a ring and its event channel. Sleeps.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, or why the event channel cannot be bound.
    pub(crate) fn connect(&self, setup: RingSetup) -> Result {
        let mut engine = self.engine.lock();
        self.control.reset();
        *engine = Some(Engine::new(&self.control, setup)?);
        Ok(())
    }

    /// Has the ring begin where it stands. To be called when the event channels of all rings of the
    /// disk are bound: a driver that had the ring before keeps its channel until it has written its
    /// last response. Sleeps.
    ///
    /// # Errors
    ///
    /// [`Overrun`] if the ring holds impossible indices.
    pub(crate) fn attach(&self) -> Result<(), Overrun> {
        match &mut *self.engine.lock() {
            Some(engine) => engine.attach(&self.control),
            None => Ok(()),
        }
    }

    /// Unmaps the ring and closes the event channel. An end of I/O that handed in the last request
    /// may still have a reference to the completions; the caller waits for an RCU grace period
    /// before it drops the worker. Sleeps.
    pub(crate) fn release(&self) {
        let engine = self.engine.lock().take();
        // It refers to the ring and to the event channel.
        self.control.completions.responses().disconnect();
        drop(engine);
    }
}

impl Deref for Worker {
    type Target = RingControl;

    fn deref(&self) -> &RingControl {
        &self.control
    }
}
