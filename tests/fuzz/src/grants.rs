// SPDX-License-Identifier: GPL-2.0

//! The table of persistent grants is compared with a `BTreeMap`, for any sequence of
//! operations.

use std::collections::BTreeMap;

use rblkback_logic::persistent::EntryIndex;
use rblkback_logic::persistent::GrantTable;
use rblkback_logic::persistent::TableSlot;

use crate::input::Input;

struct Entry {
    index: EntryIndex,
    users: u32,
    used_at: u64,
}

struct Pair {
    table: GrantTable<u32, Vec<TableSlot<u32>>>,
    model: BTreeMap<u32, Entry>,
    entries: usize,
    now: u64,
    evicted: bool,
}

pub fn run(data: &[u8]) -> bool {
    let mut input = Input::new(data);
    let (entries, key) = (usize::from(input.up_to(24)), input.u32());
    let slots = (0..entries).map(|_| TableSlot::new()).collect();
    let mut pair = Pair {
        table: GrantTable::new(slots, key),
        model: BTreeMap::new(),
        entries,
        now: 0,
        evicted: false,
    };
    while !input.is_empty() {
        match input.up_to(7) {
            0..=2 => pair.use_grant(gref(&mut input)),
            3..=5 => pair.end_use(gref(&mut input)),
            6 => pair.evict(&mut input),
            _ => pair.now = pair.now.saturating_add(input.near(u64::MAX)),
        }
        pair.compare();
    }
    let evicted = pair.evicted;
    pair.empty_and_fill();
    evicted
}

/// A grant reference: one of a few, so that they repeat; one that differs only in the upper half;
/// or any.
fn gref(input: &mut Input<'_>) -> u32 {
    match input.up_to(3) {
        0 => u32::from(input.up_to(3)) << 16,
        1 => input.u32(),
        _ => u32::from(input.up_to(31)),
    }
}

impl Pair {
    fn use_grant(&mut self, gref: u32) {
        let known = self.table.acquire(gref, self.now);
        let known = known.map(|(index, page)| (index, *page));
        if let Some(entry) = self.model.get_mut(&gref) {
            assert_eq!(known, Some((entry.index, gref)));
            entry.users += 1;
            entry.used_at = self.now;
            assert_eq!(
                self.table.insert(gref, 7, self.now),
                Err(7),
                "inserted twice"
            );
            return;
        }
        assert_eq!(known, None);
        let is_full = self.model.len() == self.entries;
        assert_eq!(self.table.is_full(), is_full);
        match self.table.insert(gref, gref, self.now) {
            Err(page) => assert!(is_full && page == gref),
            Ok(index) => {
                assert!(!is_full && usize::from(index) < self.entries);
                assert!(self.model.values().all(|entry| entry.index != index));
                let entry = Entry {
                    index,
                    users: 1,
                    used_at: self.now,
                };
                self.model.insert(gref, entry);
            }
        }
    }

    fn end_use(&mut self, gref: u32) {
        match self.model.get_mut(&gref) {
            Some(entry) if entry.users > 0 => {
                assert_eq!(self.table.release(entry.index).copied(), Some(gref));
                entry.users -= 1;
            }
            Some(_) => {}
            None => assert_eq!(self.table.release(EntryIndex::MAX), None),
        }
    }

    fn evict(&mut self, input: &mut Input<'_>) {
        let before = self.now.saturating_sub(input.near(self.now));
        let (most, busy) = (usize::from(input.up_to(9)), input.u32());
        self.evict_some(before, most, |gref| gref & busy == 1);
    }

    fn evict_some(&mut self, before: u64, most: usize, busy: impl Fn(u32) -> bool) {
        let may_go =
            |gref: u32, entry: &Entry| entry.users == 0 && entry.used_at <= before && !busy(gref);
        let able = |(gref, entry): &(&u32, &Entry)| may_go(**gref, entry);
        let expected = self.model.iter().filter(able).count().min(most);
        let mut evicted = Vec::new();
        let is_busy = |page: &u32| busy(*page);
        self.table
            .evict(before, most, is_busy, |page| evicted.push(page));
        assert_eq!(evicted.len(), expected);
        self.evicted |= !evicted.is_empty();
        for gref in evicted {
            let entry = self
                .model
                .remove(&gref)
                .expect("each grant is in the table, once");
            assert!(may_go(gref, &entry), "{gref} was in use");
        }
    }

    fn compare(&self) {
        assert_eq!(usize::from(self.table.len()), self.model.len());
        assert_eq!(self.table.is_empty(), self.model.is_empty());
        assert!(self.model.keys().all(|gref| self.table.contains(*gref)));
    }

    /// Checks that no slot was lost: the table can be emptied and filled again.
    fn empty_and_fill(&mut self) {
        for gref in self.model.keys().copied().collect::<Vec<_>>() {
            while self.model[&gref].users > 0 {
                self.end_use(gref);
            }
        }
        self.evict_some(u64::MAX, usize::MAX, |_| false);
        assert!(self.table.is_empty());
        for gref in 0..self.entries as u32 {
            self.use_grant(gref);
        }
        assert!(self.table.is_full());
        self.compare();
    }
}
