// SPDX-License-Identifier: GPL-2.0

//! Frames of the other domain: mapped, used, unmapped.
//!
//! Xen charges by the call, so maps and unmaps are gathered into batches. A
//! [`Mapped`] is the right to use one frame; it is given up only to an
//! [`UnmapBatch`], and only when nobody else in this kernel refers to its page any
//! more ([`Mapped::is_used`]): some block drivers keep a reference for a while
//! after they have answered.
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
    prelude::*,
    types::Opaque, //
};

use super::bindings;

/// Frames without memory of their own, for foreign pages to be mapped at.
///
/// Drop gives them back and sleeps.
#[pin_data(PinnedDrop)]
pub(crate) struct PageCache {
    #[pin]
    cache: Opaque<bindings::gnttab_page_cache>,
}

// SAFETY: The C type has its own lock.
unsafe impl Send for PageCache {}
// SAFETY: As above.
unsafe impl Sync for PageCache {}

impl PageCache {
    /// An empty cache.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            cache <- Opaque::ffi_init(|cache| {
                // SAFETY: `cache` is valid for writes.
                unsafe { bindings::gnttab_page_cache_init(cache) }
            }),
        })
    }

    /// Gives back all but `keep` pages. Sleeps.
    pub(crate) fn shrink(&self, keep: u32) {
        // SAFETY: Initialised in `new`.
        unsafe { bindings::gnttab_page_cache_shrink(self.cache.get(), keep) }
    }

    fn get(&self) -> Option<NonNull<bindings::page>> {
        let mut page = null_mut();
        // SAFETY: Initialised in `new`; `page` is valid for a write.
        match unsafe { bindings::gnttab_page_cache_get(self.cache.get(), &mut page) } {
            0 => NonNull::new(page),
            _ => None,
        }
    }

    fn put(&self, pages: &mut [*mut bindings::page]) {
        // SAFETY: `pages` came from `get`, are not mapped, and are ours.
        unsafe {
            bindings::gnttab_page_cache_put(
                self.cache.get(),
                pages.as_mut_ptr(),
                pages.len() as c_uint,
            )
        }
    }
}

#[pinned_drop]
impl PinnedDrop for PageCache {
    fn drop(self: Pin<&mut Self>) {
        self.shrink(0);
    }
}

/// A frame of the other domain, mapped at a page of ours.
///
/// Dropped instead of unmapped, mapping and page are lost until the next boot.
///
/// # Invariants
///
/// `page` came from a [`PageCache`] and is mapped with `handle`. At most `users` [`MappedRef`]s to
/// it exist.
#[must_use]
#[derive(Debug)]
pub(crate) struct Mapped {
    page: NonNull<bindings::page>,
    handle: u32,
    users: u32,
}

/// A reference to a [`Mapped`] grant that its owner keeps mapped. Whoever has it gives it back with
/// [`Mapped::put`]: until then the grant is not unmapped.
///
/// # Invariants
///
/// Counted by the [`Mapped`] of `page`.
#[must_use]
#[derive(Debug)]
pub(crate) struct MappedRef {
    page: NonNull<bindings::page>,
}

// SAFETY: As `Mapped`.
unsafe impl Send for MappedRef {}
// SAFETY: As `Mapped`.
unsafe impl Sync for MappedRef {}

impl MappedRef {
    /// The page, for I/O while `self` lives.
    pub(crate) fn page(&self) -> BorrowedPage<'_> {
        // SAFETY: The grant is not unmapped while there is a reference to it.
        unsafe { BorrowedPage::from_raw(self.page) }
    }
}

// SAFETY: Page and handle may be used from any thread.
unsafe impl Send for Mapped {}
// SAFETY: As above; a shared `Mapped` only gives its address away.
unsafe impl Sync for Mapped {}

impl Mapped {
    /// The page, for I/O while `self` lives.
    pub(crate) fn page(&self) -> BorrowedPage<'_> {
        // SAFETY: By the type invariant the page is mapped, until `self` is given up.
        unsafe { BorrowedPage::from_raw(self.page) }
    }

    /// Takes a reference: the grant is not unmapped before [`Self::put`] gets it back.
    pub(crate) fn get(&mut self) -> MappedRef {
        // At most once per segment of a request in flight: far from 2^32.
        self.users = self.users.saturating_add(1);
        MappedRef { page: self.page }
    }

    /// Gives a reference back. One to another grant stays counted there.
    pub(crate) fn put(&mut self, user: MappedRef) {
        if user.page == self.page {
            self.users = self.users.saturating_sub(1);
        }
    }

    /// The page, for a look into it while it is mapped.
    pub(super) fn as_page(&self) -> *mut bindings::page {
        self.page.as_ptr()
    }

    /// Does anybody in this kernel still refer to the page?
    pub(crate) fn is_used(&self) -> bool {
        // SAFETY: By the type invariant, a valid page.
        unsafe { bindings::xbk_page_is_used(self.page.as_ptr()) }
    }
}

