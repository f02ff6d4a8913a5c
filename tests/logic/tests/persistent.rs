// SPDX-License-Identifier: GPL-2.0

//! The table of persistent grants is compared with a `BTreeMap`, for random sequences of
//! operations.

mod host;

use std::collections::BTreeMap;

use host::cases;
use proptest::collection::vec;
use proptest::prelude::*;
use rblkback_logic::persistent::EntryIndex;
use rblkback_logic::persistent::GrantTable;
use rblkback_logic::persistent::TableSlot;

#[derive(Clone, Debug)]
enum Act {
    /// A request uses this grant.
    Use(u32),
    /// A request that uses this grant completes.
    End(u32),
    /// Evicts at most so many entries that were unused for so long.
    Evict(u64, usize),
}

struct Entry {
    index: EntryIndex,
    users: u32,
    used_at: u64,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    // Few grants, so that they repeat. Some differ only in the upper half.
    let gref = prop_oneof![0..12u32, (0..4u32).prop_map(|high| high << 16)];
    let act = prop_oneof![
        4 => gref.clone().prop_map(Act::Use),
        4 => gref.prop_map(Act::End),
        1 => (0..20u64, 0..6usize).prop_map(|(age, most)| Act::Evict(age, most)),
    ];
    vec(act, 0..200)
}

proptest! {
    #![proptest_config(cases(3000))]

    #[test]
    fn the_table_behaves_like_a_map(acts in acts(), entries in 0..9usize, key: u32) {
        let slots = (0..entries).map(|_| TableSlot::new()).collect();
        let mut table: GrantTable<u32, Vec<TableSlot<u32>>> = GrantTable::new(slots, key);
        let mut model: BTreeMap<u32, Entry> = BTreeMap::new();
        for (now, act) in acts.into_iter().enumerate() {
            let now = now as u64;
            match act {
                Act::Use(gref) => {
                    let known = table.acquire(gref, now).map(|(index, page)| (index, *page));
                    match model.get_mut(&gref) {
                        Some(entry) => {
                            prop_assert_eq!(known, Some((entry.index, gref)));
                            entry.users += 1;
                            entry.used_at = now;
                        }
                        None => {
                            prop_assert_eq!(known, None);
                            let full = model.len() == entries;
                            prop_assert_eq!(table.is_full(), full);
                            let inserted = table.insert(gref, gref, now);
                            prop_assert_eq!(inserted.is_err(), full);
                            if let Ok(index) = inserted {
                                let entry = Entry { index, users: 1, used_at: now };
                                model.insert(gref, entry);
                            }
                        }
                    }
                }
                Act::End(gref) => {
                    if let Some(entry) = model.get_mut(&gref).filter(|entry| entry.users > 0) {
                        prop_assert_eq!(table.release(entry.index).map(|page| *page), Some(gref));
                        entry.users -= 1;
                    }
                }
                Act::Evict(age, most) => {
                    let before = now.saturating_sub(age);
                    let idle = |entry: &Entry| entry.users == 0 && entry.used_at <= before;
                    let expected = model.values().filter(|e| idle(e)).count().min(most);
                    let mut evicted = Vec::new();
                    table.evict(before, most, |_| false, |page| evicted.push(page));
                    prop_assert_eq!(evicted.len(), expected);
                    for gref in evicted {
                        let entry = model.remove(&gref);
                        prop_assert!(entry.is_some_and(|entry| idle(&entry)));
                    }
                }
            }
            prop_assert_eq!(usize::from(table.len()), model.len());
            for gref in model.keys() {
                prop_assert!(table.contains(*gref));
            }
        }
    }
}
