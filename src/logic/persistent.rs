// SPDX-License-Identifier: GPL-2.0

//! Which grants of a frontend stay mapped from one request to the next.
//!
//! A frontend that offers persistent grants uses the same few frames again and
//! again; mapping each only once spares Xen's work on every request. The table
//! remembers them by grant reference. It never grows: its room is given to it.
//!
//! The same grant may be used by several requests at once, so each entry counts its
//! users, and only an entry without users can be taken out.
//!
//! References are chosen by the guest. A `key` that it does not know decides which
//! chain a reference belongs to, so that it cannot put all of them into one.

/// The place of an entry in the table.
pub type EntryIndex = u16;

/// Ends a chain.
const NONE: EntryIndex = EntryIndex::MAX;
/// The most entries a table can have.
pub const ENTRIES_MAX: usize = 16_384;

/// Room for one entry.
#[derive(Debug)]
pub struct TableSlot<P> {
    entry: Option<Entry<P>>,
    /// The next slot of the chain, or of the free ones.
    next: EntryIndex,
    /// The first slot of the chain whose number is this slot's.
    chain: EntryIndex,
}

impl<P> TableSlot<P> {
    /// Empty room.
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

/// Grants that stay mapped; `P` is what is kept of each.
///
/// # Invariants
///
/// Every slot with an entry is in the chain of its reference, every other one in
/// the chain of free slots.
#[derive(Debug)]
pub struct GrantTable<P, S> {
    slots: S,
    key: u32,
    free: EntryIndex,
    count: u16,
    _page: core::marker::PhantomData<P>,
}

impl<P, S: core::ops::DerefMut<Target = [TableSlot<P>]>> GrantTable<P, S> {
    /// An empty table of as many entries as `slots` has, at most [`ENTRIES_MAX`].
    pub fn new(mut slots: S, key: u32) -> Self {
        let mut free = NONE;
        let mut place: EntryIndex = 0;
        for slot in slots.iter_mut().take(ENTRIES_MAX) {
            *slot = TableSlot::new();
            slot.next = free;
            free = place;
            place = place.wrapping_add(1);
        }
        Self {
            slots,
            // Odd, so that no two references become one.
            key: key | 1,
            free,
            count: 0,
            _page: core::marker::PhantomData,
        }
    }

    /// Entries.
    pub fn len(&self) -> u16 {
        self.count
    }

    /// No entries?
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// No room for one more?
    pub fn is_full(&self) -> bool {
        self.free == NONE
    }

    /// Is there an entry for `gref`?
    pub fn contains(&self, gref: u32) -> bool {
        self.find(gref).is_some()
    }

    /// The entry of `gref`, which gets one more user.
    pub fn acquire(&mut self, gref: u32, now: u64) -> Option<(EntryIndex, &mut P)> {
        let place = self.find(gref)?;
        let entry = self.slots.get_mut(usize::from(place))?.entry.as_mut()?;
        entry.users = entry.users.saturating_add(1);
        entry.used_at = now;
        Some((place, &mut entry.page))
    }

    /// Adds an entry with one user.
    ///
    /// # Errors
    ///
    /// Gives `page` back if there is no room, or an entry for `gref` already.
    pub fn insert(&mut self, gref: u32, page: P, now: u64) -> Result<EntryIndex, P> {
        let (place, chain) = (self.free, self.chain_of(gref));
        if self.find(gref).is_some() {
            return Err(page);
        }
        let head = self.chain(chain);
        let Some(slot) = self.slots.get_mut(usize::from(place)) else {
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
            first.chain = place;
        }
        self.count = self.count.saturating_add(1);
        Ok(place)
    }

    /// The entry at `place` has one user less.
    pub fn release(&mut self, place: EntryIndex) -> Option<&mut P> {
        let entry = self.slots.get_mut(usize::from(place))?.entry.as_mut()?;
        entry.users = entry.users.saturating_sub(1);
        Some(&mut entry.page)
    }

