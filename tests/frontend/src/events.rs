// SPDX-License-Identifier: GPL-2.0

//! Event channels to the backend's domain.

use std::fs::File;
use std::io::Read;
use std::io::Write;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::time::Duration;

use anyhow::Result;
use nix::poll::PollFd;
use nix::poll::PollFlags;
use nix::poll::PollTimeout;
use nix::poll::poll;

use crate::sys;

#[derive(Clone)]
pub struct Events {
    file: Rc<File>,
}

/// One event channel; dropping it closes it.
pub struct Port {
    file: Rc<File>,
    pub number: u32,
}

impl Events {
    pub fn open() -> Result<Self> {
        let file = Rc::new(sys::open("/dev/xen/evtchn")?);
        Ok(Events { file })
    }

    /// A channel that `domid` may bind to.
    pub fn port(&self, domid: u32) -> Result<Port> {
        let number = sys::bind_unbound(&self.file, domid)?;
        Ok(Port {
            file: self.file.clone(),
            number,
        })
    }

    /// A channel to a port of `domid` that this domain may bind to.
    pub fn bind(&self, domid: u32, remote: u32) -> Result<Port> {
        let number = sys::bind_interdomain(&self.file, domid, remote)?;
        Ok(Port {
            file: self.file.clone(),
            number,
        })
    }

    /// Waits until an event comes on any channel, and makes room for the next. False when none
    /// came in time.
    pub fn wait(&self, limit: Duration) -> Result<bool> {
        if !readable(&self.file, limit)? {
            return Ok(false);
        }
        let mut ports = [0; 4 * 64];
        let length = (&*self.file).read(&mut ports)?;
        // Writing a port back unmasks it.
        (&*self.file).write_all(&ports[..length])?;
        Ok(true)
    }
}

impl Port {
    pub fn notify(&self) -> Result<()> {
        sys::notify(&self.file, self.number)
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        // Cannot fail for a channel that is ours; it ends with the process anyway.
        let _ = sys::unbind(&self.file, self.number);
    }
}

/// Waits until `file` has something to read; false when it has not in time.
pub fn readable(file: &File, limit: Duration) -> Result<bool> {
    let mut descriptors = [PollFd::new(file.as_fd(), PollFlags::POLLIN)];
    let limit = PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX);
    Ok(poll(&mut descriptors, limit)? > 0)
}
