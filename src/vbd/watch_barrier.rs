// SPDX-License-Identifier: GPL-2.0

//! Keeps the module's code until the callbacks of its xenstore watches have returned.
//!
//! A watch can only be registered when xenstored runs, and the module may be loaded before that.
//! So the barrier is made when the first device is probed, which xenstored has to be there for.

use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        Arc,
        Mutex, //
    }, //
};

use crate::sys::global::Global;
use crate::sys::global::Installed;
use crate::xenbus::watch::Barrier;

#[pin_data]
struct Holder {
    #[pin]
    barrier: Mutex<Option<Barrier>>,
}

static HOLDER: Global<Holder> = Global::new();

/// Keeps the barrier. Drop waits for a callback that runs; it sleeps. To be dropped after the
/// module's driver is unregistered.
pub(crate) struct WatchBarrier(#[expect(dead_code, reason = "for its drop")] Installed<Holder>);

impl WatchBarrier {
    /// A place for the barrier. The module calls this once, before it registers its driver. Talks
    /// to nobody; sleeps.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; `EBUSY` if there is one already.
    pub(crate) fn new() -> Result<Self> {
        let holder = pin_init!(Holder {
            barrier <- new_mutex!(None, "rblkback::watch_barrier"),
        });
        Ok(Self(HOLDER.install(Arc::pin_init(holder, GFP_KERNEL)?)?))
    }
}

/// Makes the barrier unless it is there. To be called before the first watch of a device. Talks to
/// xenstored; sleeps.
///
/// # Errors
///
/// `ENOMEM`; what xenstored answers; `ENODEV` if the module is on its way out.
pub(super) fn arm() -> Result {
    let holder = HOLDER.get().ok_or(ENODEV)?;
    let mut barrier = holder.barrier.lock();
    if barrier.is_none() {
        *barrier = Some(Barrier::new()?);
    }
    Ok(())
}
