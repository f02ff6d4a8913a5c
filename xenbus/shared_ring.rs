// SPDX-License-Identifier: GPL-2.0

//! Ring pages that a frontend granted: memory that a hostile domain writes at any
//! time.
//!
//! No reference into it is ever made. Everything is copied in or out by volatile
//! accesses, within bounds that are checked here; the caller decides on the copy.
//!
//! C header: [`include/xen/interface/io/ring.h`](srctree/include/xen/interface/io/ring.h)

use core::ptr::NonNull;

use kernel::{
    error::to_result,
    page::PAGE_SIZE,
    prelude::*, //
};

use super::bindings;
use super::device::DeviceRef;

/// The most pages a ring can have (order 4, as xenbus can map).
pub(crate) const PAGES_MAX: usize = 16;

/// One mapped page of a ring.
///
/// Drop unmaps it and sleeps.
///
/// # Invariants
///
/// `base` points to a page mapped by `xenbus_map_ring_valloc`, until drop.
struct Page {
    dev: DeviceRef,
    base: NonNull<u8>,
}

impl Page {
    fn map(dev: DeviceRef, gref: u32) -> Result<Self> {
        let mut base = core::ptr::null_mut();
        let mut gref = gref;
        // SAFETY: `dev` is alive; `gref` is one reference; `base` is valid for a write.
        to_result(unsafe {
            bindings::xenbus_map_ring_valloc(dev.as_raw(), &mut gref, 1, &mut base)
        })?;
        let base = NonNull::new(base.cast::<u8>()).ok_or(EIO)?;
        // INVARIANT: Mapped just now.
        Ok(Self { dev, base })
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // SAFETY: By the type invariant; nobody uses the mapping any more.
        unsafe { bindings::xenbus_unmap_ring_vfree(self.dev.as_raw(), self.base.as_ptr().cast()) };
    }
}

/// Mapped ring pages.
///
/// Each is mapped on its own: told to map several of which a later one is refused, the C
/// function of Linux 7.3 does not get the earlier ones unmapped again in a PV domain
/// (it maps by page table entry and unmaps by address), and a guest could make this
/// domain lose mappings without end.
///
/// Drop unmaps them and sleeps.
pub(crate) struct SharedRing {
    pages: KVec<Page>,
}

// SAFETY: The mappings are valid in every thread; unmapping works from any.
unsafe impl Send for SharedRing {}

impl SharedRing {
    /// Maps the frames that `refs` grant. Sleeps.
    ///
    /// # Errors
    ///
    /// `EINVAL` for no or too many pages; what Xen answers to a bad reference. The
    /// C function leaves a text in our `error` key then and announces Closing.
    pub(crate) fn map(dev: DeviceRef, refs: &[u32]) -> Result<Self> {
        if refs.is_empty() || refs.len() > PAGES_MAX {
            return Err(EINVAL);
        }
        let mut pages = KVec::with_capacity(refs.len(), GFP_KERNEL)?;
        for gref in refs {
            // Within its capacity.
            let _ = pages.push_within_capacity(Page::map(dev.clone(), *gref)?);
        }
        Ok(Self { pages })
    }

    /// The address of `len` bytes at `at`, or `None` if they are not all in one page of
    /// ours.
    fn at(&self, at: usize, len: usize) -> Option<*mut u8> {
        let page = self.pages.get(at / PAGE_SIZE)?;
        let offset = at % PAGE_SIZE;
        if len > PAGE_SIZE.saturating_sub(offset) {
            return None;
        }
        // SAFETY: By the check above and the type invariant, within the page.
        Some(unsafe { page.base.as_ptr().add(offset) })
    }

    /// Reads the 32-bit index at byte `at`; 0 if that is not in the ring.
    pub(crate) fn load(&self, at: usize) -> u32 {
        match self.at(at, 4) {
            // SAFETY: Within the page and, as every index of `ring.h`, aligned.
            Some(ptr) if at % 4 == 0 => unsafe { ptr.cast::<u32>().read_volatile() },
            _ => 0,
        }
    }

