// SPDX-License-Identifier: GPL-2.0

//! What a request has of a frame that it needs.
//!
//! [`mapper`](super::mapper) decides which of these it is;
//! [`persistent_grants`](super::persistent_grants) and [`copier`](super::copier) provide it.

use kernel::page::BorrowedPage;

use crate::logic::persistent::EntryIndex;
use crate::xenbus::copy::Buffer;
use crate::xenbus::grant::Mapped;
use crate::xenbus::grant::MappedRef;

/// A frame that a request works on.
pub(crate) enum Frame {
    /// The frame is not mapped yet, or Xen refused it.
    Missing,
    /// This domain has no space for another mapping now.
    NoSpace,
    /// The frame is not copied yet.
    CopyPending,
    /// The frame is mapped for this request alone.
    Own(Mapped),
    /// The frame stays mapped after the request.
    Persistent(EntryIndex, MappedRef),
    /// A page of ours stands in for the frame.
    Copied(Buffer),
}

impl Frame {
    /// The page, once it is there.
    pub(crate) fn page(&self) -> Option<BorrowedPage<'_>> {
        match self {
            Self::Missing | Self::NoSpace | Self::CopyPending => None,
            Self::Own(mapped) => Some(mapped.page()),
            Self::Persistent(_, mapped) => Some(mapped.page()),
            Self::Copied(buffer) => Some(buffer.page()),
        }
    }

    /// Does this kernel still use a page that is to be unmapped before the response?
    pub(crate) fn is_page_used(&self) -> bool {
        matches!(self, Self::Own(mapped) if mapped.is_used())
    }
}
