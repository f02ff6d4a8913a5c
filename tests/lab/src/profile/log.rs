// SPDX-License-Identifier: GPL-2.0

//! The lines of QEMU's log of executed instructions (`log exec,mmu`, one instruction a block).

/// What a line says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The instruction at this address comes next.
    Execute(u64),
    /// The last one named was put off: it will be named again.
    PutOff,
    /// From now on these page tables are in use.
    PageTables(u64),
}

/// Reads a line; nothing if it is about something else.
pub fn parse(line: &[u8]) -> Option<Step> {
    if line.starts_with(b"Trace ") {
        // Trace 0: 0x7f0123456789 [cs_base/pc/flags/cflags] symbol
        let fields = line.split(|&b| b == b'[').nth(1)?;
        return hexadecimal(fields.split(|&b| b == b'/').nth(1)?).map(Step::Execute);
    }
    if let Some(address) = line.strip_prefix(b"CR3 update: CR3=") {
        return hexadecimal(address.trim_ascii_end()).map(Step::PageTables);
    }
    line.starts_with(b"Stopped execution of TB chain before")
        .then_some(Step::PutOff)
}

fn hexadecimal(digits: &[u8]) -> Option<u64> {
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_qemu() {
        let of = |line: &str| parse(line.as_bytes());
        assert_eq!(
            of("Trace 0: 0x7fa1c00a1b00 [00000000/ffffffff81234567/0040c0b3/ff020001] \n"),
            Some(Step::Execute(0xffff_ffff_8123_4567))
        );
        assert_eq!(
            of("CR3 update: CR3=000000012345f000\n"),
            Some(Step::PageTables(0x1_2345_f000))
        );
        assert_eq!(
            of("Stopped execution of TB chain before 0x7fa1c00a1b00 [ffffffff81234567] \n"),
            Some(Step::PutOff)
        );
        assert_eq!(of("CR4 update: CR4=000006f0\n"), None);
        // A line that was cut short.
        assert_eq!(of("Trace 0: 0x7fa1c00a1b00 [00000000"), None);
    }
}
