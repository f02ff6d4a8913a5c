// SPDX-License-Identifier: GPL-2.0

//! Ring pages that a frontend granted. A hostile domain may write to them at any time.
//!
//! No Rust reference to this memory exists. All bytes are copied in or out by volatile accesses
//! within checked bounds, and the caller evaluates the copy.
//!
//! C header: [`include/xen/interface/io/ring.h`](srctree/include/xen/interface/io/ring.h)

use core::ptr::NonNull;

use kernel::{
    page::PAGE_SIZE,
    prelude::*, //
};

use super::bindings;
use super::grant::MapBatch;
use super::grant::MapError;
use super::grant::Mapped;
use super::grant::UnmapBatch;
use super::page_cache::PageCache;

/// The most pages a ring can have (order 4, as the protocol allows).
pub(crate) const PAGES_MAX: usize = 16;

/// One mapped page of a ring.
///
/// # Invariants
///
/// `base` is the kernel address of the page of `mapped`.
struct Page {
    mapped: Mapped,
    base: NonNull<u8>,
}

/// Mapped ring pages.
///
/// They are mapped like any other grant. `xenbus_map_ring_valloc` would do it, too, but announces
/// Closing when a page cannot be mapped, which takes a running guest's disk away for good, and when
/// it is told to map several pages of which a later one is refused, Linux 7.3 leaves the earlier
/// ones mapped in a PV domain.
///
/// Drop unmaps the pages and sleeps.
pub(crate) struct SharedRing {
    pages: KVec<Page>,
    cache: Pin<KBox<PageCache>>,
    unmap: UnmapBatch,
}

// SAFETY: The mappings are valid in every thread; unmapping works from any.
unsafe impl Send for SharedRing {}
// SAFETY: Shared access reads and writes bytes by volatile accesses, which any number of threads may do
// at once: the frontend does, too.
unsafe impl Sync for SharedRing {}

impl SharedRing {
    /// Maps the frames that `refs` of `domain` grant. Sleeps.
    ///
    /// # Errors
    ///
    /// `EINVAL` for no or too many pages; `ENOMEM`; `ENOMEM` also if this domain has no handle left
    /// for a mapping; `EFAULT` if Xen refuses a page.
    pub(crate) fn map(domain: u16, refs: &[u32]) -> Result<Self> {
        if refs.is_empty() || refs.len() > PAGES_MAX {
            return Err(EINVAL);
        }
        let mut ring = Self {
            pages: KVec::with_capacity(refs.len(), GFP_KERNEL)?,
            cache: KBox::pin_init(PageCache::new(), GFP_KERNEL)?,
            unmap: UnmapBatch::new(refs.len())?,
        };
        let mut batch = MapBatch::new(refs.len())?;
        let mut pushed = Ok(());
        for gref in refs {
            pushed = pushed.and_then(|()| batch.push(&ring.cache, domain, *gref, true));
        }
        let pages = &mut ring.pages;
        let mut refusal = EFAULT;
        batch.run(&ring.cache, &mut ring.unmap, |_gref, mapped| {
            let mapped = match mapped {
                Ok(mapped) => mapped,
                Err(MapError::Refused) => return,
                Err(MapError::NoSpace) => {
                    refusal = ENOMEM;
                    return;
                }
            };
            // SAFETY: The page of a mapped grant has a kernel address.
            let base = unsafe { bindings::xbk_page_address(mapped.as_page()) };
            // SAFETY: As above, so the address is not null.
            let base = unsafe { NonNull::new_unchecked(base.cast()) };
            // INVARIANT: Its kernel address. The vector has capacity for all.
            let _ = pages.push_within_capacity(Page { mapped, base });
        });
        // What was mapped is unmapped by the drop of `ring`.
        pushed?;
        if ring.pages.len() != refs.len() {
            return Err(refusal);
        }
        Ok(ring)
    }

    /// Returns a pointer to `len` bytes at byte offset `at`, or `None` if they are not within one
    /// page of the ring.
    fn at(&self, at: usize, len: usize) -> Option<*mut u8> {
        let page = self.pages.get(at / PAGE_SIZE)?;
        let offset = at % PAGE_SIZE;
        if len > PAGE_SIZE.saturating_sub(offset) {
            return None;
        }
        // SAFETY: By the invariant of `Page` the page is mapped at `base`. `offset` is less than
        // the size of a page.
        Some(unsafe { page.base.as_ptr().add(offset) })
    }

