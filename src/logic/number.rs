// SPDX-License-Identifier: GPL-2.0

//! Parsing of numbers in xenstore keys, and printing of untrusted text.
//!
//! A guest, a hotplug script or an administrator wrote the text.

use core::fmt;
use core::fmt::Write;

/// Parses a strict unsigned decimal up to `max`: digits only, no sign, space or suffix.
/// Leading zeros are allowed.
pub fn decimal(text: &[u8], max: u32) -> Option<u32> {
    if text.is_empty() {
        return None;
    }
    let mut value: u32 = 0;
    for byte in text {
        let digit = match byte {
            b'0'..=b'9' => u32::from(byte.wrapping_sub(b'0')),
            _ => return None,
        };
        value = value.checked_mul(10)?.checked_add(digit)?;
    }
    (value <= max).then_some(value)
}

/// Parses a number as [`decimal`] does, with a `-` before it if it is below 0; its amount is at most `max`.
pub fn signed(text: &[u8], max: u32) -> Option<i64> {
    match text.strip_prefix(b"-") {
        Some(digits) => decimal(digits, max).map(|amount| i64::from(amount).wrapping_neg()),
        None => decimal(text, max).map(i64::from),
    }
}

/// Parses a strict unsigned hexadecimal number: digits only, no `0x` prefix.
pub fn hexadecimal(text: &[u8]) -> Option<u32> {
    if text.is_empty() {
        return None;
    }
    let mut value: u32 = 0;
    for byte in text {
        let digit = char::from(*byte).to_digit(16)?;
        value = value.checked_mul(16)?.checked_add(digit)?;
    }
    Some(value)
}

/// A device number as the hotplug script writes it: `major:minor` in hexadecimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceNumber {
    /// The major number: at most 12 bits.
    pub major: u32,
    /// The minor number: at most 20 bits.
    pub minor: u32,
}

impl DeviceNumber {
    /// Parses `major:minor`.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let colon = text.iter().position(|byte| *byte == b':')?;
        let (major, minor) = text.split_at_checked(colon)?;
        let major = hexadecimal(major)?;
        let minor = hexadecimal(minor.strip_prefix(b":")?)?;
        (major < 1 << 12 && minor < 1 << 20).then_some(Self { major, minor })
    }
}

impl fmt::Display for DeviceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}:{:x}", self.major, self.minor)
    }
}

/// Untrusted bytes, printed safely for a log: in quotes, with `?` in place of quotes,
/// backslashes and bytes that are not printable ASCII, cut after [`Self::MAX_BYTES`]
/// bytes.
pub struct UntrustedText<'a>(pub &'a [u8]);

impl UntrustedText<'_> {
    /// The number of bytes that are printed.
    pub const MAX_BYTES: usize = 32;
}

impl fmt::Display for UntrustedText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for byte in self.0.iter().take(Self::MAX_BYTES) {
            let printable = matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\');
            f.write_char(if printable { char::from(*byte) } else { '?' })?;
        }
        f.write_char('"')?;
        if self.0.len() > Self::MAX_BYTES {
            f.write_str("..")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JUNK: [&[u8]; 10] = [
        b"", b" ", b" 5", b"5 ", b"5\n", b"+5", b"-1", b"5.0", b"\xff", b"5\0",
    ];

    #[test]
    fn only_strict_decimals_are_numbers() {
        assert_eq!(decimal(b"0", 9), Some(0));
        assert_eq!(decimal(b"007", 9), Some(7));
        assert_eq!(decimal(b"10", 9), None);
        assert_eq!(decimal(b"4294967295", u32::MAX), Some(u32::MAX));
        assert_eq!(decimal(b"4294967296", u32::MAX), None);
        assert_eq!(decimal(b"99999999999999999999", u32::MAX), None);
        for junk in JUNK.into_iter().chain([&b"1e3"[..], b"0x10", b"5/s"]) {
            assert_eq!(decimal(junk, u32::MAX), None, "{junk:?}");
        }
    }

    #[test]
    fn device_numbers_are_hexadecimal_pairs() {
        let parse = |text: &[u8]| DeviceNumber::parse(text).map(|n| (n.major, n.minor));
        assert_eq!(parse(b"fd:0"), Some((0xfd, 0)));
        assert_eq!(parse(b"FD:fffff"), Some((0xfd, 0xf_ffff)));
        for junk in JUNK.into_iter().chain([
            &b"fd"[..],
            b":",
            b"fd:",
            b":0",
            b"fd:0:1",
            b"fd:100000",
            b"1000:0",
            b"0x8:0",
            b"8:0 ",
            b"fffffffff:0",
            b"8,0",
        ]) {
            assert_eq!(parse(junk), None, "{junk:?}");
        }
        assert_eq!(
            DeviceNumber {
                major: 0xfd,
                minor: 16
            }
            .to_string(),
            "fd:10"
        );
    }

    #[test]
    fn untrusted_text_cannot_forge_a_log_line() {
        assert_eq!(
            UntrustedText(b"x86\n[evil] \x1b%s\"").to_string(),
            "\"x86?[evil] ?%s?\""
        );
        assert_eq!(UntrustedText(&[b'a'; 100]).to_string().len(), 32 + 4);
    }
}
