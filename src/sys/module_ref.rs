// SPDX-License-Identifier: GPL-2.0

//! A reference to this module: the module cannot be unloaded while there is one.
//!
//! C header: [`include/linux/module.h`](srctree/include/linux/module.h)

use super::bindings;

/// Keeps this module loaded.
///
/// Code of the module itself may drop the last reference: the module's exit waits for its work
/// items ([`super::workqueue`]) and for its xenstore watches to end.
pub(crate) struct ModuleRef(());

impl ModuleRef {
    /// Takes a reference. Context: any in which code of this module runs.
    pub(crate) fn get() -> Self {
        // SAFETY: This code runs, so the module has a reference already: that of the bus, which
        // took one before it called `probe`, or another `ModuleRef`.
        unsafe { bindings::xbk_module_get() };
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
        // SAFETY: `get` took the reference that is given back here.
        unsafe { bindings::xbk_module_put() };
    }
}
