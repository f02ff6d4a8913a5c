// SPDX-License-Identifier: GPL-2.0

//! Reading and writing xenstore.
//!
//! Each call sends a message to xenstored and sleeps until the reply. A value that a guest wrote is
//! untrusted: it is returned as bytes, which the caller has to parse.
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
    str::CString,
    types::NotThreadSafe, //
};

use super::bindings;

/// The maximum number of attempts at a transaction. An attempt fails only if another client wrote
/// to the same keys meanwhile.
const ATTEMPTS_MAX: usize = 64;

/// A private copy of a value.
///
/// # Invariants
///
/// `ptr` is an allocation of `kmalloc` that `xenbus_read` returned. It holds `len` bytes, and this
/// object owns it.
pub(crate) struct Value {
    ptr: NonNull<u8>,
    len: usize,
}

// SAFETY: The value owns its memory, which is not bound to a thread.
unsafe impl Send for Value {}
// SAFETY: No code writes the bytes after `xenbus_read` has returned them.
unsafe impl Sync for Value {}

impl Value {
    /// Returns the bytes, without a NUL terminator.
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: By the type invariant `ptr` holds `len` bytes, which do not change.
        unsafe { core::slice::from_raw_parts(self.ptr.as_ptr(), self.len) }
    }
}

impl Drop for Value {
    fn drop(&mut self) {
        // SAFETY: By the type invariant this object owns the allocation.
        unsafe { bindings::kfree(self.ptr.as_ptr().cast()) };
    }
}

/// The names of the keys in a directory.
///
/// # Invariants
///
/// `ptr` is an allocation of `kmalloc` that `xenbus_directory` returned. It holds `count` pointers
/// to NUL-terminated strings, which are in the same allocation. This object owns it.
pub(crate) struct Names {
    ptr: NonNull<*mut c_char>,
    count: usize,
}

impl Names {
    /// Returns whether `name` is one of the names.
    pub(crate) fn has(&self, name: &CStr) -> bool {
        // SAFETY: By the type invariant `ptr` holds `count` pointers, and each points to a
        // NUL-terminated string that lives as long as `self`.
        let mut names = unsafe {
            let names = core::slice::from_raw_parts(self.ptr.as_ptr(), self.count);
            names.iter().map(|name| super::text(*name))
        };
        names.any(|other| other.to_bytes_with_nul() == name.to_bytes_with_nul())
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        // SAFETY: By the type invariant this object owns the allocation.
        unsafe { bindings::kfree(self.ptr.as_ptr().cast()) };
    }
}

/// The id of the transaction within which keys are read and written (`struct xenbus_transaction`).
pub(crate) struct Store(u32);

/// No transaction (`XBT_NIL`): each call takes effect at once.
pub(crate) const DIRECT: Store = Store(0);

impl Store {
    fn raw(&self) -> bindings::xenbus_transaction {
        bindings::xenbus_transaction { id: self.0 }
    }

    /// Reads `dir/key`. Returns `None` if the key does not exist. Sleeps.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; xenstored's error, other than `ENOENT`.
    pub(crate) fn read(&self, dir: &CStr, key: &CStr) -> Result<Option<Value>> {
        let mut len: c_uint = 0;
        let transaction = self.raw();
        // SAFETY: Both strings are NUL-terminated. `len` is valid for a write.
        let ptr = from_err_ptr(unsafe {
            bindings::xenbus_read(transaction, dir.as_char_ptr(), key.as_char_ptr(), &mut len)
        });
        match ptr {
            Ok(ptr) => {
                let ptr = NonNull::new(ptr.cast::<u8>()).ok_or(EIO)?;
                // INVARIANT: `xenbus_read` returned an allocation of `len` bytes and a NUL, which
                // the caller owns.
                Ok(Some(Value {
                    ptr,
                    len: len as usize,
                }))
            }
            Err(e) if e == ENOENT => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Lists the keys in `dir`. Sleeps.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; xenstored's error.
    pub(crate) fn list(&self, dir: &CStr) -> Result<Names> {
        let mut count: c_uint = 0;
        // SAFETY: Both strings are NUL-terminated. `count` is valid for a write.
        let ptr = from_err_ptr(unsafe {
            bindings::xenbus_directory(self.raw(), dir.as_char_ptr(), c"".as_char_ptr(), &mut count)
        })?;
        // INVARIANT: `xenbus_directory` returned an allocation with `count` pointers and the
        // NUL-terminated strings that they point to. The caller owns it.
        Ok(Names {
            ptr: NonNull::new(ptr).ok_or(EIO)?,
            count: count as usize,
        })
    }

    /// Writes `value` to `dir/key`. Sleeps.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; xenstored's error.
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

    /// Removes `dir/key`. Sleeps.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; xenstored's error. A key that does not exist is no error if `dir` exists.
    pub(crate) fn remove(&self, dir: &CStr, key: &CStr) -> Result {
        // SAFETY: Both strings are NUL-terminated.
        to_result(unsafe { bindings::xenbus_rm(self.raw(), dir.as_char_ptr(), key.as_char_ptr()) })
    }
}

/// Runs `body` in a transaction if the backend directory `dir` exists. Outside of a transaction, a
/// write would create the directory again if the toolstack had just deleted it. Sleeps.
///
/// # Errors
///
/// `ENOENT` if the directory does not exist; otherwise as [`transaction`].
pub(crate) fn within<T>(dir: &CStr, mut body: impl FnMut(&Store, &CStr) -> Result<T>) -> Result<T> {
    // Every backend directory has the key `frontend`: the toolstack writes it when it creates the
    // directory, and removes it only together with the directory.
    transaction(|store| match store.read(dir, c"frontend")? {
        Some(_) => body(store, dir),
        None => Err(ENOENT),
    })
}

/// Held for the length of a transaction: xenstored allows an unprivileged domain ten at a time by
/// default, and each disk of a driver domain would start its own.
struct TransactionLock(NotThreadSafe);

impl TransactionLock {
    fn new() -> Self {
        // SAFETY: The caller may sleep, as for every call to xenstored; `drop` unlocks once.
        unsafe { bindings::xbk_transaction_lock() };
        Self(NotThreadSafe)
    }
}

impl Drop for TransactionLock {
    fn drop(&mut self) {
        // SAFETY: `new` locked it in this task, for the guard cannot be sent.
        unsafe { bindings::xbk_transaction_unlock() };
    }
}

/// Runs `body` in a transaction: other clients see all of its writes or none. If another client has
/// written to the same keys meanwhile, `body` runs again. Sleeps.
///
/// # Errors
///
/// The error of `body`, and then nothing is written; xenstored's error; `EBUSY` if all attempts
/// failed.
pub(crate) fn transaction<T>(mut body: impl FnMut(&Store) -> Result<T>) -> Result<T> {
    for _ in 0..ATTEMPTS_MAX {
        let _lock = TransactionLock::new();
        let mut raw = DIRECT.raw();
        // SAFETY: `raw` is valid for a write.
        to_result(unsafe { bindings::xenbus_transaction_start(&mut raw) })?;
        let outcome = body(&Store(raw.id));
        // SAFETY: The transaction was started above, and only this line ends it.
        let end = to_result(unsafe { bindings::xenbus_transaction_end(raw, outcome.is_err()) });
        match (outcome, end) {
            (Ok(_), Err(e)) if e == EAGAIN => continue,
            (Ok(_), Err(e)) => return Err(e),
            (outcome, _) => return outcome,
        }
    }
    Err(EBUSY)
}