/// Grants that are to be mapped together.
///
/// # Invariants
///
/// `ops` and `pages` have the same length; `pages` came from a [`PageCache`], are
/// not mapped, and belong to the operations at the same places.
pub(crate) struct MapBatch {
    ops: KVec<bindings::gnttab_map_grant_ref>,
    pages: KVec<*mut bindings::page>,
}

// SAFETY: Owned memory and pages without ties to a thread.
unsafe impl Send for MapBatch {}

impl MapBatch {
    /// Room for `most` grants. Sleeps.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(most: usize) -> Result<Self> {
        Ok(Self {
            ops: KVec::with_capacity(most, GFP_KERNEL)?,
            pages: KVec::with_capacity(most, GFP_KERNEL)?,
        })
    }

    /// How many more grants it takes.
    pub(crate) fn remaining(&self) -> usize {
        self.ops.capacity().saturating_sub(self.ops.len())
    }

    /// No grants in it?
    pub(crate) fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// Adds the frame that `gref` of `domain` grants; `writable` if this side is
    /// going to write to it. May sleep.
    ///
    /// # Errors
    ///
    /// `ENOMEM` if there is no page for it, or no room in the batch.
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
        // SAFETY: `op` is valid for writes, `page` has a kernel address.
        unsafe { bindings::xbk_set_map_op(&mut op, page.as_ptr(), flags, gref, domain) };
        // What Xen does not get to is not mapped.
        op.status = bindings::GNTST_general_error as i16;
        // Both have the same capacity, and there is room.
        let _ = self.ops.push_within_capacity(op);
        let _ = self.pages.push_within_capacity(page.as_ptr());
        Ok(())
    }

    /// Maps them all and empties the batch. `each` gets, in the order of the pushes,
    /// the reference and what became of it: `None` if Xen refused. May sleep: Xen may ask to try
    /// again while it pages a frame in (bounded by the C function, 32 seconds).
    pub(crate) fn run(
        &mut self,
        cache: &PageCache,
        unmap: &mut UnmapBatch,
        mut each: impl FnMut(u32, Option<Mapped>),
    ) {
        if self.is_empty() {
            return;
        }
        // SAFETY: By the type invariant. Without kernel mappings (`null`).
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
                // INVARIANT: Xen says so.
                Some(page) => {
                    let mapped = Mapped {
                        page,
                        handle: op.handle,
                        users: 0,
                    };
                    if err == 0 {
                        each(op.ref_, Some(mapped));
                    } else {
                        // Linux could not take note of what Xen has mapped.
                        unmap.push(mapped, cache);
                        each(op.ref_, None);
                    }
                }
                None => {
                    cache.put(core::slice::from_mut(page));
                    each(op.ref_, None);
                }
            }
        }
        self.ops.clear();
        self.pages.clear();
    }
}

/// Frames that are to be unmapped together.
///
/// Dropped with frames in it, those are lost.
///
/// # Invariants
///
/// `ops` and `pages` have the same length and belong together; all are mapped.
pub(crate) struct UnmapBatch {
    ops: KVec<bindings::gnttab_unmap_grant_ref>,
    pages: KVec<*mut bindings::page>,
}

// SAFETY: Owned memory and pages without ties to a thread.
unsafe impl Send for UnmapBatch {}

impl UnmapBatch {
    /// Room for `most` frames (at least one). Sleeps.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(most: usize) -> Result<Self> {
        Ok(Self {
            ops: KVec::with_capacity(most, GFP_KERNEL)?,
            pages: KVec::with_capacity(most, GFP_KERNEL)?,
        })
    }

    /// Adds a frame that nobody uses any more; unmaps what is there when the batch
    /// is full.
    pub(crate) fn push(&mut self, mapped: Mapped, cache: &PageCache) {
        if mapped.users != 0 {
            // A bug of ours; the frame is lost, which is better than used unmapped.
            pr_err!("a frame with {} users is not unmapped\n", mapped.users);
            return;
        }
        if self.ops.len() == self.ops.capacity() {
            self.run(cache);
        }
        let mut op: bindings::gnttab_unmap_grant_ref = pin_init::zeroed();
        let page = mapped.page.as_ptr();
        // SAFETY: `op` is valid; the page is mapped with this handle by the type
        // invariant of `Mapped`.
        unsafe {
            bindings::xbk_set_unmap_op(&mut op, page, bindings::GNTMAP_host_map, mapped.handle)
        };
        // Both have the same capacity, and there is room.
        let _ = self.ops.push_within_capacity(op);
        let _ = self.pages.push_within_capacity(page);
    }

    /// Unmaps all and returns their pages to `cache`.
    pub(crate) fn run(&mut self, cache: &PageCache) {
        if self.ops.is_empty() {
            return;
        }
        // SAFETY: By the type invariant; nobody refers to the pages.
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
            // Pages that may still be mapped must never be used again.
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
