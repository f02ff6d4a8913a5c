// SPDX-License-Identifier: GPL-2.0

//! Every target gets to what it is about, with bytes that nobody chose. A target that
//! is always turned away at the door would find nothing, for ever.

use rblkback_fuzz::TARGETS;

/// Bytes without end, the same in every run (xorshift).
struct Bytes(u64);

impl Bytes {
    fn next(&mut self) -> u8 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 56) as u8
    }
}

#[test]
fn one_input_in_a_hundred_gets_to_the_point() {
    for (name, run) in TARGETS {
        let mut bytes = Bytes(0x2545_f491_4f6c_dd1d);
        let mut deep = 0;
        for _ in 0..3000 {
            let length = 40 + usize::from(bytes.next());
            let input: Vec<u8> = (0..length).map(|_| bytes.next()).collect();
            deep += u32::from(run(&input));
        }
        println!("{name}: {deep} of 3000");
        assert!(deep >= 30, "{name}: only {deep} of 3000");
    }
}

#[test]
fn no_input_is_too_short() {
    for (_, run) in TARGETS {
        for length in 0..64 {
            run(&vec![0; length]);
            run(&vec![255; length]);
        }
    }
}
