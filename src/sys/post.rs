// SPDX-License-Identifier: GPL-2.0

//! A letter box without a lock: anybody puts letters in, one reader takes them all.
//!
//! The reader is awake from [`PostBox::collect`] until [`PostBox::sleep`] says that there
//! is nothing more; meanwhile nobody has to wake it. A letter has the room for its place
//! in the box, so putting one in never fails and never allocates.
//!
//! ```text
//!            put: "wake it"            collect
//!  asleep ------------------> letters ---------> awake
//!    ^                           ^                 | |
//!    |                           +------ put ------+ |
//!    +------------------- sleep ---------------------+
//! ```

use core::ops::{
    Deref,
    DerefMut, //
};
use core::ptr::null_mut;

use kernel::{
    prelude::*,
    sync::atomic::{
        ordering::{
            Full,
            Relaxed, //
        },
        Atomic, //
    }, //
};

/// Something that can be put into a [`PostBox`].
pub(crate) struct Letter<T> {
    /// The letter that was put in before this one, while it is in a box.
    next: *mut Letter<T>,
    value: T,
}

// SAFETY: `next` is only used by the box that owns both letters.
unsafe impl<T: Send> Send for Letter<T> {}

impl<T> Letter<T> {
    /// A letter that holds `value`.
    pub(crate) fn new(value: T) -> Self {
        Self {
            next: null_mut(),
            value,
        }
    }
}

impl<T> Deref for Letter<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> DerefMut for Letter<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

/// A letter box.
///
/// # Invariants
///
/// `last` is null (empty, the reader sleeps), [`PostBox::AWAKE`] (empty, the reader is
/// awake), or the letter that came last, whose `next` leads to those before it and ends
/// with null. The box owns the letters in it, as [`KBox::into_raw`] gave them.
pub(crate) struct PostBox<T> {
    last: Atomic<*mut Letter<T>>,
}

// SAFETY: A box owns letters, which may be sent.
unsafe impl<T: Send> Send for PostBox<T> {}
// SAFETY: As above; whoever shares a box can only put letters in and take them out.
unsafe impl<T: Send> Sync for PostBox<T> {}

impl<T> PostBox<T> {
    /// Never the address of a letter.
    const AWAKE: *mut Letter<T> = core::ptr::without_provenance_mut(1);

    /// An empty box; the reader sleeps.
    pub(crate) fn new() -> Self {
        const { assert!(core::mem::align_of::<Letter<T>>() > 1) };
        // INVARIANT: Null.
        Self {
            last: Atomic::new(null_mut()),
        }
    }

    /// Puts `letter` in. Returns whether the reader has to be woken. Any context.
    #[must_use]
    pub(crate) fn put(&self, letter: KBox<Letter<T>>) -> bool {
        let letter = KBox::into_raw(letter);
        let mut last = self.last.load(Relaxed);
        loop {
            let rest = if last == Self::AWAKE {
                null_mut()
            } else {
                last
            };
            // SAFETY: Nobody else has the letter before the exchange succeeds.
            unsafe { (*letter).next = rest };
            // INVARIANT: It leads to what was there.
            match self.last.cmpxchg(last, letter, Full) {
                Ok(_) => return last.is_null(),
                Err(now) => last = now,
            }
        }
    }

    /// Takes all letters out, the first to come first. The reader is awake from now on.
    /// To be called by the reader only.
    pub(crate) fn collect(&self) -> Letters<T> {
        // INVARIANT: Empty, awake.
        let mut last = self.last.xchg(Self::AWAKE, Full);
        if last == Self::AWAKE {
            last = null_mut();
        }
        let mut first = null_mut();
        while !last.is_null() {
            // SAFETY: By the type invariant, which made the letters ours.
            let next = unsafe { core::mem::replace(&mut (*last).next, first) };
            first = last;
            last = next;
        }
        // INVARIANT: The same letters in the opposite order.
        Letters(first)
    }

    /// The reader stops looking, unless there is something: then returns `false`. To be
    /// called by the reader only, after [`Self::collect`].
    pub(crate) fn sleep(&self) -> bool {
        // INVARIANT: Only an empty box changes.
        self.last.cmpxchg(Self::AWAKE, null_mut(), Full).is_ok()
    }
}

impl<T> Drop for PostBox<T> {
    fn drop(&mut self) {
        drop(self.collect());
    }
}

/// Letters that were taken out of a box.
///
/// # Invariants
///
/// Null, or a letter that is ours, as [`KBox::into_raw`] gave it, and by its `next` the
/// ones after it.
pub(crate) struct Letters<T>(*mut Letter<T>);

impl<T> Iterator for Letters<T> {
    type Item = KBox<Letter<T>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_null() {
            return None;
        }
        // SAFETY: By the type invariant.
        let letter = unsafe { KBox::from_raw(self.0) };
        // INVARIANT: The rest.
        self.0 = letter.next;
        Some(letter)
    }
}

impl<T> Drop for Letters<T> {
    fn drop(&mut self) {
        self.for_each(drop);
    }
}
