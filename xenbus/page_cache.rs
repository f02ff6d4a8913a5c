// SPDX-License-Identifier: GPL-2.0

//! Pages without memory, at which granted frames are mapped.
//!
//! C header: [`include/xen/grant_table.h`](srctree/include/xen/grant_table.h)

use core::ptr::{
    null_mut,
    NonNull, //
};

use kernel::{
    prelude::*,
    types::Opaque, //
};

use super::bindings;

/// Pages without memory, at which granted frames are mapped (`struct gnttab_page_cache`).
///
/// Drop frees the pages and sleeps.
#[pin_data(PinnedDrop)]
pub(crate) struct PageCache {
    #[pin]
    cache: Opaque<bindings::gnttab_page_cache>,
}

// SAFETY: A page cache is not bound to a thread.
unsafe impl Send for PageCache {}
// SAFETY: The C functions take the lock of the page cache.
unsafe impl Sync for PageCache {}

impl PageCache {
    /// Creates an empty cache.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            cache <- Opaque::ffi_init(|cache| {
                // SAFETY: `cache` is valid for writes and pinned.
                unsafe { bindings::gnttab_page_cache_init(cache) }
            }),
        })
    }

    /// Frees all but `keep` of the pages in the cache.
    ///
    /// Context: process; sleeps.
    pub(crate) fn shrink(&self, keep: u32) {
        // SAFETY: `new` has initialised the cache.
        unsafe { bindings::gnttab_page_cache_shrink(self.cache.get(), keep) }
    }

    /// Takes a page out of the cache, or allocates one. May sleep.
    pub(super) fn get(&self) -> Option<NonNull<bindings::page>> {
        let mut page = null_mut();
        // SAFETY: `new` has initialised the cache; `page` is valid for a write.
        match unsafe { bindings::gnttab_page_cache_get(self.cache.get(), &mut page) } {
            0 => NonNull::new(page),
            _ => None,
        }
    }

    /// Puts pages back that came from [`Self::get`] and at which nothing is mapped.
    pub(super) fn put(&self, pages: &mut [*mut bindings::page]) {
        // SAFETY: `new` has initialised the cache. All callers, which are in this file, own the
        // pages and have got them from `get`; nothing is mapped there.
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
