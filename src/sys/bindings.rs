// SPDX-License-Identifier: GPL-2.0

//! Bindings of `helpers.h`, which documents the functions. bindgen generates them at build time,
//! see `Kbuild`. All other types are those of the kernel crate's bindings.
//!
//! Only this folder uses them. The rest of the module uses the wrappers.

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

include!(env!("RBLKBACK_SYS_BINDINGS"));
