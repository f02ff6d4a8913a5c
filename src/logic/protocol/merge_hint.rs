// SPDX-License-Identifier: GPL-2.0

//! Which transfers of a batch continue the one before them on the disk.

/// Where the last transfer of a batch ended.
#[derive(Clone, Copy, Debug, Default)]
pub struct MergeHint {
    end: Option<u64>,
}

impl MergeHint {
    /// Before the first transfer.
    pub const fn new() -> Self {
        Self { end: None }
    }

    /// A transfer of `sectors` sectors from `first` on comes next. Does it begin where the
    /// one before it ended? One that moves nothing is nobody's neighbour.
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
    fn only_the_sector_after_the_last_one_continues() {
        let mut merge_hint = MergeHint::new();
        assert!(!merge_hint.continues(0, 8), "nothing came before");
        assert!(merge_hint.continues(8, 8));
        assert!(!merge_hint.continues(8, 8), "the same again");
        assert!(!merge_hint.continues(24, 8), "a gap");
        assert!(!merge_hint.continues(16, 8), "backwards");
        assert!(merge_hint.continues(24, 8));
    }

    #[test]
    fn a_flush_without_data_breaks_it() {
        let mut merge_hint = MergeHint::new();
        merge_hint.continues(0, 8);
        assert!(!merge_hint.continues(0, 0));
        assert!(!merge_hint.continues(0, 8));
        assert!(merge_hint.continues(8, 8));
    }

    #[test]
    fn nothing_comes_after_the_last_sector_there_can_be() {
        let mut merge_hint = MergeHint::new();
        merge_hint.continues(u64::MAX, 8);
        assert!(!merge_hint.continues(7, 8));
    }
}