    /// Takes out every entry without users that was not used since `before`, at
    /// most `most` of them, unless it is `busy` otherwise.
    pub fn evict(
        &mut self,
        before: u64,
        most: usize,
        busy: impl Fn(&P) -> bool,
        mut gone: impl FnMut(P),
    ) {
        let mut left = most;
        for place in 0..self.slots.len().min(ENTRIES_MAX) as EntryIndex {
            if left == 0 {
                return;
            }
            if self.is_idle(place, before, &busy) {
                if let Some(page) = self.remove(place) {
                    gone(page);
                    left = left.saturating_sub(1);
                }
            }
        }
    }

    fn is_idle(&self, place: EntryIndex, before: u64, busy: impl Fn(&P) -> bool) -> bool {
        let entry = self
            .slots
            .get(usize::from(place))
            .and_then(|slot| slot.entry.as_ref());
        entry.is_some_and(|entry| entry.users == 0 && entry.used_at <= before && !busy(&entry.page))
    }

    fn remove(&mut self, place: EntryIndex) -> Option<P> {
        let slot = self.slots.get_mut(usize::from(place))?;
        let entry = slot.entry.take()?;
        let next = core::mem::replace(&mut slot.next, self.free);
        self.free = place;
        self.count = self.count.saturating_sub(1);
        self.unchain(self.chain_of(entry.gref), place, next);
        Some(entry.page)
    }

    /// Lets whatever leads to `place` lead to `next`.
    fn unchain(&mut self, chain: EntryIndex, place: EntryIndex, next: EntryIndex) {
        let mut at = self.chain(chain);
        if at == place {
            if let Some(first) = self.slots.get_mut(usize::from(chain)) {
                first.chain = next;
            }
            return;
        }
        while let Some(slot) = self.slots.get_mut(usize::from(at)) {
            if slot.next == place {
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

    /// The number of the chain of `gref`: a multiplicative hash, scaled to the
    /// number of slots.
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
        let mut gone = Vec::new();
        table.evict(before, most, |_| false, |page| gone.push(page));
        gone.sort_unstable();
        gone
    }

    #[test]
    fn a_grant_is_found_by_its_reference() {
        let mut t = table(4);
        assert!(t.acquire(8, 0).is_none());
        let place = t.insert(8, 108, 0).unwrap();
        assert_eq!(t.acquire(8, 0), Some((place, &mut 108)));
        assert!(t.acquire(9, 0).is_none());
        assert_eq!(t.insert(8, 7, 0), Err(7), "twice");
    }

    #[test]
    fn it_holds_as_many_as_it_has_room_for() {
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
    fn an_entry_with_users_stays() {
        let mut t = table(4);
        let place = t.insert(8, 108, 5).unwrap();
        t.acquire(8, 5);
        t.release(place);
        assert!(evicted(&mut t, u64::MAX, 9).is_empty());
        t.release(place);
        assert_eq!(evicted(&mut t, u64::MAX, 9), [108]);
        assert!(t.is_empty());
    }

    #[test]
    fn only_what_was_not_used_for_long_goes() {
        let mut t = table(4);
        for gref in 0..3 {
            let place = t.insert(gref, gref, u64::from(gref) * 10).unwrap();
            t.release(place);
        }
        assert_eq!(evicted(&mut t, 10, 1).len(), 1);
        assert_eq!(t.len(), 2);
        assert_eq!(evicted(&mut t, 10, 9).len(), 1);
        assert_eq!(evicted(&mut t, 19, 9), [] as [u32; 0]);
        assert_eq!(evicted(&mut t, 20, 9), [2]);
    }

    #[test]
    fn a_busy_page_stays() {
        let mut t = table(4);
        let place = t.insert(8, 108, 0).unwrap();
        assert_eq!(t.release(place), Some(&mut 108));
        t.evict(9, 9, |page| *page == 108, |_| panic!("evicted"));
        assert!(t.contains(8));
    }

    #[test]
    fn no_room_at_all_is_no_table() {
        let mut t = table(0);
        assert!(t.is_full());
        assert_eq!(t.insert(1, 1, 0), Err(1));
        assert!(t.acquire(1, 0).is_none());
    }
}
