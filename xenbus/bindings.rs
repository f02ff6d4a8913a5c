// SPDX-License-Identifier: GPL-2.0

//! The Xen API as bindgen sees it; made at build time (see `Kbuild`).
//!
//! For this folder only: what leaves it is wrapped.

#![allow(
    clippy::all,
    clippy::as_underscore,
    clippy::cast_lossless,
    clippy::ptr_as_ptr,
    clippy::ref_as_ptr,
    clippy::undocumented_unsafe_blocks,
    dead_code,
    missing_docs,
    non_camel_case_types,
    non_upper_case_globals,
    non_snake_case,
    improper_ctypes,
    unreachable_pub,
    unsafe_op_in_unsafe_fn,
    unused_imports
)]

include!(env!("RBLKBACK_XEN_BINDINGS"));
