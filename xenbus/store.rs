// SPDX-License-Identifier: GPL-2.0

//! Reading and writing xenstore.
//!
//! Every call talks to xenstored and sleeps until it has answered. Values that a
//! guest wrote are bytes to be parsed, nothing else.
//!
//! C header: [`include/xen/xenbus.h`](srctree/include/xen/xenbus.h)

use core::ptr::NonNull;

use kernel::{
    error::{
        from_err_ptr,
        to_result, //
    },
    fmt,
    prelude::*,
    str::CString, //
};

use super::bindings;

/// How often a transaction is started over before it is given up. Only somebody
/// who writes the same keys all the time can make us start over.
const TRIES: usize = 64;

/// A value as read: a private copy.
///
/// # Invariants
///
/// `ptr` was allocated by `kmalloc` in `xenbus_read`, is ours, and holds `len`
/// bytes.
pub(crate) struct Value {
    ptr: NonNull<u8>,
    len: usize,
}

// SAFETY: Owned memory without ties to a thread.
unsafe impl Send for Value {}
// SAFETY: Nothing writes the bytes after `xenbus_read` returned them.
unsafe impl Sync for Value {}

impl Value {
    /// The bytes, without a terminator.
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: By the type invariant.
        unsafe { core::slice::from_raw_parts(self.ptr.as_ptr(), self.len) }
    }
}

impl Drop for Value {
    fn drop(&mut self) {
        // SAFETY: By the type invariant; nobody else frees it.
        unsafe { bindings::kfree(self.ptr.as_ptr().cast()) };
    }
}

/// The names in a directory.
///
/// # Invariants
///
/// `ptr` was allocated by `kmalloc` in `xenbus_directory`, is ours, and holds `count`
/// pointers to NUL-terminated strings that live as long as it.
pub(crate) struct Names {
    ptr: NonNull<*mut c_char>,
    count: usize,
}

impl Names {
    /// Is `name` among them?
    pub(crate) fn has(&self, name: &CStr) -> bool {
        // SAFETY: By the type invariant.
        let names = unsafe { core::slice::from_raw_parts(self.ptr.as_ptr(), self.count) };
        // SAFETY: By the type invariant.
        let mut names = names.iter().map(|name| unsafe { super::text(*name) });
        names.any(|other| other.to_bytes_with_nul() == name.to_bytes_with_nul())
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        // SAFETY: By the type invariant; nobody else frees it.
        unsafe { bindings::kfree(self.ptr.as_ptr().cast()) };
    }
}

/// Where keys are read and written: directly, or within a transaction.
pub(crate) struct Store(u32);

/// No transaction: every call stands for itself.
pub(crate) const DIRECT: Store = Store(0);

impl Store {
    fn raw(&self) -> bindings::xenbus_transaction {
        bindings::xenbus_transaction { id: self.0 }
    }

    /// Reads `dir/key`; `None` if there is no such key.
    ///
    /// # Errors
    ///
    /// Whatever xenstored answers other than "no such key".
    pub(crate) fn read(&self, dir: &CStr, key: &CStr) -> Result<Option<Value>> {
        let mut len: c_uint = 0;
        let transaction = self.raw();
        // SAFETY: Both strings are NUL-terminated; `len` is valid for a write.
        let ptr = from_err_ptr(unsafe {
            bindings::xenbus_read(transaction, dir.as_char_ptr(), key.as_char_ptr(), &mut len)
        });
        match ptr {
            Ok(ptr) => {
                let ptr = NonNull::new(ptr.cast::<u8>()).ok_or(EIO)?;
                // INVARIANT: `xenbus_read` returned a kmalloc'ed copy of `len`
                // bytes (and a terminator), which the caller has to free.
                Ok(Some(Value {
                    ptr,
                    len: len as usize,
                }))
            }
            Err(e) if e == ENOENT => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// The names of what is in `dir`.
    ///
    /// # Errors
    ///
    /// Whatever xenstored answers.
    pub(crate) fn list(&self, dir: &CStr) -> Result<Names> {
        let mut count: c_uint = 0;
        // SAFETY: Both strings are NUL-terminated; `count` is valid for a write.
        let ptr = from_err_ptr(unsafe {
            bindings::xenbus_directory(self.raw(), dir.as_char_ptr(), c"".as_char_ptr(), &mut count)
        })?;
        // INVARIANT: `xenbus_directory` returned a kmalloc'ed array of `count` pointers
        // to NUL-terminated strings within the same allocation, which the caller has to
        // free.
        Ok(Names {
            ptr: NonNull::new(ptr).ok_or(EIO)?,
            count: count as usize,
        })
    }

    /// Writes `dir/key`.
    pub(crate) fn write(&self, dir: &CStr, key: &CStr, value: fmt::Arguments<'_>) -> Result {
        let value = CString::try_from_fmt(value)?;
        // SAFETY: All three strings are NUL-terminated.
        to_result(unsafe {
            bindings::xenbus_write(
                self.raw(),
                dir.as_char_ptr(),
                key.as_char_ptr(),
                value.as_char_ptr(),
            )
        })
    }

    /// Removes `dir/key`.
    pub(crate) fn remove(&self, dir: &CStr, key: &CStr) -> Result {
        // SAFETY: Both strings are NUL-terminated.
        to_result(unsafe { bindings::xenbus_rm(self.raw(), dir.as_char_ptr(), key.as_char_ptr()) })
    }
}

/// Runs `body` in a transaction if the backend directory `dir` still exists. A plain
/// write would bring a directory back to life that the toolstack just deleted.
///
/// # Errors
///
/// `ENOENT` if the directory is gone; else as [`transaction`].
pub(crate) fn within<T>(dir: &CStr, mut body: impl FnMut(&Store, &CStr) -> Result<T>) -> Result<T> {
    // A toolstack writes this key first and deletes it with all others.
    transaction(|store| match store.read(dir, c"frontend")? {
        Some(_) => body(store, dir),
        None => Err(ENOENT),
    })
}

/// Runs `body` in a transaction: others see all of its writes or none. Started
/// over when somebody else wrote the same keys meanwhile.
///
/// # Errors
///
/// What `body` returns (then nothing is written), or what xenstored answers.
pub(crate) fn transaction<T>(mut body: impl FnMut(&Store) -> Result<T>) -> Result<T> {
    for _ in 0..TRIES {
        let mut raw = DIRECT.raw();
        // SAFETY: `raw` is valid for a write.
        to_result(unsafe { bindings::xenbus_transaction_start(&mut raw) })?;
        let outcome = body(&Store(raw.id));
        // SAFETY: The transaction was started above and is ended exactly once.
        let end = to_result(unsafe { bindings::xenbus_transaction_end(raw, outcome.is_err()) });
        match (outcome, end) {
            (Ok(_), Err(e)) if e == EAGAIN => continue,
            (Ok(_), Err(e)) => return Err(e),
            (outcome, _) => return outcome,
        }
    }
    Err(EBUSY)
}
