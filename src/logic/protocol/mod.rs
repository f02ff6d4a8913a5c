// SPDX-License-Identifier: GPL-2.0

//! The block protocol (blkif): parsing and checking of what a frontend writes into a ring.
//!
//! Xenstore, limits and devices are elsewhere.
//!
//! | file | holds |
//! |---|---|
//! | [`abi`] | the layout of a ring slot for each guest ABI |
//! | [`disk_view`] | what requests are checked against, and the reasons to refuse one |
//! | [`request`] | parsing a slot, checking a transfer |
//! | [`discard`] | checking a discard |
//! | [`index`] | ring index arithmetic |
//! | [`merge_hint`] | which transfers of a batch are adjacent on the disk |

pub mod abi;
pub mod discard;
pub mod disk_view;
pub mod index;
pub mod merge_hint;
pub mod request;
