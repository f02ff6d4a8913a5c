// SPDX-License-Identifier: GPL-2.0

//! Whose an instruction is: the trace in stints, each from one decision of Xen's scheduler to the
//! next.
//!
//! A stint belongs to whoever the scheduler chose, from the decision itself on: Xen's own account
//! of a domain's run time has the same bounds. What shows whose it is are the page tables in use.
//! Those with which a function of the backend was seen to run are dom0's, with all that a stint
//! with them used besides. dom0 and a guest run the same kernel at the same addresses, but never
//! with the same page tables. A stint in which only Xen ran was idle.

use std::collections::BTreeSet;
use std::collections::HashMap;
use std::collections::HashSet;

use anyhow::Result;
use anyhow::bail;

use super::log::Step;
use super::paths::Paths;
use super::paths::ROOT;
use super::symbols::Place;
use super::symbols::Symbols;

/// What happened at one place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    pub instructions: u64,
    /// How often it was called.
    pub entries: u64,
}

impl Count {
    pub fn add(&mut self, other: Count) {
        self.instructions += other.instructions;
        self.entries += other.entries;
    }
}

/// What happened between two decisions of the scheduler.
#[derive(Default)]
pub struct Stint {
    /// By path.
    pub counts: HashMap<u32, Count>,
    /// Page tables with which code of the domain ran.
    spaces: BTreeSet<u64>,
    /// Whether the backend ran.
    backend: bool,
}

impl Stint {
    pub fn instructions(&self) -> u64 {
        self.counts.values().map(|count| count.instructions).sum()
    }
}

/// Functions that mean something.
pub struct Landmarks {
    /// The backend's module.
    pub backend: Place,
    /// Xen's `schedule`.
    schedule: usize,
    /// Where the kernel goes on with another thread.
    switch: usize,
}

impl Landmarks {
    pub fn new(symbols: &Symbols, module: &str) -> Result<Self> {
        Ok(Landmarks {
            backend: Place::Module(module.into()),
            schedule: symbols.named(&Place::Xen, "schedule")?,
            switch: symbols.named(&Place::Kernel, "__switch_to_asm")?,
        })
    }
}

/// Makes stints of steps.
pub struct Recorder<'s> {
    symbols: &'s Symbols,
    landmarks: &'s Landmarks,
    paths: Paths,
    /// The path that the last instruction was on, and what was counted there and not yet noted.
    at: u32,
    count: Count,
    /// Page tables in use.
    space: u64,
    /// Where their domain was when the scheduler was called.
    left: HashMap<u64, u32>,
    /// The address that was named last: the next line may put it off.
    waiting: Option<u64>,
    stint: Stint,
    /// The first decision has been seen.
    begun: bool,
    stints: Vec<Stint>,
}

impl<'s> Recorder<'s> {
    pub fn new(symbols: &'s Symbols, landmarks: &'s Landmarks) -> Self {
        Recorder {
            symbols,
            landmarks,
            paths: Paths::new(),
            at: ROOT,
            count: Count::default(),
            space: 0,
            left: HashMap::new(),
            waiting: None,
            stint: Stint::default(),
            begun: false,
            stints: Vec::new(),
        }
    }

    pub fn step(&mut self, step: Step) {
        match step {
            Step::PutOff => self.waiting = None,
            Step::Execute(address) => {
                if let Some(before) = self.waiting.replace(address) {
                    self.execute(before);
                }
            }
            Step::PageTables(space) => {
                // The instruction that changes them is over.
                if let Some(before) = self.waiting.take() {
                    self.execute(before);
                }
                self.space = space;
            }
        }
    }

    /// All whole stints.
    pub fn finish(self) -> (Paths, Vec<Stint>) {
        (self.paths, self.stints)
    }

    fn execute(&mut self, address: u64) {
        let number = self.symbols.find(address);
        let function = self.symbols.get(number);
        let last = self.paths.function(self.at);
        let entered = function.start == address && last != number as u32;
        if entered && number == self.landmarks.schedule {
            self.decide();
        }
        let xen = function.place == Place::Xen;
        if !xen {
            self.domain_runs(entered, &function.place);
        }
        let path = self.follow(number, xen, entered);
        if path != self.at {
            self.note();
            self.at = path;
        }
        self.count.instructions += 1;
        self.count.entries += u64::from(entered);
    }

