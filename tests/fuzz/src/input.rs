// SPDX-License-Identifier: GPL-2.0

//! Reading of typed values from the fuzzer's bytes. After the end of the input, all bytes
//! are zeroes, so an input of any length is valid.

use arbitrary::Unstructured;

/// The remaining bytes of an input.
pub struct Input<'a>(Unstructured<'a>);

impl<'a> Input<'a> {
    pub fn new(data: &'a [u8]) -> Self {
        Self(Unstructured::new(data))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn u8(&mut self) -> u8 {
        u8::from_le_bytes(self.bytes())
    }

    pub fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.bytes())
    }

    pub fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.bytes())
    }

    pub fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.bytes())
    }

    pub fn flag(&mut self) -> bool {
        self.u8() & 1 != 0
    }

    /// A number from 0 to `most`, inclusive.
    pub fn up_to(&mut self, most: u8) -> u8 {
        match most.checked_add(1) {
            Some(count) => self.u8() % count,
            None => self.u8(),
        }
    }

    /// An element of `of`.
    pub fn pick<T: Copy, const N: usize>(&mut self, of: [T; N]) -> T {
        const { assert!(0 < N && N <= 256) };
        of[usize::from(self.u8()) % N]
    }

    /// A number near 0, near `limit`, or near the largest number, or any number.
    pub fn near(&mut self, limit: u64) -> u64 {
        match self.up_to(5) {
            0 => self.u64(),
            1 => u64::from(self.u8()),
            2 => u64::from(self.u8()) * 8,
            3 => limit.wrapping_sub(u64::from(self.u16())),
            4 => limit.wrapping_add(u64::from(self.u8())),
            _ => u64::MAX - u64::from(self.u16()),
        }
    }

    /// The next `N` bytes.
    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.fill(&mut bytes);
        bytes
    }

    pub fn fill(&mut self, bytes: &mut [u8]) {
        // `fill_buffer` never fails, and adds the zeroes.
        let _ = self.0.fill_buffer(bytes);
    }

    /// At most `most` bytes, after a byte with their number; fewer if the input ends.
    pub fn text(&mut self, most: u8) -> &'a [u8] {
        let length = usize::from(self.up_to(most)).min(self.0.len());
        self.0.bytes(length).unwrap_or_default()
    }
}