    /// Reads the 32-bit index at byte offset `at`. Returns 0 if `at` is not aligned or not in the
    /// ring.
    pub(crate) fn load(&self, at: usize) -> u32 {
        match self.at(at, 4) {
            // SAFETY: `at` has checked that the index is within the page, and it is aligned.
            Some(ptr) if at % 4 == 0 => unsafe { ptr.cast::<u32>().read_volatile() },
            _ => 0,
        }
    }

    /// Writes the 32-bit index at byte offset `at`. Does nothing if `at` is not aligned or not in
    /// the ring.
    pub(crate) fn store(&self, at: usize, value: u32) {
        if let Some(ptr) = self.at(at, 4) {
            if at % 4 == 0 {
                // SAFETY: `at` has checked that the index is within the page, and it is aligned.
                unsafe { ptr.cast::<u32>().write_volatile(value) };
            }
        }
    }

    /// Copies the `N` bytes at byte offset `at` to `into`. Each byte is read exactly once. `N` and
    /// `at` must be multiples of 4. Bytes of `into` for which the ring has none do not change.
    pub(crate) fn copy_out<const N: usize>(&self, at: usize, into: &mut [u8; N]) {
        match self.at(at, N) {
            Some(ptr) if at % 8 == 0 && N % 8 == 0 => {
                let ptr = ptr.cast::<u64>();
                for (index, word) in into.chunks_exact_mut(8).enumerate() {
                    // SAFETY: `at` has checked that all `N` bytes are within the page, and the word
                    // is aligned.
                    let value = unsafe { ptr.add(index).read_volatile() };
                    word.copy_from_slice(&value.to_ne_bytes());
                }
            }
            _ => self.copy_out_by_words(at, into),
        }
    }

    /// As [`Self::copy_out`], for bytes that cross a page boundary or are not aligned to 8 bytes.
    fn copy_out_by_words(&self, at: usize, into: &mut [u8]) {
        // A slot of the ring may cross a page boundary. An aligned word never does.
        let mut at = at;
        for word in into.chunks_exact_mut(4) {
            if let Some(ptr) = self.at(at, 4).filter(|_| at % 4 == 0) {
                // SAFETY: `at` has checked that the word is within the page, and it is aligned.
                let value = unsafe { ptr.cast::<u32>().read_volatile() };
                word.copy_from_slice(&value.to_ne_bytes());
            }
            at = at.wrapping_add(4);
        }
    }

    /// Writes `words` from byte offset `at` on, a multiple of 4. What is outside of the ring is not
    /// written.
    pub(crate) fn copy_in<const N: usize>(&self, at: usize, words: [u32; N]) {
        match self.at(at, size_of_val(&words)) {
            Some(ptr) if at % 4 == 0 => {
                for (index, word) in words.into_iter().enumerate() {
                    // SAFETY: `at` has checked that all words are within the page, and they are
                    // aligned.
                    unsafe { ptr.cast::<u32>().add(index).write_volatile(word) };
                }
            }
            // They may cross a page boundary. An aligned word never does.
            _ => {
                let mut at = at;
                for word in words {
                    self.store(at, word);
                    at = at.wrapping_add(4);
                }
            }
        }
    }

    /// Orders reads before the barrier before reads after it: the index first, then the slots that
    /// the index covers. Pairs with the frontend's `virt_wmb()` in `RING_PUSH_REQUESTS`.
    pub(crate) fn read_barrier(&self) {
        // SAFETY: A barrier has no preconditions.
        unsafe { bindings::xbk_virt_rmb() }
    }

    /// Orders writes before the barrier before writes after it: the slots first, then the index
    /// that covers them. Pairs with the frontend's `virt_rmb()` after it has read `rsp_prod`.
    pub(crate) fn write_barrier(&self) {
        // SAFETY: A barrier has no preconditions.
        unsafe { bindings::xbk_virt_wmb() }
    }

    /// Orders writes before the barrier before reads after it. Pairs with the frontend's
    /// `virt_mb()` in `RING_PUSH_REQUESTS_AND_CHECK_NOTIFY` and `RING_FINAL_CHECK_FOR_RESPONSES`.
    pub(crate) fn full_barrier(&self) {
        // SAFETY: A barrier has no preconditions.
        unsafe { bindings::xbk_virt_mb() }
    }
}

impl Drop for SharedRing {
    fn drop(&mut self) {
        for page in self.pages.drain_all() {
            self.unmap.push(page.mapped, &self.cache);
        }
        self.unmap.run(&self.cache);
    }
}
