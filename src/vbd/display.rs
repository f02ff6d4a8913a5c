// SPDX-License-Identifier: GPL-2.0

//! Lets `fmt!` print types of the pure code, which does not know the kernel crate.

use kernel::fmt::{
    Display,
    Formatter,
    Result, //
};

use crate::logic::number::DeviceNumber;
use crate::logic::number::UntrustedText;
use crate::logic::vdev::VdevName;

impl Display for DeviceNumber {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        core::fmt::Display::fmt(self, f)
    }
}

impl Display for UntrustedText<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        core::fmt::Display::fmt(self, f)
    }
}

impl Display for VdevName {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        core::fmt::Display::fmt(self, f)
    }
}
