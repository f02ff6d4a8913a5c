// SPDX-License-Identifier: GPL-2.0

//! What the driver keeps of a device while it is bound to it, and the watch on our directory.
//!
//! One watch covers the directory; only the keys of the limit, `physical-device`, `mode` and
//! `online` matter, so that our own writes there wake nothing. Whatever changed, all keys are read again.

use kernel::{
    device::Bound,
    prelude::*,
    sync::Arc, //
};

use super::disk::Vbd;
use super::domains;
use super::features;
use super::limit_keys::letters;
use super::limit_keys::LIMITS;
use super::watch_barrier;
use crate::logic::ids::DISKS_MAX;
use crate::logic::lifecycle::Frontend;
use crate::qos::gate::CapMembership;
use crate::qos::registry::GuestSlot;
use crate::sys::periodic;
use crate::xenbus::device::Device;
use crate::xenbus::device::XenbusState;
use crate::xenbus::store::Value;
use crate::xenbus::store::DIRECT;
use crate::xenbus::watch::Handler;
use crate::xenbus::watch::Watch;

/// How often a device is tried to be taken over while memory is short or xenstored busy.
const ATTEMPTS: u32 = 4;

/// The other keys that matter.
const OTHERS: [&CStr; 3] = [c"physical-device", c"mode", c"online"];

/// Reacts to changes in a disk's directory.
struct KeyWatcher(Arc<Vbd>);

impl Handler for KeyWatcher {
    fn matters(&self, path: &[u8]) -> bool {
        let is = |key: &CStr| {
            let dir = path.strip_suffix(letters(key));
            dir.is_some_and(|dir| dir.ends_with(b"/"))
        };
        LIMITS.iter().any(|key| is(key)) || OTHERS.iter().any(|key| is(key))
    }

    fn changed(&self) {
        // If they cannot be read now, the work item tries again.
        let _ = self.0.limits.update();
        self.0.device_named();
    }
}

/// What the driver keeps of a device while it is bound to it.
pub(crate) struct Binding {
    watch: Pin<KBox<Watch<KeyWatcher>>>,
    _periodic: periodic::Registration,
    _member: CapMembership,
    /// The disk, which may outlive the binding.
    pub(super) vbd: Arc<Vbd>,
}

impl Binding {
    /// Takes `dev` over. Context: `probe`; talks to xenstored.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the disk is of a guest that the driver is not to serve; `ENOMEM`; `ENOSPC` if the
    /// guest has too many disks, with a text in the `error` key; what xenstored answers.
    pub(crate) fn new(dev: &Device<Bound>) -> Result<Self> {
        // Asked once: what an attempt announces takes the place of what the driver before did.
        let mut taken_over = None;
        // Without a driver the disk would stay dead until somebody binds it.
        for _ in 1..ATTEMPTS {
            match Self::attempt(dev, &mut taken_over) {
                Err(e) if [ENOMEM, EAGAIN, EBUSY].contains(&e) => {}
                outcome => return outcome,
            }
        }
        Self::attempt(dev, &mut taken_over)
    }

    fn attempt(dev: &Device<Bound>, taken_over: &mut Option<bool>) -> Result<Self> {
        domains::check(dev)?;
        let taken_over = match *taken_over {
            Some(known) => known,
            None => *taken_over.insert(is_announced_connected(dev)?),
        };
        watch_barrier::arm()?;
        // It would speak of an earlier disk of this name.
        dev.clear_error();
        let slot = slot(dev)?;
        let vbd = Vbd::new(dev.into(), dev.frontend_path()?, slot, taken_over)?;
        let periodic = periodic::Registration::new(vbd.clone())?;
        // Before the disk can connect: what it reserves must count.
        let member = CapMembership::new(vbd.gate().clone());
        vbd.limits.start()?;
        features::offer(vbd.nodename(), vbd.is_frontend_connected()?)?;
        dev.announce(XenbusState::InitWait)?;
        // After all that can fail, and after InitWait: from here on the work item may be queued,
        // and the disk may connect.
        let node = vbd.nodename().try_into()?;
        let watch = KBox::pin_init(Watch::new(node, KeyWatcher(vbd.clone())), GFP_KERNEL)?;
        // Keys may have changed before the watch was there.
        let _ = vbd.limits.update();
        vbd.limits.remove_levels();
        Ok(Self {
            watch,
            _periodic: periodic,
            _member: member,
            vbd,
        })
    }

    /// Something of the disk or its frontend may have changed. Context: any.
    pub(crate) fn kick(&self) {
        self.vbd.kick();
    }

    /// The driver loses the device. With `wait`, returns when another driver can take over. Sleeps.
    pub(crate) fn unbind(&self, wait: bool) {
        // First, so that whatever waits for I/O below does not need the xenwatch thread, which may
        // be waiting for this device.
        self.watch.stop();
        if !wait {
            // The disk is gone, and so is what was wrong with it.
            self.vbd.dev().clear_error();
        }
        self.vbd.unbind(wait);
    }
}

/// Was the driver that had the disk before connected to the frontend? To be asked before anything is
/// announced. Talks to xenstored.
fn is_announced_connected(dev: &Device<Bound>) -> Result<bool> {
    let state = DIRECT.read(dev.nodename(), c"state")?;
    // A backend's Connected is written as a frontend's is.
    Ok(Frontend::parse(state.as_ref().map(Value::bytes)) == Frontend::Connected)
}

/// A slot for the disk of `dev` among those of its guest.
fn slot(dev: &Device<Bound>) -> Result<GuestSlot> {
    let domain = dev.frontend_id();
    // Not with Closing: the disk may be one of a running guest, which another driver can serve.
    GuestSlot::new(domain).inspect_err(|e| {
        if *e == ENOSPC {
            dev.report(
                *e,
                fmt!("domain {domain} has {DISKS_MAX} disks already, as many as it can have"),
            );
        }
    })
}
