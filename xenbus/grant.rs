// SPDX-License-Identifier: GPL-2.0

//! Grant mapping: frames that the other domain grants, mapped at pages of this domain.
//!
//! A hypercall costs more than a single map or unmap, so both are batched. A [`Mapped`] stands for
//! one mapped frame. Its owner passes it to an [`UnmapBatch`] only when no other part of this
//! kernel has a reference to the page any more ([`Mapped::is_used`]): some block drivers keep one
//! for a while after they have completed the bio.
//!
//! ```text
//! PageCache --MapBatch--> Mapped --UnmapBatch--> PageCache
//!                         |    ^
//!                         v    |
//!                          MappedRef
//! ```
//!
//! C header: [`include/xen/grant_table.h`](srctree/include/xen/grant_table.h)

use core::ptr::{
    null_mut,
    NonNull, //
};

use kernel::{
    page::BorrowedPage,
    prelude::*, //
};

use super::bindings;
use super::page_cache::PageCache;

/// A granted frame that is mapped at a page of this domain.
///
/// Drop does not unmap the frame: a `Mapped` that is not passed to an [`UnmapBatch`] leaks the
/// mapping and the page.
///
/// # Invariants
///
/// `page` came from a [`PageCache`], and a granted frame is mapped there with `handle`. At most
/// `users` [`MappedRef`]s to the page exist.
#[must_use]
#[derive(Debug)]
pub(crate) struct Mapped {
    page: NonNull<bindings::page>,
    handle: u32,
    users: u32,
}

/// A reference to a [`Mapped`] frame. The frame is not unmapped until [`Mapped::put`] has taken the
/// reference back.
///
/// # Invariants
///
/// The [`Mapped`] of `page` counts this reference in `users`.
#[must_use]
#[derive(Debug)]
pub(crate) struct MappedRef {
    page: NonNull<bindings::page>,
}

// SAFETY: The page is not bound to a thread.
unsafe impl Send for MappedRef {}
// SAFETY: The methods of a shared `MappedRef` only return the page.
unsafe impl Sync for MappedRef {}

impl MappedRef {
    /// Returns the page for I/O.
    pub(crate) fn page(&self) -> BorrowedPage<'_> {
        // SAFETY: By the type invariant the `Mapped` counts this reference, and `UnmapBatch::push`
        // accepts no `Mapped` with users. So the page stays valid and mapped while `self` exists.
        unsafe { BorrowedPage::from_raw(self.page) }
    }
}

// SAFETY: Neither the page nor the handle is bound to a thread.
unsafe impl Send for Mapped {}
// SAFETY: The methods of a shared `Mapped` only return the page or read its reference count, which
// is atomic.
unsafe impl Sync for Mapped {}

impl Mapped {
    /// Returns the page for I/O.
    pub(crate) fn page(&self) -> BorrowedPage<'_> {
        // SAFETY: By the type invariant the page is valid and mapped. `UnmapBatch::push` takes
        // `self` by value, so the page stays so while `self` is borrowed.
        unsafe { BorrowedPage::from_raw(self.page) }
    }

    /// Takes a reference. The frame is not unmapped until [`Self::put`] has taken it back.
    pub(crate) fn get(&mut self) -> MappedRef {
        // The count does not saturate: there is at most one reference per segment of each request
        // in flight.
        self.users = self.users.saturating_add(1);
        // INVARIANT: `users` counts the new reference.
        MappedRef { page: self.page }
    }

    /// Takes a reference back. Does nothing with a reference to another frame, which its own
    /// [`Mapped`] still counts.
    pub(crate) fn put(&mut self, user: MappedRef) {
        if user.page == self.page {
            // INVARIANT: `user` no longer exists after this function.
            self.users = self.users.saturating_sub(1);
        }
    }

    /// Returns the C page. The frame is mapped there while `self` is borrowed.
    pub(super) fn as_page(&self) -> *mut bindings::page {
        self.page.as_ptr()
    }

    /// Returns whether another part of this kernel has a reference to the page.
    ///
    /// Context: any.
    pub(crate) fn is_used(&self) -> bool {
        // SAFETY: By the type invariant the page is valid.
        unsafe { bindings::xbk_page_is_used(self.page.as_ptr()) }
    }
}

