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

/// Mapped ring pages.
///
/// Drop unmaps them and sleeps.
///
/// # Invariants
///
/// `base` points to `size` bytes mapped by `xenbus_map_ring_valloc`, page aligned,
/// until drop.
pub(crate) struct SharedRing {
    dev: DeviceRef,
    base: NonNull<u8>,
    size: usize,
}

// SAFETY: The mapping is valid in every thread; unmapping works from any.
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
        let mut base = core::ptr::null_mut();
        // SAFETY: `dev` is alive; `refs` is valid for its length, and the function
        // only reads from it; `base` is valid for a write.
        to_result(unsafe {
            bindings::xenbus_map_ring_valloc(
                dev.as_raw(),
                refs.as_ptr().cast_mut(),
                refs.len() as c_uint,
                &mut base,
            )
        })?;
        let base = NonNull::new(base.cast::<u8>()).ok_or(EIO)?;
        let size = refs.len().checked_mul(PAGE_SIZE).ok_or(EINVAL)?;
        // INVARIANT: Mapped just now, one page per reference.
        Ok(Self { dev, base, size })
    }

    /// The address of `len` bytes at `at`, or `None` if they are not all ours.
    fn at(&self, at: usize, len: usize) -> Option<*mut u8> {
        let end = at.checked_add(len)?;
        if end > self.size {
            return None;
        }
        // SAFETY: By the check above and the type invariant, within the mapping.
        Some(unsafe { self.base.as_ptr().add(at) })
    }

    /// Reads the 32-bit index at byte `at`; 0 if that is not in the ring.
    pub(crate) fn load(&self, at: usize) -> u32 {
        match self.at(at, 4) {
            // SAFETY: Within the mapping and, as every index of `ring.h`, aligned.
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

    /// Copies `into.len()` bytes from `at`, each read exactly once; both multiples
    /// of 4. Bytes outside of the ring are left as they were.
    pub(crate) fn copy_out(&self, at: usize, into: &mut [u8]) {
        let Some(ptr) = self.at(at, into.len()).filter(|_| at % 4 == 0) else {
            return;
        };
        let mut words = into.chunks_exact_mut(4);
        let mut ptr = ptr.cast::<u32>();
        for word in &mut words {
            // SAFETY: Within the mapping by the check above.
            let value = unsafe { ptr.read_volatile() };
            word.copy_from_slice(&value.to_ne_bytes());
            // SAFETY: At most one past the last whole word.
            ptr = unsafe { ptr.add(1) };
        }
    }

    /// Copies `bytes` to `at`.
    pub(crate) fn copy_in(&self, at: usize, bytes: &[u8]) {
        let Some(mut ptr) = self.at(at, bytes.len()) else {
            return;
        };
        for byte in bytes {
            // SAFETY: Within the mapping by the check above; at most one past its
            // end after the last byte.
            unsafe {
                ptr.write_volatile(*byte);
                ptr = ptr.add(1);
            }
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

impl Drop for SharedRing {
    fn drop(&mut self) {
        // SAFETY: By the type invariant; nobody uses the mapping any more.
        unsafe { bindings::xenbus_unmap_ring_vfree(self.dev.as_raw(), self.base.as_ptr().cast()) };
    }
}
