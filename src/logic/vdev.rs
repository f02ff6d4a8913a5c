// SPDX-License-Identifier: GPL-2.0

//! The name of a virtual device, from its number.
//!
//! | number | name |
//! |---|---|
//! | `202 << 8`, disk `<< 4`, partition | `xvda` to `xvdp`, with the partition's number if it is not 0 |
//! | `1 << 28`, disk `<< 8`, partition | the same, for any number of disks |
//! | any other | the number |
//!
//! Source: Xen's `docs/man/xen-vbd-interface.7.pandoc`.

use core::fmt;
use core::fmt::Write;

/// A virtual device's number, shown as its name.
#[derive(Clone, Copy, Debug)]
pub struct VdevName(pub u32);

impl VdevName {
    /// The numbers of the disk and of the partition, if the device is an `xvd`.
    fn parts(self) -> Option<(u32, u32)> {
        let Self(number) = self;
        if number >> 8 == 202 {
            Some(((number >> 4) & 0xf, number & 0xf))
        } else if number >> 28 == 1 {
            Some(((number >> 8) & 0xf_ffff, number & 0xff))
        } else {
            None
        }
    }
}

impl fmt::Display for VdevName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((disk, partition)) = self.parts() else {
            return write!(f, "{}", self.0);
        };
        f.write_str("xvd")?;
        write_letters(disk, f)?;
        if partition > 0 {
            write!(f, "{partition}")?;
        }
        Ok(())
    }
}

/// Writes `a` for 0 to `z` for 25, then `aa` and so on, as Linux names disks.
fn write_letters(disk: u32, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if disk >= 26 {
        write_letters((disk / 26).saturating_sub(1), f)?;
    }
    let letter = u8::try_from(disk % 26).unwrap_or(0);
    f.write_char(char::from(b'a'.saturating_add(letter)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_xl() {
        for (number, name) in [
            (51712, "xvda"),
            (51713, "xvda1"),
            (51728, "xvdb"),
            (51952, "xvdp"),
            (268_439_552, "xvdq"),
            (268_439_808, "xvdr"),
            (268_442_112, "xvdaa"),
            (268_442_113, "xvdaa1"),
            (268_435_456, "xvda"),
            (768, "768"),
            (2048, "2048"),
        ] {
            assert_eq!(VdevName(number).to_string(), name);
        }
    }

    #[test]
    fn any_number_has_a_name() {
        assert_eq!(VdevName(0x1fff_ffff).to_string(), "xvdbgqcv255");
        assert_eq!(VdevName(u32::MAX).to_string(), "4294967295");
    }
}
