// SPDX-License-Identifier: GPL-2.0

//! Who called whom, as far as addresses alone tell it.
//!
//! An address that begins a function is taken for a call, one in the middle of a function that is
//! under way for a return to it. A function left by a jump stays the caller of where it jumped to.

use std::collections::HashMap;

/// Nobody's path.
pub const ROOT: u32 = 0;
/// Jumps that never return would go deeper and deeper.
const DEEPEST: u32 = 96;

/// A function in its place below those that called it.
struct Node {
    function: u32,
    parent: u32,
    depth: u32,
}

/// Every path that was seen, each with a number of its own.
pub struct Paths {
    nodes: Vec<Node>,
    known: HashMap<(u32, u32), u32>,
}

impl Paths {
    pub fn new() -> Self {
        let root = Node {
            function: u32::MAX,
            parent: ROOT,
            depth: 0,
        };
        Paths {
            nodes: vec![root],
            known: HashMap::new(),
        }
    }

    /// The function that a path ends with; that of [`ROOT`] is none of any program.
    pub fn function(&self, path: u32) -> u32 {
        self.nodes[path as usize].function
    }

    /// The path of the caller.
    pub fn parent(&self, path: u32) -> u32 {
        self.nodes[path as usize].parent
    }

    /// The path and those of its callers, the innermost first.
    pub fn outwards(&self, path: u32) -> impl Iterator<Item = u32> + '_ {
        std::iter::successors(Some(path), |p| Some(self.parent(*p))).take_while(|p| *p != ROOT)
    }

    /// Where a call of `function` leads.
    pub fn call(&mut self, path: u32, function: u32) -> u32 {
        let depth = self.nodes[path as usize].depth;
        let path = if depth < DEEPEST { path } else { ROOT };
        let next = self.nodes.len() as u32;
        let number = *self.known.entry((path, function)).or_insert(next);
        if number == next {
            self.nodes.push(Node {
                function,
                parent: path,
                depth: self.nodes[path as usize].depth + 1,
            });
        }
        number
    }

    /// Where it leads to go on in the middle of `function`, to whose callers `base` belongs.
    pub fn resume(&mut self, path: u32, base: u32, function: u32) -> u32 {
        let known = self
            .outwards(path)
            .take_while(|p| *p != base)
            .find(|p| self.function(*p) == function);
        if let Some(known) = known {
            return known;
        }
        // A caller that was never seen to call, or a jump sideways.
        let beside = if path == base {
            path
        } else {
            self.parent(path)
        };
        self.call(beside, function)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn functions(paths: &Paths, path: u32) -> Vec<u32> {
        paths.outwards(path).map(|p| paths.function(p)).collect()
    }

    #[test]
    fn calls_and_returns() {
        let mut paths = Paths::new();
        let one = paths.call(ROOT, 1);
        let two = paths.call(one, 2);
        let three = paths.call(two, 3);
        assert_eq!(functions(&paths, three), [3, 2, 1]);
        assert_eq!(paths.resume(three, ROOT, 1), one);
        assert_eq!(paths.call(one, 2), two);
    }

    #[test]
    fn an_unknown_caller_takes_the_place_of_what_it_called() {
        let mut paths = Paths::new();
        let one = paths.call(ROOT, 1);
        let caller = paths.resume(one, ROOT, 7);
        assert_eq!(functions(&paths, caller), [7]);
        let two = paths.call(caller, 2);
        let beside = paths.resume(two, ROOT, 8);
        assert_eq!(functions(&paths, beside), [8, 7]);
    }

    #[test]
    fn nothing_returns_past_the_base() {
        let mut paths = Paths::new();
        let kernel = paths.call(ROOT, 1);
        let entry = paths.call(kernel, 2);
        let resumed = paths.resume(entry, kernel, 1);
        assert_eq!(functions(&paths, resumed), [1, 1]);
        let first = paths.resume(kernel, kernel, 3);
        assert_eq!(functions(&paths, first), [3, 1]);
    }

    #[test]
    fn the_depth_has_an_end() {
        let mut paths = Paths::new();
        let mut path = ROOT;
        for function in 0..1000 {
            path = paths.call(path, function);
            assert!(paths.outwards(path).count() <= DEEPEST as usize);
        }
    }
}
