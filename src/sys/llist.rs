// SPDX-License-Identifier: GPL-2.0

//! A list without a lock: any context pushes, one consumer takes everything.
//!
//! The kernel's `llist` does the same; this one also knows whether its consumer is awake. The
//! consumer is awake from [`LlistHead::take_all`] until [`LlistHead::try_sleep`] succeeds, and
//! needs no wakeup meanwhile. A node carries its own link, so a push never fails and never
//! allocates.
//!
//! ```text
//!            push: "wake it"            take_all
//!  asleep ---------------------> nodes ---------> awake
//!    ^                             ^                | |
//!    |                             +----- push -----+ |
//!    +------------------- try_sleep ------------------+
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

/// A value that can be pushed to a [`LlistHead`].
pub(crate) struct LlistNode<T> {
    /// The node that was pushed before this one, while this one is in a list.
    next: *mut LlistNode<T>,
    value: T,
}

// SAFETY: Only the list that owns both nodes uses `next`.
unsafe impl<T: Send> Send for LlistNode<T> {}

impl<T> LlistNode<T> {
    /// A node that holds `value` and is in no list.
    pub(crate) fn new(value: T) -> Self {
        Self {
            next: null_mut(),
            value,
        }
    }
}

impl<T> Deref for LlistNode<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> DerefMut for LlistNode<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

/// The head of a list.
///
/// # Invariants
///
/// `last` is null (the list is empty and the consumer asleep), [`LlistHead::AWAKE`] (the list is
/// empty and the consumer awake), or the node that was pushed last, whose `next` leads to the ones
/// before it and ends with null. The list owns its nodes, as [`KBox::into_raw`] gave them.
pub(crate) struct LlistHead<T> {
    last: Atomic<*mut LlistNode<T>>,
}

// SAFETY: A list owns its nodes, which may be sent.
unsafe impl<T: Send> Send for LlistHead<T> {}
// SAFETY: As above; a shared list only takes nodes in and gives nodes out.
unsafe impl<T: Send> Sync for LlistHead<T> {}

impl<T> LlistHead<T> {
    /// Never the address of a node.
    const AWAKE: *mut LlistNode<T> = core::ptr::without_provenance_mut(1);

    /// An empty list whose consumer is asleep.
    pub(crate) fn new() -> Self {
        const { assert!(core::mem::align_of::<LlistNode<T>>() > 1) };
        // INVARIANT: The pointer is null.
        Self {
            last: Atomic::new(null_mut()),
        }
    }

    /// Pushes `node`. Returns whether the consumer has to be woken. Context: any.
    #[must_use]
    pub(crate) fn push(&self, node: KBox<LlistNode<T>>) -> bool {
        let node = KBox::into_raw(node);
        let mut last = self.last.load(Relaxed);
        loop {
            let rest = if last == Self::AWAKE {
                null_mut()
            } else {
                last
            };
            // SAFETY: Nobody else has the node before the exchange succeeds.
            unsafe { (*node).next = rest };
            // INVARIANT: The new node leads to what was there.
            match self.last.cmpxchg(last, node, Full) {
                Ok(_) => return last.is_null(),
                Err(now) => last = now,
            }
        }
    }

    /// Takes all nodes out, in the order of the pushes. The consumer, who alone calls this, is
    /// awake from now on.
    pub(crate) fn take_all(&self) -> Llist<T> {
        // INVARIANT: The list is empty and the consumer awake.
        let mut last = self.last.xchg(Self::AWAKE, Full);
        if last == Self::AWAKE {
            last = null_mut();
        }
        let mut first = null_mut();
        while !last.is_null() {
            // SAFETY: The nodes were the list's by the type invariant and are ours now.
            let next = unsafe { core::mem::replace(&mut (*last).next, first) };
            first = last;
            last = next;
        }
        // INVARIANT: The same nodes in the opposite order.
        Llist(first)
    }

    /// Lets the consumer, who alone calls this, sleep. Returns `false` if there are nodes to be
    /// taken first.
    pub(crate) fn try_sleep(&self) -> bool {
        // INVARIANT: Only an empty list changes.
        self.last.cmpxchg(Self::AWAKE, null_mut(), Full).is_ok()
    }
}

impl<T> Drop for LlistHead<T> {
    fn drop(&mut self) {
        drop(self.take_all());
    }
}

/// Nodes that were taken out of a list.
///
/// # Invariants
///
/// The pointer is null, or a node that is ours, as [`KBox::into_raw`] gave it, and that leads to
/// the ones after it by its `next`.
pub(crate) struct Llist<T>(*mut LlistNode<T>);

impl<T> Iterator for Llist<T> {
    type Item = KBox<LlistNode<T>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_null() {
            return None;
        }
        // SAFETY: By the type invariant the node is ours.
        let node = unsafe { KBox::from_raw(self.0) };
        // INVARIANT: The rest of the nodes.
        self.0 = node.next;
        Some(node)
    }
}

impl<T> Drop for Llist<T> {
    fn drop(&mut self) {
        self.for_each(drop);
    }
}