/// Grants that one hypercall maps.
///
/// Drop leaks the pages of grants that [`Self::run`] has not mapped.
///
/// # Invariants
///
/// `ops` and `pages` have the same length and the same capacity. The pages came from a
/// [`PageCache`], nothing is mapped there, and each belongs to the operation at the same index.
pub(crate) struct MapBatch {
    ops: KVec<bindings::gnttab_map_grant_ref>,
    pages: KVec<*mut bindings::page>,
}

// SAFETY: The batch owns its memory and its pages, and neither is bound to a thread.
unsafe impl Send for MapBatch {}

impl MapBatch {
    /// Creates a batch with capacity for `capacity` grants. Sleeps.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(capacity: usize) -> Result<Self> {
        // INVARIANT: Both vectors are empty and have the same capacity.
        Ok(Self {
            ops: KVec::with_capacity(capacity, GFP_KERNEL)?,
            pages: KVec::with_capacity(capacity, GFP_KERNEL)?,
        })
    }

    /// Returns how many more grants the batch has capacity for.
    pub(crate) fn remaining(&self) -> usize {
        self.ops.capacity().saturating_sub(self.ops.len())
    }

    /// Returns whether the batch has no grants.
    pub(crate) fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// Adds the frame that `domain` grants with `gref`. It is mapped read-only unless `writable`.
    ///
    /// Context: process; may sleep.
    ///
    /// # Errors
    ///
    /// `ENOMEM` if `cache` has no page, or if the batch is full.
    pub(crate) fn push(
        &mut self,
        cache: &PageCache,
        domain: u16,
        gref: u32,
        writable: bool,
    ) -> Result {
        if self.remaining() == 0 {
            return Err(ENOMEM);
        }
        let page = cache.get().ok_or(ENOMEM)?;
        let flags = bindings::GNTMAP_host_map
            | if writable {
                0
            } else {
                bindings::GNTMAP_readonly
            };
        let mut op: bindings::gnttab_map_grant_ref = pin_init::zeroed();
        // SAFETY: `op` is valid for writes. `page` is valid and has a kernel address.
        unsafe { bindings::xbk_set_map_op(&mut op, page.as_ptr(), flags, gref, domain) };
        // If Xen does not process the operation, the frame is not mapped.
        op.status = bindings::GNTST_general_error as i16;
        // INVARIANT: Both vectors have a free slot, checked above, so both pushes succeed.
        let _ = self.ops.push_within_capacity(op);
        let _ = self.pages.push_within_capacity(page.as_ptr());
        Ok(())
    }

    /// Maps all frames and empties the batch. `each` is called in the order of the pushes, with the
    /// grant reference and the mapped frame, or why it could not be mapped. Pages without a frame go
    /// back to `cache`.
    ///
    /// Context: process. Sleeps while Xen pages a frame in; `gnttab_map_refs` bounds that to 32
    /// seconds per frame.
    pub(crate) fn run(
        &mut self,
        cache: &PageCache,
        unmap: &mut UnmapBatch,
        mut each: impl FnMut(u32, Result<Mapped, MapError>),
    ) {
        if self.is_empty() {
            return;
        }
        // SAFETY: By the type invariant both arrays have `len` elements, and the pages came from a
        // page cache and are not mapped. `null` for no separate kernel mappings is allowed.
        let err = unsafe {
            bindings::gnttab_map_refs(
                self.ops.as_mut_ptr(),
                null_mut(),
                self.pages.as_mut_ptr(),
                self.ops.len() as c_uint,
            )
        };
        for (op, page) in self.ops.iter().zip(self.pages.iter_mut()) {
            let good = op.status == bindings::GNTST_okay as i16;
            match NonNull::new(*page).filter(|_| good) {
                // INVARIANT: By `op.status` Xen has mapped the frame at `page`, and no reference to
                // the new `Mapped` exists.
                Some(page) => {
                    let mapped = Mapped {
                        page,
                        handle: op.handle,
                        users: 0,
                    };
                    if err == 0 {
                        each(op.ref_, Ok(mapped));
                    } else {
                        // Xen has mapped the frame, but `gnttab_map_refs` could not record the
                        // mapping for the kernel's page tables.
                        unmap.push(mapped, cache);
                        each(op.ref_, Err(MapError::NoSpace));
                    }
                }
                None => {
                    cache.put(core::slice::from_mut(page));
                    each(op.ref_, Err(MapError::of(op.status)));
                }
            }
        }
        self.ops.clear();
        self.pages.clear();
    }
}

