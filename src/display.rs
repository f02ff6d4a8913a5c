// SPDX-License-Identifier: GPL-2.0

//! Lets `fmt!` print types of the pure room, which must not know the kernel crate.

#![forbid(unsafe_code)]

use kernel::fmt::{
    Display,
    Formatter,
    Result, //
};

use crate::logic::number::DeviceNumber;
use crate::logic::number::Foreign;

impl Display for DeviceNumber {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        core::fmt::Display::fmt(self, f)
    }
}

impl Display for Foreign<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        core::fmt::Display::fmt(self, f)
    }
}
