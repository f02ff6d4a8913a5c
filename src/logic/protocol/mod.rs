// SPDX-License-Identifier: GPL-2.0

//! The block protocol: what a frontend writes into a ring, and what may be done about it.
//!
//! Nothing of xenstore is in here, nothing of limits, and nothing of devices.
//!
//! | file | holds |
//! |---|---|
//! | [`abi`] | where the fields of a ring slot lie, for each guest ABI |
//! | [`disk_view`] | what requests are checked against, and why one is refused |
//! | [`request`] | parsing a slot, checking a transfer |
//! | [`discard`] | checking a discard |
//! | [`index`] | ring index arithmetic |
//! | [`merge_hint`] | which transfers of a batch are neighbours on the disk |

pub mod abi;
pub mod discard;
pub mod disk_view;
pub mod index;
pub mod merge_hint;
pub mod request;
