// SPDX-License-Identifier: GPL-2.0

//! Lock-free lists: any context may push a node, and one consumer takes all nodes.
//!
//! This is the kernel's `llist` (`include/linux/llist.h`) with one more state: whether the consumer
//! is awake. The consumer is awake from [`LlistHead::take_all`] until [`LlistHead::try_sleep`]
//! succeeds, and needs no wakeup meanwhile. A node contains its link, so a push never fails and
//! never allocates.
//!
//! ```text
//!          push (returns true)          take_all
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
    /// The next node, while this node is in a [`LlistHead`], a [`Llist`] or, but for the last, a
    /// [`NodeQueue`]; otherwise unspecified.
    next: *mut LlistNode<T>,
    value: T,
}

// SAFETY: The value is `Send`. Only the list that owns both nodes dereferences `next`.
unsafe impl<T: Send> Send for LlistNode<T> {}

impl<T> LlistNode<T> {
    /// Creates a node with `value` that is in no list.
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
/// `last` is one of these:
///
/// - null: the list is empty and the consumer is asleep;
/// - [`LlistHead::AWAKE`]: the list is empty and the consumer is awake;
/// - the node that was pushed last. It and the nodes that follow by `next`, up to null, came from
///   [`KBox::into_raw`], and the list owns them.
pub(crate) struct LlistHead<T> {
    last: Atomic<*mut LlistNode<T>>,
}

// SAFETY: A list owns its nodes, which are `Send`.
unsafe impl<T: Send> Send for LlistHead<T> {}
// SAFETY: The methods of a shared list move nodes in and out by atomic exchanges, and the nodes are
// `Send`. They give no reference to a node.
unsafe impl<T: Send> Sync for LlistHead<T> {}

impl<T> LlistHead<T> {
    /// Marks an empty list with an awake consumer. Nodes are aligned, so this is never the address
    /// of one.
    const AWAKE: *mut LlistNode<T> = core::ptr::without_provenance_mut(1);

    /// Creates an empty list whose consumer is asleep.
    pub(crate) fn new() -> Self {
        const { assert!(core::mem::align_of::<LlistNode<T>>() > 1) };
        // INVARIANT: The pointer is null.
        Self {
            last: Atomic::new(null_mut()),
        }
    }

    /// Pushes `node`. Returns whether the caller has to wake the consumer.
    ///
    /// Context: any.
    #[must_use]
    pub(crate) fn push(&self, node: KBox<LlistNode<T>>) -> bool {
        let node = KBox::into_raw(node);
        let mut last = self.last.load(Relaxed);
        loop {
            let next = if last == Self::AWAKE {
                null_mut()
            } else {
                last
            };
            // SAFETY: `node` came from `into_raw`, and no other code has it before the exchange
            // succeeds.
            unsafe { (*node).next = next };
            // INVARIANT: The list owns `node`, which is followed by the nodes that the list had.
            match self.last.cmpxchg(last, node, Full) {
                Ok(_) => return last.is_null(),
                Err(current) => last = current,
            }
        }
    }

    /// Pushes `node` to the list that `head` finds by its value, if the consumer of that list is awake.
    /// Otherwise returns `node`, which is for [`Self::push`] then.
    ///
    /// The consumer may take the node, and the value that kept the list may be gone with it, before
    /// this returns: the list is not used after the push.
    ///
    /// Context: any.
    pub(crate) fn push_awake(
        node: KBox<LlistNode<T>>,
        head: impl Fn(&T) -> &Self,
    ) -> Result<(), KBox<LlistNode<T>>> {
        let head: *const Self = head(&node.value);
        let node = KBox::into_raw(node);
        // SAFETY: The value of `node` keeps the list valid while it is borrowed, and no other code has
        // `node` before an exchange succeeds.
        let last = unsafe { &(*head).last };
        let mut current = last.load(Relaxed);
        while !current.is_null() {
            let next = if current == Self::AWAKE {
                null_mut()
            } else {
                current
            };
            // SAFETY: As above.
            unsafe { (*node).next = next };
            // INVARIANT: The list owns `node`, which is followed by the nodes that the list had.
            match last.cmpxchg(current, node, Full) {
                Ok(_) => return Ok(()),
                Err(now) => current = now,
            }
        }
        // SAFETY: `node` came from `into_raw`, and is in no list.
        Err(unsafe { KBox::from_raw(node) })
    }

    /// Is the list empty and the consumer asleep? Both may be otherwise as soon as this returns.
    ///
    /// Context: any.
    pub(crate) fn is_asleep(&self) -> bool {
        self.last.load(Relaxed).is_null()
    }

    /// Are there no nodes? Context: as for [`Self::is_asleep`].
    pub(crate) fn is_empty(&self) -> bool {
        let last = self.last.load(Relaxed);
        last.is_null() || last == Self::AWAKE
    }

