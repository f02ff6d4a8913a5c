// SPDX-License-Identifier: GPL-2.0

//! The table of persistent grants: grants of a frontend that stay mapped between
//! requests.
//!
//! A frontend that offers persistent grants uses the same frames repeatedly. If each
//! frame is mapped only once, a request costs no grant operation. The table is a hash
//! table with the grant reference as the key. The caller supplies its memory; the
//! table never grows.
//!
//! Several requests may use the same grant at once. Each entry counts its users, and
//! only an entry without users can be evicted.
//!
//! The guest chooses the references. A secret `key` is part of the hash, so that the
//! guest cannot put all references into one chain.
//!
//! This file maps nothing: `P` stands for the mapped page, and the caller unmaps it.

/// The index of an entry in the table.
pub type EntryIndex = u16;

/// The end of a chain.
const NONE: EntryIndex = EntryIndex::MAX;
/// The largest number of entries of a table.
pub const ENTRIES_MAX: usize = 16_384;

/// Memory for one entry.
#[derive(Debug)]
pub struct TableSlot<P> {
    entry: Option<Entry<P>>,
    /// The next slot of the same chain, or of the free list.
    next: EntryIndex,
    /// The first slot of the chain that has the same number as this slot.
    chain: EntryIndex,
}

impl<P> TableSlot<P> {
    /// A slot without an entry.
    pub const fn new() -> Self {
        Self {
            entry: None,
            next: NONE,
            chain: NONE,
        }
    }
}

impl<P> Default for TableSlot<P> {
    fn default() -> Self {
        Self::new()
    }
}

#[derive(Debug)]
struct Entry<P> {
    gref: u32,
    users: u32,
    used_at: u64,
    page: P,
}

/// The table of persistent grants. `P` is the mapped page of a grant.
///
/// # Invariants
///
/// A slot with an entry is in the chain of its reference. A slot without an entry is
/// in the free list.
#[derive(Debug)]
pub struct GrantTable<P, S> {
    slots: S,
    key: u32,
    free: EntryIndex,
    count: u16,
    _page: core::marker::PhantomData<P>,
}

impl<P, S: core::ops::DerefMut<Target = [TableSlot<P>]>> GrantTable<P, S> {
    /// An empty table with one entry per element of `slots`, at most [`ENTRIES_MAX`].
    /// `key` should be random.
    pub fn new(mut slots: S, key: u32) -> Self {
        let mut free = NONE;
        let mut index: EntryIndex = 0;
        for slot in slots.iter_mut().take(ENTRIES_MAX) {
            *slot = TableSlot::new();
            slot.next = free;
            free = index;
            index = index.wrapping_add(1);
        }
        Self {
            slots,
            // An odd factor maps different references to different values.
            key: key | 1,
            free,
            count: 0,
            _page: core::marker::PhantomData,
        }
    }

    /// The number of entries.
    pub fn len(&self) -> u16 {
        self.count
    }

    /// Whether the table has no entry.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether every slot has an entry.
    pub fn is_full(&self) -> bool {
        self.free == NONE
    }

    /// Whether there is an entry for `gref`.
    pub fn contains(&self, gref: u32) -> bool {
        self.find(gref).is_some()
    }

    /// Adds a user to the entry of `gref` and sets its last use to `now`. `None` if there
    /// is no entry.
    pub fn acquire(&mut self, gref: u32, now: u64) -> Option<(EntryIndex, &mut P)> {
        let index = self.find(gref)?;
        let entry = self.slots.get_mut(usize::from(index))?.entry.as_mut()?;
        entry.users = entry.users.saturating_add(1);
        entry.used_at = now;
        Some((index, &mut entry.page))
    }

    /// Adds an entry for `gref` with one user.
    ///
    /// # Errors
    ///
    /// Returns `page` if the table is full or has an entry for `gref`.
    pub fn insert(&mut self, gref: u32, page: P, now: u64) -> Result<EntryIndex, P> {
        let (index, chain) = (self.free, self.chain_of(gref));
        if self.find(gref).is_some() {
            return Err(page);
        }
        let head = self.chain(chain);
        let Some(slot) = self.slots.get_mut(usize::from(index)) else {
            return Err(page);
        };
        self.free = slot.next;
        slot.next = head;
        slot.entry = Some(Entry {
            gref,
            users: 1,
            used_at: now,
            page,
        });
        if let Some(first) = self.slots.get_mut(usize::from(chain)) {
            first.chain = index;
        }
        self.count = self.count.saturating_add(1);
        Ok(index)
    }

    /// Removes a user from the entry at `index`. `None` if there is no entry.
    pub fn release(&mut self, index: EntryIndex) -> Option<&mut P> {
        let entry = self.slots.get_mut(usize::from(index))?.entry.as_mut()?;
        entry.users = entry.users.saturating_sub(1);
        Some(&mut entry.page)
    }

    /// Removes up to `most` entries that have no user, that were last used at `before`
    /// or earlier, and for which `busy` is false. Passes each page to `on_evict`.
    pub fn evict(
        &mut self,
        before: u64,
        most: usize,
        busy: impl Fn(&P) -> bool,
        mut on_evict: impl FnMut(P),
    ) {
        let mut left = most;
        for index in 0..self.slots.len().min(ENTRIES_MAX) as EntryIndex {
            if left == 0 {
                return;
            }
            if self.is_idle(index, before, &busy) {
                if let Some(page) = self.remove(index) {
                    on_evict(page);
                    left = left.saturating_sub(1);
                }
            }
        }
    }

