// SPDX-License-Identifier: GPL-2.0

//! Every target reaches the code that it is for, with random bytes. A target whose inputs
//! are all refused early would never find anything.

use rblkback_fuzz::TARGETS;

/// A generator of pseudo-random bytes (xorshift), the same in every run.
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
fn one_random_input_in_a_hundred_reaches_the_target_code() {
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
fn short_inputs_do_not_panic() {
    for (_, run) in TARGETS {
        for length in 0..64 {
            run(&vec![0; length]);
            run(&vec![255; length]);
        }
    }
}
