// SPDX-License-Identifier: GPL-2.0

//! Watches on xenstore paths.
//!
//! C header: [`include/xen/xenbus.h`](srctree/include/xen/xenbus.h)

use kernel::{
    container_of,
    error::to_result,
    prelude::*,
    str::CString,
    sync::atomic::{
        ordering::Full,
        AtomicFlag, //
    },
    types::Opaque, //
};

use super::bindings;

/// Handles the events of a [`Watch`].
pub(crate) trait Handler: Send + Sync + 'static {
    /// Returns whether the handler wants to hear of a change of `path`.
    ///
    /// Context: the xenbus thread, with the spinlock `watches_lock` held.
    fn matters(&self, path: &[u8]) -> bool;

    /// A path that matters has changed. Several changes may be merged into one call, so the handler
    /// has to look at all paths. It must not drop the [`Watch`] that calls it.
    ///
    /// Context: the xenwatch thread, which serves all Xen devices of this domain. Must not wait for
    /// a device or a guest.
    fn changed(&self);
}

/// A watch, which is registered from its creation to its drop.
///
/// At most one event of a watch is in the queue of the xenwatch thread at a time, so a guest that
/// writes to a watched path cannot fill that queue.
///
/// Drop sleeps. It waits for a running [`Handler::changed`], unless it is called in the xenwatch
/// thread itself.
#[pin_data(PinnedDrop)]
pub(crate) struct Watch<H: Handler> {
    #[pin]
    watch: Opaque<bindings::xenbus_watch>,
    /// The path. The C code reads it while the watch is registered.
    _node: CString,
    registered: AtomicFlag,
    handler: H,
}

// SAFETY: Any thread may register and unregister a watch. The handler is `Send`.
unsafe impl<H: Handler> Send for Watch<H> {}
// SAFETY: A shared `Watch` has only `stop`, which any threads may call concurrently. The handler,
// which is shared with the xenwatch thread, is `Sync`.
unsafe impl<H: Handler> Sync for Watch<H> {}

impl<H: Handler> Watch<H> {
    /// Registers a watch on `node` and all paths below it.
    ///
    /// Context: process; sleeps.
    ///
    /// # Errors
    ///
    /// xenstored's error.
    pub(crate) fn new(node: CString, handler: H) -> impl PinInit<Self, Error> {
        let text = node.as_char_ptr();
        try_pin_init!(&this in Self {
            watch <- Opaque::ffi_init(|watch: *mut bindings::xenbus_watch| {
                // SAFETY: `watch` is valid for writes. `text` points to the heap memory of `_node`,
                // which does not move and lives as long as the watch.
                unsafe {
                    watch.write(pin_init::zeroed());
                    (*watch).node = text;
                    (*watch).will_handle = Some(Self::will_handle);
                    (*watch).callback = Some(Self::callback);
                }
            }),
            _node: node,
            registered: AtomicFlag::new(true),
            handler,
            _: {
                // SAFETY: All fields are initialised, so the callbacks may run at once. The object
                // is pinned, and `drop` unregisters the watch before the memory is freed.
                to_result(unsafe {
                    bindings::register_xenbus_watch((*this.as_ptr()).watch.get())
                })?;
            },
        }? Error)
    }

    /// Unregisters the watch before its drop. Waits for a running [`Handler::changed`] as drop
    /// does.
    ///
    /// Context: process; sleeps.
    pub(crate) fn stop(&self) {
        if self.registered.xchg(false, Full) {
            // SAFETY: `new` has registered the watch. `xchg` returns `true` to one caller only.
            unsafe { bindings::unregister_xenbus_watch(self.watch.get()) };
        }
    }

    /// Returns the `Watch` that embeds `watch`.
    ///
    /// # Safety
    ///
    /// `watch` must be the field of a `Watch<H>` that is valid for `'a`.
    unsafe fn from_raw<'a>(watch: *mut bindings::xenbus_watch) -> &'a Self {
        let watch: *mut Opaque<bindings::xenbus_watch> = watch.cast();
        // SAFETY: The caller guarantees that `watch` is the field of a valid `Watch<H>`.
        unsafe { &*container_of!(watch, Self, watch) }
    }

    extern "C" fn will_handle(
        watch: *mut bindings::xenbus_watch,
        path: *const c_char,
        _token: *const c_char,
    ) -> bool {
        // SAFETY: xenbus passes a watch, which stays registered because `watches_lock` is held, and
        // a NUL-terminated path. The xenwatch thread may change `nr_pending` meanwhile, hence the
        // volatile read.
        unsafe {
            (&raw const (*watch).nr_pending).read_volatile() == 0
                && Self::from_raw(watch).handler.matters(super::bytes(path))
        }
    }

    extern "C" fn callback(
        watch: *mut bindings::xenbus_watch,
        _path: *const c_char,
        _token: *const c_char,
    ) {
        // SAFETY: xenbus passes the watch of a `Watch<H>`. It is valid during this call:
        // `unregister_xenbus_watch` waits for the callback, except in the xenwatch thread, where
        // the handler must not drop its own watch.
        unsafe { Self::from_raw(watch) }.handler.changed();
    }
}

#[pinned_drop]
impl<H: Handler> PinnedDrop for Watch<H> {
    fn drop(self: Pin<&mut Self>) {
        self.stop();
    }
}

/// Waits at its drop until the watch callbacks of the module have returned.
///
/// A callback may drop the last reference to the module and still have instructions to execute.
/// Unregistering any watch waits for the callback that runs at that time. So a `Barrier` is a watch
/// whose handler ignores all events. The module drops it after it has unregistered its driver.
pub(crate) struct Barrier(Pin<KBox<Watch<Ignore>>>);

impl Barrier {
    /// Registers the watch.
    ///
    /// Context: process; sleeps.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; xenstored's error.
    pub(crate) fn new() -> Result<Self> {
        let node = CString::try_from_fmt(fmt!("domid"))?;
        Ok(Self(KBox::pin_init(Watch::new(node, Ignore), GFP_KERNEL)?))
    }
}

impl Drop for Barrier {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// Ignores all events.
struct Ignore;

impl Handler for Ignore {
    fn matters(&self, _path: &[u8]) -> bool {
        false
    }

    fn changed(&self) {}
}