    /// Writes the 32-bit index at byte `at`.
    pub(crate) fn store(&self, at: usize, value: u32) {
        if let Some(ptr) = self.at(at, 4) {
            if at % 4 == 0 {
                // SAFETY: As in `load`.
                unsafe { ptr.cast::<u32>().write_volatile(value) };
            }
        }
    }

    /// Copies `N` bytes from `at`, each read exactly once; both multiples of 4. Bytes
    /// outside of the ring are left as they were.
    pub(crate) fn copy_out<const N: usize>(&self, at: usize, into: &mut [u8; N]) {
        match self.at(at, N) {
            Some(ptr) if at % 8 == 0 && N % 8 == 0 => {
                let ptr = ptr.cast::<u64>();
                for (index, word) in into.chunks_exact_mut(8).enumerate() {
                    // SAFETY: Within the page, by the check of `at`, and aligned.
                    let value = unsafe { ptr.add(index).read_volatile() };
                    word.copy_from_slice(&value.to_ne_bytes());
                }
            }
            _ => self.copy_out_by_words(at, into),
        }
    }

    /// As that, for what lies in two pages or is not aligned to 8 bytes.
    fn copy_out_by_words(&self, at: usize, into: &mut [u8]) {
        // A word that is aligned never lies in two pages; a slot may.
        let mut at = at;
        for word in into.chunks_exact_mut(4) {
            if let Some(ptr) = self.at(at, 4).filter(|_| at % 4 == 0) {
                // SAFETY: Within the page, by the check of `at`, and aligned.
                let value = unsafe { ptr.cast::<u32>().read_volatile() };
                word.copy_from_slice(&value.to_ne_bytes());
            }
            at = at.wrapping_add(4);
        }
    }

    /// Copies `N` bytes to `at`, at once if it is aligned to them and they make a word.
    pub(crate) fn copy_in<const N: usize>(&self, at: usize, bytes: [u8; N]) {
        if let Some(ptr) = self.at(at, N).filter(|_| at % N.max(1) == 0) {
            // SAFETY: Within the page, by the check of `at`, and aligned.
            unsafe {
                match *bytes.as_slice() {
                    [a] => return ptr.write_volatile(a),
                    [a, b] => return ptr.cast::<u16>().write_volatile(u16::from_ne_bytes([a, b])),
                    [a, b, c, d, e, f, g, h] => {
                        let word = u64::from_ne_bytes([a, b, c, d, e, f, g, h]);
                        return ptr.cast::<u64>().write_volatile(word);
                    }
                    _ => {}
                }
            }
        }
        let mut at = at;
        for byte in bytes {
            if let Some(ptr) = self.at(at, 1) {
                // SAFETY: Within the page, by the check of `at`.
                unsafe { ptr.write_volatile(byte) };
            }
            at = at.wrapping_add(1);
        }
    }

    /// What is read after this was written before the index that was read before
    /// it. Pairs with the frontend's `virt_wmb()` in `RING_PUSH_REQUESTS`.
    pub(crate) fn read_barrier(&self) {
        // SAFETY: A barrier has no preconditions.
        unsafe { bindings::xbk_virt_rmb() }
    }

    /// What was written before this is seen before the index that is written after
    /// it. Pairs with the frontend's `virt_rmb()` after it has read `rsp_prod`.
    pub(crate) fn write_barrier(&self) {
        // SAFETY: A barrier has no preconditions.
        unsafe { bindings::xbk_virt_wmb() }
    }

    /// What was written before this is seen before what is read after it. Pairs
    /// with the frontend's `virt_mb()` in `RING_PUSH_REQUESTS_AND_CHECK_NOTIFY`
    /// and `RING_FINAL_CHECK_FOR_RESPONSES`.
    pub(crate) fn full_barrier(&self) {
        // SAFETY: A barrier has no preconditions.
        unsafe { bindings::xbk_virt_mb() }
    }
}