    /// Which path an instruction is on.
    fn follow(&mut self, number: usize, xen: bool, entered: bool) -> u32 {
        // What Xen does is below whatever it interrupted; when it is done, all of it is over.
        let base = self.domain_part();
        let (from, base) = if xen { (self.at, base) } else { (base, ROOT) };
        let number = number as u32;
        if !xen && entered && number as usize == self.landmarks.switch {
            return self.paths.call(ROOT, number);
        }
        if self.paths.function(from) == number {
            from
        } else if entered {
            self.paths.call(from, number)
        } else {
            self.paths.resume(from, base, number)
        }
    }

    /// The path without what Xen does at its end.
    fn domain_part(&self) -> u32 {
        let xen = |path: &u32| {
            let function = self.symbols.get(self.paths.function(*path) as usize);
            function.place == Place::Xen
        };
        self.paths
            .outwards(self.at)
            .find(|path| !xen(path))
            .unwrap_or(ROOT)
    }

    /// Xen's scheduler begins to choose: all that follows is the chosen one's.
    fn decide(&mut self) {
        self.note();
        if !self.stint.spaces.is_empty() {
            self.left.insert(self.space, self.domain_part());
        }
        self.at = ROOT;
        let stint = std::mem::take(&mut self.stint);
        if self.begun {
            self.stints.push(stint);
        }
        self.begun = true;
    }

    /// A domain's own code runs.
    fn domain_runs(&mut self, entered: bool, place: &Place) {
        if self.stint.spaces.is_empty() {
            self.note();
            self.at = self.left.get(&self.space).copied().unwrap_or(ROOT);
        }
        self.stint.spaces.insert(self.space);
        self.stint.backend |= entered && *place == self.landmarks.backend;
    }

    fn note(&mut self) {
        let count = std::mem::take(&mut self.count);
        if count.instructions > 0 {
            self.stint.counts.entry(self.at).or_default().add(count);
        }
    }
}

/// The stints by whose they are.
pub struct Shares {
    pub dom0: Vec<Stint>,
    pub guests: Vec<Stint>,
    /// Only Xen ran.
    pub idle: Vec<Stint>,
}

