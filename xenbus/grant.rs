// SPDX-License-Identifier: GPL-2.0

//! Mapping and unmapping the data pages of a request.
//!
//! A mapping is all or nothing: if one page cannot be mapped, those that could are
//! unmapped again. Unmapping waits, without blocking anyone, until nobody in this
//! kernel refers to the pages any more: some block drivers keep a reference for a
//! while after they have answered.
//!
//! C header: [`include/xen/grant_table.h`](srctree/include/xen/grant_table.h)

use core::{
    mem::MaybeUninit,
    ptr::{
        null_mut,
        NonNull, //
    }, //
};

use kernel::{
    prelude::*,
    types::Opaque, //
};

use super::bindings;

/// The most pages one mapping can have.
pub(crate) const PAGES_MAX: usize = 11;

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

/// A page of the other domain, mapped.
///
/// # Invariants
///
/// Valid as long as the [`Mapping`] it was borrowed from.
#[derive(Clone, Copy)]
pub(crate) struct ForeignPage<'a>(*mut bindings::page, core::marker::PhantomData<&'a ()>);

impl ForeignPage<'_> {
    /// The C page.
    pub(crate) fn as_ptr(&self) -> *mut bindings::page {
        self.0
    }
}

/// The pages of one request, mapped.
///
/// # Invariants
///
/// The first `count` of `pages` came from a [`PageCache`]; if `mapped`, they are
/// mapped with the handles at the same places of `handles`.
pub(crate) struct Mapping {
    pages: [*mut bindings::page; PAGES_MAX],
    handles: [u32; PAGES_MAX],
    count: usize,
    mapped: bool,
}

// SAFETY: Pages and handles may be used from any thread.
unsafe impl Send for Mapping {}

impl Mapping {
    /// No pages at all.
    pub(crate) const fn empty() -> Self {
        Self {
            pages: [null_mut(); PAGES_MAX],
            handles: [0; PAGES_MAX],
            count: 0,
            mapped: false,
        }
    }

    /// Maps the frames that `refs` of `domain` grant; `writable` if this side is
    /// going to write to them. May sleep: Xen may ask to try again while it pages
    /// a frame in (bounded by the C function, 32 seconds).
    ///
    /// # Errors
    ///
    /// `ENOMEM` if there are no frames, `EINVAL` for too many references, `EFAULT`
    /// if Xen refused one of them. Nothing stays mapped then.
    pub(crate) fn map(
        cache: &PageCache,
        domain: u16,
        refs: impl Iterator<Item = u32>,
        writable: bool,
    ) -> Result<Self> {
        let mut ops =
            [const { MaybeUninit::<bindings::gnttab_map_grant_ref>::uninit() }; PAGES_MAX];
        let mut mapping = Self::empty();
        let flags = bindings::GNTMAP_host_map
            | if writable {
                0
            } else {
                bindings::GNTMAP_readonly
            };
        for gref in refs {
            let place = mapping
                .pages
                .get_mut(mapping.count)
                .zip(ops.get_mut(mapping.count));
            let (Some((place, op)), Some(page)) = (place, cache.get()) else {
                // Nothing is mapped yet.
                cache.put(mapping.taken());
                return Err(ENOMEM);
            };
            *place = page.as_ptr();
            // SAFETY: `op` is valid for writes, `page` has a kernel address.
            unsafe {
                op.write(pin_init::zeroed());
                bindings::xbk_set_map_op(op.as_mut_ptr(), page.as_ptr(), flags, gref, domain);
            }
            mapping.count = mapping.count.saturating_add(1);
        }
        if mapping.count == 0 {
            return Ok(mapping);
        }
        // SAFETY: The first `count` operations and pages are initialised; the pages
        // are ours and not mapped. Without kernel mappings (`null`).
        let err = unsafe {
            bindings::gnttab_map_refs(
                ops.as_mut_ptr().cast(),
                null_mut(),
                mapping.pages.as_mut_ptr(),
                mapping.count as c_uint,
            )
        };
        mapping.accept(cache, &ops, err)
    }

    /// Looks at what Xen said of each page; undoes all if one is missing.
    fn accept(
        mut self,
        cache: &PageCache,
        ops: &[MaybeUninit<bindings::gnttab_map_grant_ref>; PAGES_MAX],
        err: c_int,
    ) -> Result<Self> {
        let mut mapped = Self::empty();
        let mut refused = Self::empty();
        for index in 0..self.count {
            let (Some(op), Some(page)) = (ops.get(index), self.pages.get(index)) else {
                break;
            };
            // SAFETY: The first `count` operations are initialised.
            let op = unsafe { op.assume_init_ref() };
            let good = op.status == bindings::GNTST_okay as i16;
            let into = if good { &mut mapped } else { &mut refused };
            into.push(*page, op.handle);
        }
        // INVARIANT: These are those that Xen mapped.
        mapped.mapped = true;
        self.count = 0;
        if err == 0 && refused.count == 0 {
            return Ok(mapped);
        }
        cache.put(refused.taken());
        mapped.unmap_now();
        cache.put(mapped.taken());
        Err(EFAULT)
    }