    /// Removes all nodes and returns them in the order of the pushes. The consumer is awake
    /// afterwards. Only the consumer may call this.
    pub(crate) fn take_all(&self) -> Llist<T> {
        // INVARIANT: The list is empty and the consumer is awake.
        let mut last = self.last.xchg(Self::AWAKE, Full);
        if last == Self::AWAKE {
            last = null_mut();
        }
        let mut first = null_mut();
        while !last.is_null() {
            // SAFETY: By the type invariant the list owned the nodes, which came from `into_raw`.
            // The exchange has passed them to this function.
            let next = unsafe { core::mem::replace(&mut (*last).next, first) };
            first = last;
            last = next;
        }
        // INVARIANT: `first` and the nodes that follow it are the nodes of the list, in the
        // opposite order.
        Llist(first)
    }

    /// Marks the consumer as asleep. Returns `false`, and does nothing, if the list has nodes. Only
    /// the consumer may call this, while it is awake.
    pub(crate) fn try_sleep(&self) -> bool {
        // INVARIANT: Only an empty list changes, to an empty list.
        self.last.cmpxchg(Self::AWAKE, null_mut(), Full).is_ok()
    }
}

impl<T> Drop for LlistHead<T> {
    fn drop(&mut self) {
        drop(self.take_all());
    }
}

/// A queue of nodes with one owner. It never allocates, because a node contains its link.
///
/// # Invariants
///
/// Either `first` and `last` are null, or `first` points to a node from which `last` is reached by `next`.
/// These nodes came from [`KBox::into_raw`], and this object owns them.
pub(crate) struct NodeQueue<T> {
    first: *mut LlistNode<T>,
    last: *mut LlistNode<T>,
    len: usize,
}

// SAFETY: The queue owns its nodes, which are `Send`.
unsafe impl<T: Send> Send for NodeQueue<T> {}

impl<T> NodeQueue<T> {
    /// Creates an empty queue.
    pub(crate) const fn new() -> Self {
        // INVARIANT: Both pointers are null.
        Self {
            first: null_mut(),
            last: null_mut(),
            len: 0,
        }
    }

    /// The number of nodes.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Are there no nodes?
    pub(crate) fn is_empty(&self) -> bool {
        self.first.is_null()
    }

    /// Adds a node at the end.
    pub(crate) fn push_back(&mut self, mut node: KBox<LlistNode<T>>) {
        node.next = null_mut();
        let node = KBox::into_raw(node);
        // INVARIANT: The queue owns `node`, which is reached from the node that was the last.
        if self.last.is_null() {
            self.first = node;
        } else {
            // SAFETY: By the type invariant the queue owns the node.
            unsafe { (*self.last).next = node };
        }
        self.last = node;
        self.len = self.len.saturating_add(1);
    }

    /// Adds a node at the beginning.
    pub(crate) fn push_front(&mut self, mut node: KBox<LlistNode<T>>) {
        node.next = self.first;
        // INVARIANT: The queue owns the node, from which the nodes that there were are reached.
        self.first = KBox::into_raw(node);
        if self.last.is_null() {
            self.last = self.first;
        }
        self.len = self.len.saturating_add(1);
    }

    /// Removes the node at the beginning.
    pub(crate) fn pop_front(&mut self) -> Option<KBox<LlistNode<T>>> {
        if self.first.is_null() {
            return None;
        }
        // SAFETY: By the type invariant the queue owns the node, which came from `into_raw`.
        let node = unsafe { KBox::from_raw(self.first) };
        // INVARIANT: The queue owns the nodes after `node`. There is none after the last one.
        if self.first == self.last {
            self.first = null_mut();
            self.last = null_mut();
        } else {
            self.first = node.next;
        }
        self.len = self.len.saturating_sub(1);
        Some(node)
    }
}

impl<T> Drop for NodeQueue<T> {
    fn drop(&mut self) {
        while self.pop_front().is_some() {}
    }
}

/// An iterator over nodes that [`LlistHead::take_all`] has removed.
///
/// # Invariants
///
/// The pointer is null or points to a node. That node and the nodes that follow by `next`, up to
/// null, came from [`KBox::into_raw`], and this object owns them.
pub(crate) struct Llist<T>(*mut LlistNode<T>);

impl<T> Iterator for Llist<T> {
    type Item = KBox<LlistNode<T>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_null() {
            return None;
        }
        // SAFETY: By the type invariant this object owns the node, which came from `into_raw`.
        let node = unsafe { KBox::from_raw(self.0) };
        // INVARIANT: This object owns the nodes after `node`.
        self.0 = node.next;
        Some(node)
    }
}

impl<T> Drop for Llist<T> {
    fn drop(&mut self) {
        self.for_each(drop);
    }
}
