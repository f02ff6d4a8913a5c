// SPDX-License-Identifier: GPL-2.0

//! Any text in xenstore, of a guest or an administrator.

use std::str;

use rblkback_logic::lifecycle::Frontend;
use rblkback_logic::number::DeviceNumber;
use rblkback_logic::number::UntrustedText;
use rblkback_logic::number::decimal;
use rblkback_logic::number::hexadecimal;
use rblkback_logic::protocol::abi::Abi;
use rblkback_logic::tokens::limits::Key;
use rblkback_logic::tokens::limits::Limit;
use rblkback_logic::tokens::limits::Setting;
use rblkback_logic::tokens::limits::setting;

use crate::input::Input;

/// The largest limit that Documentation/ABI allows.
const LIMIT_MAX: u32 = 1_000_000_000;

pub fn run(data: &[u8]) -> bool {
    let mut input = Input::new(data);
    let max = input.u32();
    let (text, other) = (draw(&mut input), draw(&mut input));
    let value = strict(&text, 10);
    assert_eq!(decimal(&text, u32::MAX), value);
    assert_eq!(decimal(&text, max), value.filter(|value| *value <= max));
    if let Some(value) = value {
        assert_eq!(decimal(&text, value), Some(value), "its own maximum");
    }
    assert_eq!(hexadecimal(&text), strict(&text, 16));
    device_number(&text);
    device_number(&[&text, &b":"[..], &other].concat());
    untrusted(&text);
    untrusted(&[text.as_slice(), &other].concat());
    frontend(&text);
    let abi = match text.as_slice() {
        b"x86_64-abi" => Some(Abi::X86_64),
        b"x86_32-abi" => Some(Abi::X86_32),
        _ => None,
    };
    assert_eq!(Abi::from_protocol(Some(&text)), abi);
    limits(Some(&text), None);
    limits(None, Some(&text));
    limits(Some(&text), Some(&other))
}

/// A text of any bytes, or of bytes that the parsers distinguish.
fn draw(input: &mut Input<'_>) -> Vec<u8> {
    let of: &[u8] = match input.up_to(4) {
        0 => return input.text(80).to_vec(),
        1 => b"0123456789abcdefABCDEF",
        2 => b"0123456789:+- abfxg\0\n",
        _ => b"0123456789",
    };
    let choose = |byte: &u8| of[usize::from(*byte) % of.len()];
    input.text(14).iter().map(choose).collect()
}

/// The number that the standard library parses, without a sign.
fn strict(text: &[u8], radix: u32) -> Option<u32> {
    let text = str::from_utf8(text).ok().filter(|t| !t.starts_with('+'))?;
    u32::from_str_radix(text, radix).ok()
}

fn device_number(text: &[u8]) {
    let pair = |(major, minor): (&str, &str)| {
        Some((strict(major.as_bytes(), 16)?, strict(minor.as_bytes(), 16)?))
    };
    let expected = str::from_utf8(text)
        .ok()
        .and_then(|text| text.split_once(':'))
        .and_then(pair)
        .filter(|(major, minor)| *major < 4096 && *minor < 1_048_576);
    let number = DeviceNumber::parse(text);
    assert_eq!(number.map(|n| (n.major, n.minor)), expected);
    if let Some(number) = number {
        let written = number.to_string();
        assert_eq!(DeviceNumber::parse(written.as_bytes()), Some(number));
    }
}

/// Checks that printed text is short and cannot forge a line of the log.
fn untrusted(text: &[u8]) {
    let printed = UntrustedText(text).to_string();
    assert!(printed.len() <= 36, "{printed}");
    assert!(printed.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
    let inner = printed.strip_prefix('"').expect("a quote");
    let (inner, after) = inner.rsplit_once('"').expect("a quote");
    assert!(!inner.contains(['"', '\\']));
    assert_eq!(after, if text.len() > 32 { ".." } else { "" });
    assert_eq!(inner.len(), text.len().min(32));
}

fn frontend(text: &[u8]) {
    let expected = match strict(text, 10) {
        Some(0) => Frontend::Gone,
        Some(1) => Frontend::Initialising,
        Some(3) => Frontend::Initialised,
        Some(4) => Frontend::Connected,
        Some(5) => Frontend::Closing,
        Some(6) => Frontend::Closed,
        _ => Frontend::Other,
    };
    assert_eq!(Frontend::parse(Some(text)), expected);
}

fn amount(text: &[u8]) -> Option<u32> {
    strict(text, 10).filter(|value| *value <= LIMIT_MAX)
}

/// Checks that a mistyped limit is invalid. Returns whether there is a limit.
fn limits(refill: Option<&[u8]>, max: Option<&[u8]>) -> bool {
    let is_junk = |text: Option<&[u8]>| text.is_some_and(|text| amount(text).is_none());
    let [r, m] = [refill, max].map(|text| text.and_then(amount).unwrap_or(0));
    let got = setting(Key::parse(refill), Key::parse(max));
    let expected = if is_junk(refill) || is_junk(max) {
        Setting::Invalid
    } else if r > 0 {
        let size = if m > 0 { m } else { (r - 1) / 10 + 1 };
        let limit = Limit::new(r, size).expect("a limit");
        assert_eq!((limit.refill(), limit.max()), (r, size));
        Setting::Limited(limit)
    } else if refill.is_none() && m > 0 {
        Setting::Incomplete
    } else {
        Setting::Unlimited
    };
    assert_eq!(got, expected);
    matches!(got, Setting::Limited(_))
}