    /// The mapped pages, in the order of the references.
    pub(crate) fn pages(&self) -> impl Iterator<Item = ForeignPage<'_>> {
        self.pages
            .iter()
            .take(self.count)
            .map(|page| ForeignPage(*page, core::marker::PhantomData))
    }

    fn push(&mut self, page: *mut bindings::page, handle: u32) {
        let place = self
            .pages
            .get_mut(self.count)
            .zip(self.handles.get_mut(self.count));
        if let Some((page_place, handle_place)) = place {
            *page_place = page;
            *handle_place = handle;
            self.count = self.count.saturating_add(1);
        }
    }

    fn taken(&mut self) -> &mut [*mut bindings::page] {
        self.pages.get_mut(..self.count).unwrap_or_default()
    }

    fn fill(&self, ops: &mut [bindings::gnttab_unmap_grant_ref; PAGES_MAX]) {
        let pages = self.pages.iter().zip(&self.handles).take(self.count);
        for (op, (page, handle)) in ops.iter_mut().zip(pages) {
            // SAFETY: `op` is valid; the page is mapped with this handle.
            unsafe { bindings::xbk_set_unmap_op(op, *page, bindings::GNTMAP_host_map, *handle) };
        }
    }

    /// Unmaps pages that nobody has used yet.
    fn unmap_now(&mut self) {
        if self.count == 0 {
            self.mapped = false;
            return;
        }
        let mut ops: [bindings::gnttab_unmap_grant_ref; PAGES_MAX] = pin_init::zeroed();
        self.fill(&mut ops);
        // SAFETY: Operations and pages belong together, all are mapped, and no one
        // refers to the pages.
        let err = unsafe {
            bindings::gnttab_unmap_refs(
                ops.as_mut_ptr(),
                null_mut(),
                self.pages.as_mut_ptr(),
                self.count as c_uint,
            )
        };
        self.unmapped(err);
    }

    /// Notes that Xen was asked to unmap the pages, and what it said. Pages that are
    /// still mapped must never be used again: they are given up.
    fn unmapped(&mut self, err: c_int) {
        if err != 0 {
            pr_err!(
                "Xen did not unmap {} pages ({}); they are lost\n",
                self.count,
                err
            );
            self.count = 0;
        }
        self.mapped = false;
    }
}

/// What to do with an object whose pages are unmapped.
pub(crate) trait Unmapped: Sized + Send + 'static {
    /// The room for the operation within the object.
    fn unmap_room(&mut self) -> (&mut Mapping, &mut UnmapRoom);

    /// The pages are unmapped. Runs in the caller of [`unmap`], or in a worker of
    /// the system if somebody still referred to a page. Must not sleep.
    fn unmapped(this: KBox<Self>);
}

/// Room for one asynchronous unmap operation, kept in the object it is for.
pub(crate) struct UnmapRoom {
    data: bindings::gntab_unmap_queue_data,
    ops: [bindings::gnttab_unmap_grant_ref; PAGES_MAX],
}

// SAFETY: Only touched by whoever owns the object.
unsafe impl Send for UnmapRoom {}

impl UnmapRoom {
    /// Empty room.
    pub(crate) const fn new() -> Self {
        pin_init::zeroed()
    }
}

// SAFETY: All-zero bytes are valid for C structs.
unsafe impl pin_init::Zeroable for UnmapRoom {}

/// Unmaps the pages of `this`, then hands it to [`Unmapped::unmapped`].
pub(crate) fn unmap<T: Unmapped>(this: KBox<T>) {
    let raw = KBox::into_raw(this);
    // SAFETY: Just made from a box; nobody else has it.
    let (mapping, room) = unsafe { (*raw).unmap_room() };
    if !mapping.mapped || mapping.count == 0 {
        // SAFETY: As above; the borrows have ended.
        return T::unmapped(unsafe { KBox::from_raw(raw) });
    }
    mapping.fill(&mut room.ops);
    room.data.data = raw.cast();
    room.data.done = Some(unmap_done::<T>);
    room.data.unmap_ops = room.ops.as_mut_ptr();
    room.data.kunmap_ops = null_mut();
    room.data.pages = mapping.pages.as_mut_ptr();
    room.data.count = mapping.count as c_uint;
    let data = &raw mut room.data;
    // SAFETY: `data` and all it points to live in the box, which stays where it is
    // until `unmap_done` takes it back; the pages are mapped with these handles.
    unsafe { bindings::gnttab_unmap_refs_async(data) };
}

extern "C" fn unmap_done<T: Unmapped>(result: c_int, data: *mut bindings::gntab_unmap_queue_data) {
    // SAFETY: `data` is the one of `unmap`; its `data` is the box that was given up
    // there, and this is called exactly once.
    let mut this = unsafe { KBox::from_raw((*data).data.cast::<T>()) };
    this.unmap_room().0.unmapped(result);
    T::unmapped(this);
}

/// Returns the frames of an object to `cache`. Does nothing while they are mapped.
pub(crate) fn recycle<T: Unmapped>(this: &mut T, cache: &PageCache) {
    let (mapping, _) = this.unmap_room();
    if !mapping.mapped {
        cache.put(mapping.taken());
        mapping.count = 0;
    }
}
