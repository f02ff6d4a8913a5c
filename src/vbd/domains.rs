// SPDX-License-Identifier: GPL-2.0

//! Whose disks the driver serves: the module parameter `domains`.
//!
//! A disk of another guest is left to the next driver of the bus. The bus takes that for an error of
//! this one, and leaves an `error` key behind, which would stay when the guest is long gone. A work item
//! removes it.

use kernel::{
    device::Bound,
    impl_has_work,
    new_work,
    prelude::*,
    str::CString,
    sync::Arc,
    workqueue::{
        Work,
        WorkItem, //
    }, //
};

use crate::logic::domains::Domain;
use crate::logic::domains::DomainList;
use crate::sys::params;
use crate::sys::workqueue::DISKS;
use crate::xenbus::device::Device;
use crate::xenbus::device::DeviceRef;
use crate::xenbus::store::Value;
use crate::xenbus::store::DIRECT;

/// Fails for a disk of a guest that the driver is not to serve. Changes nothing. Talks to xenstored.
///
/// # Errors
///
/// `ENODEV` for such a disk; `ENOMEM`; what xenstored answers. A guest that cannot be recognised counts
/// as one of the others: whoever names guests wants no other one served.
pub(super) fn check(dev: &Device<Bound>) -> Result {
    let text = params::domains()?;
    let list = DomainList::new(&text);
    if list.is_all() {
        return Ok(());
    }
    let domid = dev.frontend_id();
    let dir = CString::try_from_fmt(fmt!("/local/domain/{domid}"))?;
    let name = DIRECT.read(&dir, c"name")?;
    let vm = DIRECT.read(&dir, c"vm")?;
    let domain = Domain {
        name: name.as_ref().map(Value::bytes),
        vm: vm.as_ref().map(Value::bytes),
    };
    if list.has(domain) {
        return Ok(());
    }
    // The bus is about to say "19 xenbus_dev_probe on ..." in the log, which nobody understands.
    dev_info!(
        dev.as_ref(),
        "is not for rblkback: the parameter domains does not name domain {domid}\n"
    );
    Left::tidy(dev.into());
    Err(ENODEV)
}

/// A disk that was left to another driver.
#[pin_data]
struct Left {
    dev: DeviceRef,
    #[pin]
    work: Work<Left>,
}

impl_has_work! {
    impl HasWork<Self> for Left { self.work }
}

impl Left {
    /// Has the bus's `error` key removed when another driver has the disk. Without memory it stays.
    fn tidy(dev: DeviceRef) {
        let left = pin_init!(Self {
            dev,
            work <- new_work!("rblkback::left"),
        });
        if let Ok(left) = Arc::pin_init(left, GFP_KERNEL) {
            DISKS.enqueue(left);
        }
    }
}

impl WorkItem for Left {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        if this.dev.wait_probed() {
            this.dev.clear_probe_error(ENODEV);
        }
    }
}
