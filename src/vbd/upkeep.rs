// SPDX-License-Identifier: GPL-2.0

//! What a disk needs now and then: a size that changed is told, grants that nobody uses
//! any more are unmapped, what memory can be spared is given back.

#![forbid(unsafe_code)]

use kernel::{
    prelude::*,
    sync::{
        atomic::ordering::{
            Full,
            Relaxed, //
        },
        Arc, //
    }, //
};

use super::State;
use super::Vbd;
use crate::disk::Disk;
use crate::features;
use crate::logic::lifecycle::Phase;
use crate::sys::params;
use crate::sys::rounds::Member;

/// Every how many rounds (of a second) a disk looks for grants that are not used any
/// more, and writes its statistics to the log if it should.
const ROUNDS: u32 = 10;

impl Vbd {
    /// What a connected disk needs now and then.
    pub(super) fn keep_up(&self, state: &mut State) {
        let (Some(link), Some(disk)) = (&state.link, &state.disk) else {
            return;
        };
        if self.unbound.load(Relaxed) || state.phase != Phase::Connected {
            return;
        }
        self.optional.withdraw(self.nodename());
        if self.squeezed.xchg(false, Full) {
            link.squeeze();
        }
        if self.expiring.xchg(false, Full) {
            link.tidy();
        }
        if self.logging.xchg(false, Full) {
            pr_info!("{}: {}\n", self.nodename(), self.stats);
        }
        if self.publishing.xchg(false, Full) {
            self.publish_numbers();
        }
        self.tell_size(disk);
    }

    /// Tells the frontend when the disk's size is not what it was told.
    fn tell_size(&self, disk: &Disk) {
        let sectors = disk.sectors();
        let told = self.shown.lock().as_ref().map(|shown| shown.sectors);
        // It writes our state once more, which must not undo a Closing.
        if told == Some(sectors) || !self.dev.is_connected() {
            return;
        }
        // If it cannot be written now, the next round tries again.
        if features::resize(self, sectors).is_err() {
            return;
        }
        let mut shown = self.shown.lock();
        if let Some(shown) = &mut *shown {
            shown.sectors = sectors;
        }
    }
}

impl Member for Vbd {
    fn visit(self: Arc<Self>) {
        let shown = self.shown.lock();
        let Some(shown) = &*shown else {
            return;
        };
        let round = self.rounds.fetch_add(1, Relaxed);
        let due = round % ROUNDS == 0;
        let expire = due && self.kept.load(Relaxed) > 0;
        let log = due && params::log_stats() != 0;
        if expire {
            self.expiring.store(true, Relaxed);
        }
        if log {
            self.logging.store(true, Relaxed);
        }
        let publish = match self.publish.load(Relaxed) {
            0 => false,
            every => round % every == 0,
        };
        if publish {
            self.publishing.store(true, Relaxed);
        }
        if expire || log || publish || shown.disk.sectors() != shown.sectors {
            self.kick();
        }
    }

    fn squeeze(self: Arc<Self>) {
        // Asked whenever the kernel looks for memory, which may be all the time. What was
        // given back comes again only with the guest's next requests.
        let round = self.rounds.load(Relaxed);
        let before = self.squeezed_in.xchg(round, Relaxed);
        if before != round && self.shown.lock().is_some() {
            self.squeezed.store(true, Relaxed);
            self.kick();
        }
    }

    fn domain(&self) -> u16 {
        self.frontend_id()
    }

    fn name(&self) -> &CStr {
        self.nodename()
    }
}