/// Finds out whose each stint is.
pub fn share(stints: Vec<Stint>) -> Result<Shares> {
    let backend = stints.iter().filter(|stint| stint.backend);
    let dom0: HashSet<u64> = backend.flat_map(|s| &s.spaces).copied().collect();
    if dom0.is_empty() {
        bail!("the backend did not run");
    }
    let (idle, busy): (Vec<_>, Vec<_>) = stints.into_iter().partition(|s| s.spaces.is_empty());
    let (dom0, guests) = busy
        .into_iter()
        .partition(|stint| stint.spaces.iter().any(|space| dom0.contains(space)));
    Ok(Shares { dom0, guests, idle })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEDULE: u64 = 0xffff_82d0_0000_1000;
    const ENTRY: u64 = 0xffff_82d0_0000_2000;
    const SUBMIT: u64 = 0xffff_ffff_8100_1000;
    const SWITCH: u64 = 0xffff_ffff_8100_2000;
    const WORKER: u64 = 0xffff_ffff_8100_3000;
    const RUN: u64 = 0xffff_ffff_c000_0000;

    fn symbols() -> Symbols {
        let kernel = format!(
            "{SUBMIT:x} T submit\n{SWITCH:x} T __switch_to_asm\n{WORKER:x} T worker\n{RUN:x} t run [disk]\n"
        );
        let xen = format!("{SCHEDULE:x} t core.c#schedule\n{ENTRY:x} T entry\n");
        Symbols::parse(&kernel, &xen).unwrap()
    }

    /// Paths with what was counted there: instructions and entries.
    type Listed = Vec<(String, u64, u64)>;

    /// Stints of these steps, and how to list one.
    fn record(steps: Vec<Step>) -> (Shares, impl Fn(&Stint) -> Listed) {
        let symbols = symbols();
        let landmarks = Landmarks::new(&symbols, "disk").unwrap();
        let mut recorder = Recorder::new(&symbols, &landmarks);
        steps.into_iter().for_each(|step| recorder.step(step));
        let (paths, stints) = recorder.finish();
        let shares = share(stints).unwrap();
        let list = move |stint: &Stint| {
            let mut list: Vec<_> = stint.counts.iter().collect();
            list.sort_by_key(|(path, _)| **path);
            let text = |path| {
                let names = paths.outwards(path).map(|path| {
                    let function = symbols.get(paths.function(path) as usize);
                    function.name.as_str()
                });
                names.collect::<Vec<_>>().join("<")
            };
            list.into_iter()
                .map(|(path, count)| (text(*path), count.instructions, count.entries))
                .collect()
        };
        (shares, list)
    }

    fn execute(addresses: &[u64]) -> Vec<Step> {
        addresses.iter().map(|a| Step::Execute(*a)).collect()
    }

    /// What a domain does between two decisions.
    fn stint(space: u64, addresses: &[u64]) -> Vec<Step> {
        let mut steps = execute(&[SCHEDULE, SCHEDULE + 4]);
        steps.push(Step::PageTables(space));
        steps.extend(execute(addresses));
        steps
    }

    #[test]
    fn the_kernel_is_whose_page_tables_ran_the_backend() {
        let steps = [
            // Of this no beginning was seen.
            execute(&[SUBMIT, SUBMIT + 1]),
            stint(1, &[SUBMIT, SUBMIT + 1, SUBMIT + 2]),
            stint(2, &[RUN, SUBMIT]),
            stint(2, &[SUBMIT]),
            execute(&[SCHEDULE, ENTRY]),
            // Of this no end will be seen.
            execute(&[SCHEDULE, ENTRY]),
        ];
        let (shares, _) = record(steps.concat());
        let sums =
            |stints: &[Stint]| -> Vec<u64> { stints.iter().map(Stint::instructions).collect() };
        assert_eq!(sums(&shares.dom0), [4, 3]);
        assert_eq!(sums(&shares.guests), [5]);
        assert_eq!(sums(&shares.idle), [2]);
    }

    #[test]
    fn a_hypercall_is_below_its_caller_and_a_domain_goes_on_where_it_was() {
        let first = stint(2, &[WORKER, RUN, RUN + 4, ENTRY]);
        let second = stint(2, &[RUN + 8, WORKER + 4]);
        let (shares, list) = record([first, second, execute(&[SCHEDULE, ENTRY])].concat());
        let entry = |text: &str, instructions, entries| (text.to_string(), instructions, entries);
        assert_eq!(
            list(&shares.dom0[0]),
            [
                entry("schedule", 2, 1),
                entry("worker", 1, 1),
                entry("run<worker", 2, 1),
                entry("entry<run<worker", 1, 1),
            ]
        );
        assert_eq!(
            list(&shares.dom0[1]),
            [
                entry("schedule", 2, 1),
                entry("worker", 1, 0),
                entry("run<worker", 1, 0),
            ]
        );
    }

    #[test]
    fn another_thread_has_other_callers() {
        let steps = stint(2, &[RUN, SUBMIT, SWITCH, WORKER + 4, WORKER + 8]);
        let (shares, list) = record([steps, execute(&[SCHEDULE, ENTRY])].concat());
        let last = list(&shares.dom0[0]).pop().unwrap();
        assert_eq!(last, ("worker".to_string(), 2, 0));
    }

    #[test]
    fn what_was_put_off_counts_once() {
        let mut steps = stint(2, &[RUN, RUN + 4]);
        steps.push(Step::PutOff);
        steps.extend(execute(&[RUN + 4, SCHEDULE, ENTRY]));
        let (shares, _) = record(steps);
        assert_eq!(shares.dom0[0].instructions(), 4);
    }

    #[test]
    fn without_a_backend_nothing_is_known() {
        let symbols = symbols();
        let landmarks = Landmarks::new(&symbols, "disk").unwrap();
        let mut recorder = Recorder::new(&symbols, &landmarks);
        let steps = [stint(1, &[SUBMIT]), stint(1, &[SUBMIT])].concat();
        steps.iter().for_each(|step| recorder.step(*step));
        assert!(share(recorder.finish().1).is_err());
    }
}
