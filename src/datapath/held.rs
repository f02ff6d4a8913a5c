// SPDX-License-Identifier: GPL-2.0

//! What a job has of a frame that it needs.
//!
//! [`mapper`](super::mapper) decides which of these it is to be; [`keeper`](super::keeper)
//! and [`copier`](super::copier) bring it.

use crate::logic::persistent::Place;
use crate::xenbus::copy::Buffer;
use crate::xenbus::grant::IoPage;
use crate::xenbus::grant::Loan;
use crate::xenbus::grant::Mapped;

/// A frame that a job works on.
pub(crate) enum Held {
    /// Not mapped yet, or refused.
    Missing,
    /// Not copied yet.
    Expected,
    /// Mapped for this job alone.
    Own(Mapped),
    /// Stays mapped after it.
    Shared(Place, Loan),
    /// Stands in for the frame.
    Copied(Buffer),
}

impl Held {
    /// The page, once it is there.
    pub(crate) fn page(&self) -> Option<IoPage<'_>> {
        match self {
            Self::Missing | Self::Expected => None,
            Self::Own(mapped) => Some(mapped.page()),
            Self::Shared(_, loan) => Some(loan.page()),
            Self::Copied(buffer) => Some(buffer.page()),
        }
    }

    /// Must the answer wait, because somebody still looks at a page that is to be
    /// unmapped?
    pub(crate) fn is_used(&self) -> bool {
        matches!(self, Self::Own(mapped) if mapped.is_used())
    }
}
