// SPDX-License-Identifier: GPL-2.0

//! Which transfers of a batch are adjacent to the previous one on the disk, so that the block layer
//! can merge them.

/// The end of the previous transfer of a batch.
#[derive(Clone, Copy, Debug, Default)]
pub struct MergeHint {
    end: Option<u64>,
}

impl MergeHint {
    /// The state before the first transfer.
    pub const fn new() -> Self {
        Self { end: None }
    }

    /// Records a transfer of `sectors` sectors from `first` on. Returns whether it begins at
    /// the end of the previous one. A transfer without sectors is not adjacent to any other.
    pub fn continues(&mut self, first: u64, sectors: u32) -> bool {
        if sectors == 0 {
            self.end = None;
            return false;
        }
        let continues = self.end == Some(first);
        self.end = first.checked_add(u64::from(sectors));
        continues
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transfer_continues_at_the_end_of_the_previous_one() {
        let mut merge_hint = MergeHint::new();
        assert!(!merge_hint.continues(0, 8), "the first transfer");
        assert!(merge_hint.continues(8, 8));
        assert!(!merge_hint.continues(8, 8), "the same again");
        assert!(!merge_hint.continues(24, 8), "a gap");
        assert!(!merge_hint.continues(16, 8), "backwards");
        assert!(merge_hint.continues(24, 8));
    }

    #[test]
    fn a_transfer_without_sectors_is_not_adjacent() {
        let mut merge_hint = MergeHint::new();
        merge_hint.continues(0, 8);
        assert!(!merge_hint.continues(0, 0));
        assert!(!merge_hint.continues(0, 8));
        assert!(merge_hint.continues(8, 8));
    }

    #[test]
    fn no_transfer_continues_after_the_largest_sector() {
        let mut merge_hint = MergeHint::new();
        merge_hint.continues(u64::MAX, 8);
        assert!(!merge_hint.continues(7, 8));
    }
}
