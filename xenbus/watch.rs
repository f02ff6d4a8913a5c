// SPDX-License-Identifier: GPL-2.0

//! A watch on a xenstore path.
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

/// What to do when something below a watched path changes.
pub(crate) trait Handler: Send + Sync + 'static {
    /// Does a change of `path` matter? Called with a spinlock held: must not
    /// sleep.
    fn matters(&self, path: &[u8]) -> bool;

    /// Something that matters changed. Changes that follow each other closely may
    /// come as one call, so look at everything. Runs in the one xenwatch thread
    /// that serves all Xen devices: must not wait for anything slow.
    fn changed(&self);
}

/// A watch that is registered from its creation to its drop.
///
/// At most one event of it waits in the queue of the xenwatch thread, so nobody
/// can fill that queue through it.
///
/// Drop waits for a running [`Handler::changed`] unless it is called from within
/// that thread; it sleeps.
#[pin_data(PinnedDrop)]
pub(crate) struct Watch<H: Handler> {
    #[pin]
    watch: Opaque<bindings::xenbus_watch>,
    // Read by the C side as long as the watch is registered.
    _node: CString,
    registered: AtomicFlag,
    handler: H,
}

// SAFETY: Registering and unregistering work from any thread; the handler is Send.
unsafe impl<H: Handler> Send for Watch<H> {}
// SAFETY: A shared `Watch` offers nothing; the handler, which the xenwatch thread
// shares, is Sync.
unsafe impl<H: Handler> Sync for Watch<H> {}

impl<H: Handler> Watch<H> {
    /// Watches `node` and everything below it. Sleeps.
    pub(crate) fn new(node: CString, handler: H) -> impl PinInit<Self, Error> {
        let text = node.as_char_ptr();
        try_pin_init!(&this in Self {
            watch <- Opaque::ffi_init(|watch: *mut bindings::xenbus_watch| {
                // SAFETY: `watch` is valid for writes. `text` is the heap memory of
                // `_node`: it does not move and lives as long as the watch.
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
                // SAFETY: All fields are initialised, so the callbacks may come at
                // once; the watch is pinned and stays registered until `drop`.
                to_result(unsafe {
                    bindings::register_xenbus_watch((*this.as_ptr()).watch.get())
                })?;
            },
        }? Error)
    }

    /// Ends the watch ahead of its drop. Sleeps; waits for a running
    /// [`Handler::changed`] as drop does.
    pub(crate) fn stop(&self) {
        if self.registered.xchg(false, Full) {
            // SAFETY: Registered since `new`, and the flag lets only one come here.
            unsafe { bindings::unregister_xenbus_watch(self.watch.get()) };
        }
    }

    /// # Safety
    ///
    /// `watch` is the field of a registered `Watch<H>`.
    unsafe fn of<'a>(watch: *mut bindings::xenbus_watch) -> &'a Self {
        let watch: *mut Opaque<bindings::xenbus_watch> = watch.cast();
        // SAFETY: By the contract; a registered watch is alive.
        unsafe { &*container_of!(watch, Self, watch) }
    }

    extern "C" fn will_handle(
        watch: *mut bindings::xenbus_watch,
        path: *const c_char,
        _token: *const c_char,
    ) -> bool {
        // SAFETY: xenbus passes a registered watch and a NUL-terminated path, and
        // holds the lock that guards `nr_pending`.
        unsafe { (*watch).nr_pending == 0 && Self::of(watch).handler.matters(super::bytes(path)) }
    }

    extern "C" fn callback(
        watch: *mut bindings::xenbus_watch,
        _path: *const c_char,
        _token: *const c_char,
    ) {
        // SAFETY: xenbus passes a registered watch, and `unregister_xenbus_watch`
        // waits for this call to end (the handler cannot drop its own watch).
        unsafe { Self::of(watch) }.handler.changed();
    }
}

#[pinned_drop]
impl<H: Handler> PinnedDrop for Watch<H> {
    fn drop(self: Pin<&mut Self>) {
        self.stop();
    }
}

/// Keeps the code of a module until its watch callbacks have returned.
///
/// A callback may drop the last reference to its module and still have a few
/// instructions to go. Unregistering any watch waits for the callback that runs
/// now; this is one that never fires, to be dropped after the module's driver is
/// unregistered.
pub(crate) struct Barrier(Pin<KBox<Watch<Never>>>);

impl Barrier {
    /// Sleeps.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, or what xenstored answers.
    pub(crate) fn new() -> Result<Self> {
        let node = CString::try_from_fmt(fmt!("domid"))?;
        Ok(Self(KBox::pin_init(Watch::new(node, Never), GFP_KERNEL)?))
    }
}

impl Drop for Barrier {
    fn drop(&mut self) {
        self.0.stop();
    }
}

struct Never;

impl Handler for Never {
    fn matters(&self, _path: &[u8]) -> bool {
        false
    }

    fn changed(&self) {}
}
