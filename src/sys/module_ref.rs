// SPDX-License-Identifier: GPL-2.0

//! A reference to this module: while there is one, it cannot be unloaded.
//!
//! C header: [`include/linux/module.h`](srctree/include/linux/module.h)

use kernel::{
    bindings,
    module::this_module, //
};

use super::helpers;

/// Keeps this module loaded.
///
/// The last one may be dropped by code of the module itself: whoever unloads the
/// module waits for its work items ([`super::queue`]) and its watch callbacks
/// (`xenbus::watch::Barrier`) to end.
pub(crate) struct ModuleRef(());

impl ModuleRef {
    /// A reference for somebody who runs in this module while it is alive.
    pub(crate) fn get() -> Self {
        // SAFETY: This code runs, so somebody holds the module: the bus, which
        // took a reference before it called `probe`, or another `ModuleRef`.
        unsafe { helpers::xbk_module_get(this_module::<crate::Rblkback>().as_ptr()) };
        Self(())
    }
}

impl Clone for ModuleRef {
    fn clone(&self) -> Self {
        Self::get()
    }
}

impl Drop for ModuleRef {
    fn drop(&mut self) {
        // SAFETY: Taken in `get`.
        unsafe { bindings::module_put(this_module::<crate::Rblkback>().as_ptr()) };
    }
}
