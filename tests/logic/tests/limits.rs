// SPDX-License-Identifier: GPL-2.0

//! Parsing of text from xenstore, compared with the standard library, for any bytes: the
//! mistakes of an administrator, and what a hostile guest writes.

mod host;

use host::cases;
use proptest::collection::vec;
use proptest::prelude::*;
use rblkback_logic::number::decimal;
use rblkback_logic::number::hexadecimal;
use rblkback_logic::number::signed;
use rblkback_logic::number::DeviceNumber;
use rblkback_logic::number::UntrustedText;
use rblkback_logic::tokens::limits::setting;
use rblkback_logic::tokens::limits::Key;
use rblkback_logic::tokens::limits::Limit;
use rblkback_logic::tokens::limits::Setting;
use rblkback_logic::tokens::limits::VALUE_MAX;

/// The number in `text`, as the standard library parses it, if `text` has only digits. Any
/// number of leading zeros is allowed.
fn strict(text: &[u8], radix: u32) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?;
    let digits = !text.is_empty() && text.chars().all(|c| c.is_digit(radix));
    let short = text.trim_start_matches('0');
    match (digits, short) {
        (false, _) => None,
        (true, "") => Some(0),
        (true, short) => u64::from_str_radix(short, radix).ok(),
    }
}

fn strict_u32(text: &[u8], radix: u32) -> Option<u32> {
    strict(text, radix).and_then(|value| u32::try_from(value).ok())
}

/// Bytes, digits, and numbers near the limits, with and without a mistake.
fn texts() -> impl Strategy<Value = Vec<u8>> {
    let number = prop_oneof![
        (0..40u64).prop_map(|back| u64::from(VALUE_MAX) + 20 - back),
        (0..40u64).prop_map(|back| (1 << 32) + 20 - back),
        any::<u64>(),
        0..20u64,
    ];
    let oddity = prop::sample::select(vec![
        "",
        "",
        "",
        "+",
        "-",
        " ",
        "0",
        "00000000000000000000",
        "\n",
        "\0",
        "x",
        "٣",
    ]);
    prop_oneof![
        vec(any::<u8>(), 0..24),
        vec(b'0'..=b'9', 0..24),
        vec(
            prop::sample::select(b"0123456789abcdefABCDEFgx:+- _".to_vec()),
            0..12
        ),
        (oddity.clone(), number, oddity)
            .prop_map(|(before, number, after)| format!("{before}{number}{after}").into_bytes()),
    ]
}

fn keys() -> impl Strategy<Value = Option<Vec<u8>>> {
    prop_oneof![1 => Just(None), 5 => texts().prop_map(Some)]
}

proptest! {
    #![proptest_config(cases(5000))]

    #[test]
    fn a_key_is_what_the_standard_library_parses_or_invalid(text in texts()) {
        let expected = match strict(&text, 10) {
            Some(value) if value <= u64::from(VALUE_MAX) => Key::Value(value as u32),
            _ => Key::Invalid,
        };
        prop_assert_eq!(Key::parse(Some(&text)), expected);
    }

    #[test]
    fn a_number_is_what_the_standard_library_parses_up_to_its_maximum(text in texts(), max: u32) {
        let value = strict_u32(&text, 10);
        prop_assert_eq!(decimal(&text, u32::MAX), value);
        prop_assert_eq!(decimal(&text, max), value.filter(|value| *value <= max));
        let value = value.filter(|value| *value <= max).map(i64::from);
        if !text.starts_with(b"-") {
            prop_assert_eq!(signed(&text, max), value);
        }
        let below = [b"-", &text[..]].concat();
        prop_assert_eq!(signed(&below, max), value.map(|value| -value));
        prop_assert_eq!(hexadecimal(&text), strict_u32(&text, 16));
    }

    #[test]
    fn pairs_of_keys_mean_what_the_table_says(refill in keys(), max in keys()) {
        let [r, m] = [&refill, &max].map(|text| Key::parse(text.as_deref()));
        let number = |key| if let Key::Value(value) = key { value } else { 0 };
        let expected = if r == Key::Invalid || m == Key::Invalid {
            Setting::Invalid
        } else if number(r) > 0 {
            let tenth = u64::from(number(r)).div_ceil(10) as u32;
            let size = if number(m) == 0 { tenth } else { number(m) };
            Setting::Limited(Limit::new(number(r), size).expect("a limit"))
        } else if r == Key::Absent && number(m) > 0 {
            Setting::Incomplete
        } else {
            Setting::Unlimited
        };
        prop_assert_eq!(setting(r, m), expected);
    }

    #[test]
    fn a_limit_is_never_zero_nor_out_of_range(refill: u32, max: u32) {
        match Limit::new(refill, max) {
            None => prop_assert!(refill == 0 || refill > VALUE_MAX || max > VALUE_MAX),
            Some(limit) => {
                prop_assert!((1..=VALUE_MAX).contains(&limit.max()));
                prop_assert_eq!(limit.refill(), refill);
                prop_assert!((1..=VALUE_MAX).contains(&refill));
            }
        }
    }

    #[test]
    fn a_device_number_survives_being_written_and_read(
        major in 0..1u32 << 12,
        minor in 0..1u32 << 20,
    ) {
        let number = DeviceNumber { major, minor };
        prop_assert_eq!(DeviceNumber::parse(number.to_string().as_bytes()), Some(number));
    }

    #[test]
    fn a_device_number_is_two_hexadecimal_numbers_within_range(text in texts()) {
        let mut parts = text.splitn(2, |byte| *byte == b':');
        let major = parts.next().and_then(|part| strict_u32(part, 16));
        let minor = parts.next().and_then(|part| strict_u32(part, 16));
        let expected = match (major, minor) {
            (Some(major), Some(minor)) if major < 4096 && minor < 1_048_576 => Some((major, minor)),
            _ => None,
        };
        prop_assert_eq!(DeviceNumber::parse(&text).map(|n| (n.major, n.minor)), expected);
    }

    #[test]
    fn untrusted_text_is_printed_short_and_in_printable_ascii(text in vec(any::<u8>(), 0..80)) {
        let printed = UntrustedText(&text).to_string();
        prop_assert!(printed.len() <= UntrustedText::MAX_BYTES + 4);
        prop_assert!(printed.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{printed}");
        let inner = printed.trim_end_matches('.').trim_matches('"');
        prop_assert!(!inner.contains('"') && !inner.contains('\\'), "{printed}");
    }
}
