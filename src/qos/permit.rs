// SPDX-License-Identifier: GPL-2.0

//! The right of a request to go to the device.
//!
//! Only the [`Gate`](super::gate::Gate) makes permits, and a bio is only made of a request that
//! has one.

use crate::logic::tokens::admission::Charge;

/// The right of one request to go to the device.
#[must_use]
pub(crate) struct Permit {
    /// What the request costs depends on its size.
    pub(super) size_priced: bool,
}

/// How a batch of permits was paid for.
#[derive(Clone, Copy)]
pub(super) enum Payment {
    /// Without a limit, permits cost nothing.
    Free,
    /// With tokens that were there.
    Tokens(Charge),
    /// With tokens that may not be there yet; `None` without a limit.
    Credit(Option<Charge>),
}

/// The rights of several requests of one ring.
#[must_use]
pub(crate) struct PermitBatch {
    pub(super) left: u32,
    pub(super) payment: Payment,
    pub(super) size_priced: bool,
}

impl PermitBatch {
    /// `left` permits that cost nothing.
    pub(super) fn free(left: u32) -> Self {
        Self {
            left,
            payment: Payment::Free,
            size_priced: false,
        }
    }

    /// Do they cost nothing, because there is no limit?
    pub(crate) fn is_free(&self) -> bool {
        matches!(self.payment, Payment::Free)
    }

    /// Takes one permit out, if there is one left.
    pub(crate) fn next(&mut self) -> Option<Permit> {
        self.left = self.left.checked_sub(1)?;
        Some(Permit {
            size_priced: self.size_priced,
        })
    }

    /// Puts a permit back that was not used.
    pub(crate) fn put_back(&mut self, _permit: Permit) {
        self.left = self.left.saturating_add(1);
    }

    /// How many permits are left that were given on credit.
    pub(crate) fn on_credit(&self) -> u32 {
        match self.payment {
            Payment::Credit(_) => self.left,
            Payment::Free | Payment::Tokens(_) => 0,
        }
    }
}