    fn is_idle(&self, index: EntryIndex, before: u64, busy: impl Fn(&P) -> bool) -> bool {
        let entry = self
            .slots
            .get(usize::from(index))
            .and_then(|slot| slot.entry.as_ref());
        entry.is_some_and(|entry| entry.users == 0 && entry.used_at <= before && !busy(&entry.page))
    }

    fn remove(&mut self, index: EntryIndex) -> Option<P> {
        let slot = self.slots.get_mut(usize::from(index))?;
        let entry = slot.entry.take()?;
        let next = core::mem::replace(&mut slot.next, self.free);
        self.free = index;
        self.count = self.count.saturating_sub(1);
        self.unchain(self.chain_of(entry.gref), index, next);
        Some(entry.page)
    }

    /// Unlinks the slot at `index` from `chain`: its predecessor points to `next`.
    fn unchain(&mut self, chain: EntryIndex, index: EntryIndex, next: EntryIndex) {
        let mut at = self.chain(chain);
        if at == index {
            if let Some(first) = self.slots.get_mut(usize::from(chain)) {
                first.chain = next;
            }
            return;
        }
        while let Some(slot) = self.slots.get_mut(usize::from(at)) {
            if slot.next == index {
                slot.next = next;
                return;
            }
            at = slot.next;
        }
    }

    fn find(&self, gref: u32) -> Option<EntryIndex> {
        let mut at = self.chain(self.chain_of(gref));
        while let Some(slot) = self.slots.get(usize::from(at)) {
            if slot.entry.as_ref().is_some_and(|entry| entry.gref == gref) {
                return Some(at);
            }
            at = slot.next;
        }
        None
    }

    fn chain(&self, chain: EntryIndex) -> EntryIndex {
        self.slots
            .get(usize::from(chain))
            .map_or(NONE, |slot| slot.chain)
    }

    /// The chain number of `gref`: a multiplicative hash, scaled to the number of
    /// slots.
    fn chain_of(&self, gref: u32) -> EntryIndex {
        let mixed = (gref ^ (gref >> 16)).wrapping_mul(self.key);
        let slots = self.slots.len().min(ENTRIES_MAX) as u64;
        (u64::from(mixed).wrapping_mul(slots) >> 32) as EntryIndex
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(entries: usize) -> GrantTable<u32, Vec<TableSlot<u32>>> {
        let slots = (0..entries).map(|_| TableSlot::new()).collect();
        GrantTable::new(slots, 0x9e37_79b9)
    }

    fn evicted(
        table: &mut GrantTable<u32, Vec<TableSlot<u32>>>,
        before: u64,
        most: usize,
    ) -> Vec<u32> {
        let mut pages = Vec::new();
        table.evict(before, most, |_| false, |page| pages.push(page));
        pages.sort_unstable();
        pages
    }

    #[test]
    fn acquire_finds_a_grant_by_its_reference() {
        let mut t = table(4);
        assert!(t.acquire(8, 0).is_none());
        let index = t.insert(8, 108, 0).unwrap();
        assert_eq!(t.acquire(8, 0), Some((index, &mut 108)));
        assert!(t.acquire(9, 0).is_none());
        assert_eq!(t.insert(8, 7, 0), Err(7), "inserted twice");
    }

    #[test]
    fn a_table_has_one_entry_per_slot() {
        let mut t = table(3);
        for gref in 0..3 {
            assert!(!t.is_full());
            t.insert(gref, gref, 0).unwrap();
        }
        assert!(t.is_full());
        assert_eq!(t.insert(3, 3, 0), Err(3));
        t.release(0);
        assert_eq!(evicted(&mut t, 0, 9).len(), 1);
        assert!(t.insert(3, 3, 0).is_ok());
    }

    #[test]
    fn an_entry_with_users_is_not_evicted() {
        let mut t = table(4);
        let index = t.insert(8, 108, 5).unwrap();
        t.acquire(8, 5);
        t.release(index);
        assert!(evicted(&mut t, u64::MAX, 9).is_empty());
        t.release(index);
        assert_eq!(evicted(&mut t, u64::MAX, 9), [108]);
        assert!(t.is_empty());
    }

    #[test]
    fn only_entries_with_an_old_last_use_are_evicted() {
        let mut t = table(4);
        for gref in 0..3 {
            let index = t.insert(gref, gref, u64::from(gref) * 10).unwrap();
            t.release(index);
        }
        assert_eq!(evicted(&mut t, 10, 1).len(), 1);
        assert_eq!(t.len(), 2);
        assert_eq!(evicted(&mut t, 10, 9).len(), 1);
        assert_eq!(evicted(&mut t, 19, 9), [] as [u32; 0]);
        assert_eq!(evicted(&mut t, 20, 9), [2]);
    }

    #[test]
    fn a_busy_page_is_not_evicted() {
        let mut t = table(4);
        let index = t.insert(8, 108, 0).unwrap();
        assert_eq!(t.release(index), Some(&mut 108));
        t.evict(9, 9, |page| *page == 108, |_| panic!("evicted"));
        assert!(t.contains(8));
    }

    #[test]
    fn a_table_without_slots_is_full() {
        let mut t = table(0);
        assert!(t.is_full());
        assert_eq!(t.insert(1, 1, 0), Err(1));
        assert!(t.acquire(1, 0).is_none());
    }
}