/// Why a frame could not be mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MapError {
    /// Xen refuses the grant reference: the other domain has not granted it, or not in that way.
    Refused,
    /// This domain has no handle or no memory left for a mapping. The same mapping may work later.
    NoSpace,
}

impl MapError {
    fn of(status: i16) -> Self {
        match c_int::from(status) {
            // Xen says no_space when this domain's table of mapped grants (maptrack) is full, and
            // no_device_space for the I/O MMU.
            bindings::GNTST_no_space | bindings::GNTST_no_device_space => Self::NoSpace,
            _ => Self::Refused,
        }
    }
}

/// Frames that one hypercall unmaps.
///
/// Drop leaks the frames that [`Self::run`] has not unmapped.
///
/// # Invariants
///
/// `ops` and `pages` have the same length and the same capacity. Each page has a frame mapped,
/// which the operation at the same index unmaps, and no [`MappedRef`] to it exists.
pub(crate) struct UnmapBatch {
    ops: KVec<bindings::gnttab_unmap_grant_ref>,
    pages: KVec<*mut bindings::page>,
}

// SAFETY: The batch owns its memory and its pages, and neither is bound to a thread.
unsafe impl Send for UnmapBatch {}

impl UnmapBatch {
    /// Creates a batch with capacity for `capacity` frames, of which there must be at least one.
    /// Sleeps.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(capacity: usize) -> Result<Self> {
        // INVARIANT: Both vectors are empty and have the same capacity.
        Ok(Self {
            ops: KVec::with_capacity(capacity, GFP_KERNEL)?,
            pages: KVec::with_capacity(capacity, GFP_KERNEL)?,
        })
    }

    /// Adds a frame. Its page must have no other user, see [`Mapped::is_used`]. If the batch is
    /// full, the frames in it are unmapped first.
    ///
    /// Context: process; may sleep.
    pub(crate) fn push(&mut self, mapped: Mapped, cache: &PageCache) {
        if mapped.users != 0 {
            // This is a bug in the module. A leaked frame does less harm than a page that is
            // unmapped while a bio uses it.
            pr_err!("a frame with {} users is not unmapped\n", mapped.users);
            return;
        }
        if self.ops.len() == self.ops.capacity() {
            self.run(cache);
        }
        let mut op: bindings::gnttab_unmap_grant_ref = pin_init::zeroed();
        let page = mapped.page.as_ptr();
        // SAFETY: `op` is valid for writes. By the invariant of `Mapped` the page is valid and has
        // a frame mapped with this handle.
        unsafe {
            bindings::xbk_set_unmap_op(&mut op, page, bindings::GNTMAP_host_map, mapped.handle)
        };
        // INVARIANT: Both vectors have a free slot, made above if need be, so both pushes succeed
        // (or both fail in a batch without capacity). `mapped` has no users.
        let _ = self.ops.push_within_capacity(op);
        let _ = self.pages.push_within_capacity(page);
    }

    /// Is there nothing to unmap?
    pub(crate) fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// Unmaps all frames, puts their pages into `cache`, and empties the batch.
    ///
    /// Context: process; may sleep.
    pub(crate) fn run(&mut self, cache: &PageCache) {
        if self.ops.is_empty() {
            return;
        }
        // SAFETY: By the type invariant both arrays have `len` elements, and each operation unmaps
        // the frame at its page, which no code uses.
        let err = unsafe {
            bindings::gnttab_unmap_refs(
                self.ops.as_mut_ptr(),
                null_mut(),
                self.pages.as_mut_ptr(),
                self.ops.len() as c_uint,
            )
        };
        if err == 0 {
            cache.put(&mut self.pages);
        } else {
            // Frames may still be mapped at some of the pages, so the pages are leaked.
            pr_err!(
                "Xen did not unmap {} pages ({}); they are lost\n",
                self.pages.len(),
                err
            );
        }
        self.ops.clear();
        self.pages.clear();
    }
}
