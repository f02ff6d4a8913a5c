// SPDX-License-Identifier: GPL-2.0

//! Which function an address belongs to, by what dom0's kernel says of itself and of Xen.

use std::fmt;
use std::fmt::Display;
use std::fmt::Formatter;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;

/// What Xen keeps for itself in the address space of every PV guest (xen/include/public/arch-x86).
const XEN: u64 = 0xffff_8000_0000_0000;
const XEN_END: u64 = 0xffff_8800_0000_0000;

/// Whose code a function is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A program of the domain's.
    User,
    Xen,
    Kernel,
    Module(String),
}

impl Display for Place {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Place::User => "programs",
            Place::Xen => "Xen",
            Place::Kernel => "kernel",
            Place::Module(name) => name,
        })
    }
}

/// A function, which ends where the next one begins.
#[derive(Debug)]
pub struct Function {
    pub start: u64,
    pub name: String,
    pub place: Place,
}

/// All functions of dom0 and Xen. A function's number is its place in the order of addresses.
pub struct Symbols(Vec<Function>);

impl Symbols {
    /// Reads what `/proc/kallsyms` and `/proc/xen/xensyms` list.
    pub fn parse(kallsyms: &str, xensyms: &str) -> Result<Self> {
        // What no function follows: programs, Xen's stubs outside of its image, the rest.
        let mut functions = vec![
            nameless(0, Place::User),
            nameless(XEN, Place::Xen),
            nameless(XEN_END, Place::Kernel),
        ];
        for line in kallsyms.lines() {
            functions.extend(function(line, Place::Kernel)?);
        }
        for line in xensyms.lines() {
            functions.extend(function(line, Place::Xen)?);
        }
        // Of two names of an address the plainer one stays, or else the first.
        functions.sort_by_key(|function| (function.start, function.name.starts_with('_')));
        functions.dedup_by_key(|function| function.start);
        Ok(Symbols(functions))
    }

    /// The number of the function that has the address.
    pub fn find(&self, address: u64) -> usize {
        self.0.partition_point(|f| f.start <= address) - 1
    }

    pub fn get(&self, number: usize) -> &Function {
        &self.0[number]
    }

    /// The number of the only function of this name.
    pub fn named(&self, place: &Place, name: &str) -> Result<usize> {
        let mut found = (0..self.0.len()).filter(|n| {
            let function = self.get(*n);
            function.place == *place && function.name == name
        });
        match (found.next(), found.next()) {
            (Some(number), None) => Ok(number),
            (None, _) => bail!("there is no function {name} in {place:?}"),
            _ => bail!("there is more than one function {name} in {place:?}"),
        }
    }
}

fn nameless(start: u64, place: Place) -> Function {
    Function {
        start,
        name: match place {
            Place::User => "(programs)".into(),
            _ => "(no symbol)".into(),
        },
        place,
    }
}

/// Reads `address type name [module]`; nothing if it is no function. A module's name is put behind
/// a tab by Linux.
fn function(line: &str, place: Place) -> Result<Option<Function>> {
    let mut words = line.split_whitespace();
    let (Some(address), Some(kind), Some(name)) = (words.next(), words.next(), words.next()) else {
        bail!("no symbol: {line:?}");
    };
    // Padding before a function, which is never executed, and what a compiler names for itself.
    let is_function = matches!(kind, "t" | "T" | "w" | "W");
    if !is_function || name.starts_with("__pfx_") || name.starts_with(".L") {
        return Ok(None);
    }
    let start =
        u64::from_str_radix(address, 16).with_context(|| format!("no address: {line:?}"))?;
    if start == 0 {
        bail!("the kernel hides its addresses: {line:?}");
    }
    let module = words.next().map(|m| m.trim_matches(['[', ']']).to_string());
    let place = module.map_or(place, Place::Module);
    // Xen puts the source file before what is local to it.
    let name = match place {
        Place::Xen => name.rsplit('#').next().unwrap_or(name).into(),
        _ => format!("{:#}", rustc_demangle::demangle(name)),
    };
    Ok(Some(Function { start, name, place }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KALLSYMS: &str = "0000000000001000 A fixed\n\
        ffffffff81000000 T _text\n\
        ffffffff81000000 T startup\n\
        ffffffff810000f0 t __pfx_submit_bio\n\
        ffffffff81000100 T submit_bio\n\
        ffffffff82000000 D data\n\
        ffffffffc0001000 t run\t[disk]\n\
        ffffffffc0001040 t _RNvNtCs1234_4disk4ring4peek\t[disk]\n";
    const XENSYMS: &str = "ffff82d040200000 t sched/core.c#schedule\nffff82d040200100 T do_nmi\n";

    fn name(symbols: &Symbols, address: u64) -> (&str, &Place) {
        let function = symbols.get(symbols.find(address));
        (&function.name, &function.place)
    }

    #[test]
    fn addresses_belong_to_the_function_before_them() {
        let symbols = Symbols::parse(KALLSYMS, XENSYMS).unwrap();
        let disk = Place::Module("disk".into());
        assert_eq!(name(&symbols, 0x5555_0000), ("(programs)", &Place::User));
        assert_eq!(
            name(&symbols, 0xffff_82d0_4020_00ff),
            ("schedule", &Place::Xen)
        );
        assert_eq!(
            name(&symbols, 0xffff_82cf_0000_0000),
            ("(no symbol)", &Place::Xen)
        );
        assert_eq!(
            name(&symbols, 0xffff_ffff_8100_00f8),
            ("startup", &Place::Kernel)
        );
        assert_eq!(
            name(&symbols, 0xffff_ffff_8100_0100),
            ("submit_bio", &Place::Kernel)
        );
        assert_eq!(name(&symbols, 0xffff_ffff_c000_103f), ("run", &disk));
        assert_eq!(
            name(&symbols, 0xffff_ffff_c000_1040),
            ("disk::ring::peek", &disk)
        );
    }

    #[test]
    fn a_name_is_found_if_it_is_the_only_one() {
        let symbols = Symbols::parse(KALLSYMS, XENSYMS).unwrap();
        let number = symbols.named(&Place::Xen, "schedule").unwrap();
        assert_eq!(symbols.get(number).start, 0xffff_82d0_4020_0000);
        assert!(symbols.named(&Place::Kernel, "schedule").is_err());
        let twice = format!("{XENSYMS}ffff82d040200200 t other.c#schedule\n");
        let symbols = Symbols::parse(KALLSYMS, &twice).unwrap();
        assert!(symbols.named(&Place::Xen, "schedule").is_err());
    }

    #[test]
    fn hidden_addresses_are_an_error() {
        assert!(Symbols::parse("0000000000000000 T submit_bio\n", "").is_err());
    }
}
