// SPDX-License-Identifier: GPL-2.0

//! References to this module. The module cannot be unloaded while one exists.
//!
//! C header: [`include/linux/module.h`](srctree/include/linux/module.h)

use super::bindings;

/// A reference to this module, which keeps it loaded.
///
/// A work item or a watch callback of the module may drop the last reference: the module's exit
/// waits until the module's work items ([`super::workqueue`]) and watch callbacks have returned.
pub(crate) struct ModuleRef(());

impl ModuleRef {
    /// Takes a reference. The module must have a reference already, so its exit function must not
    /// call this.
    ///
    /// Context: any.
    pub(crate) fn get() -> Self {
        // SAFETY: The module has a reference: that of the bus, which took one before it called
        // `probe`, or another `ModuleRef`.
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
        // SAFETY: `get` has taken the reference that is put here.
        unsafe { bindings::xbk_module_put() };
    }
}
