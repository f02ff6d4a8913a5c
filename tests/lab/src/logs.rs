// SPDX-License-Identifier: GPL-2.0

//! What may not be in a log of dom0 or Xen, whatever a scenario found.

use std::fs;
use std::path::Path;

use anyhow::Result;
use anyhow::bail;

use crate::host::Host;

/// Any of these in dom0's kernel log or on Xen's console fails the scenario.
const COMPLAINTS: &[&str] = &[
    "BUG:",
    "kernel BUG at",
    "Oops",
    "WARNING:",
    "cut here ]",
    "Call Trace:",
    "Kernel panic",
    "general protection",
    "unable to handle",
    "double fault",
    "blocked for more than",
    "soft lockup",
    "hard LOCKUP",
    "rcu_preempt detected stalls",
    "rcu_sched detected stalls",
    "self-detected stall",
    "still in use",
    "use-after-free",
    "refcount_t:",
    "list_add corruption",
    "list_add double add",
    "list_del corruption",
    "scheduling while atomic",
    "sleeping function called",
    // Only the debug kernel has these. Lockdep's reports are a BUG: or a WARNING: each.
    "trying to register non-static key",
    "lockdep is turned off",
    // Slab debugging: "BUG kmalloc-64 (Tainted: G   O): Poison overwritten".
    "] BUG ",
    "ODEBUG: ",
    "UBSAN: ",
    "suspected memory leaks",
    "kmemleak: Cannot",
    "kmemleak: Kernel memory leak detector disabled",
    "Bad page state",
    "Fatal machine check",
    "Domain 0 crashed",
    "domain_crash",
    "Panic on CPU",
    "Assertion '",
];

/// Lines that only look like a complaint.
const HARMLESS: &[&str] = &[
    // The debug kernel lists at boot what it was built with.
    "RCU callback double-/use-after-free debug is enabled.",
];

/// Where the logs stood when a scenario began.
pub struct Mark {
    serial: usize,
    text: String,
}

impl Mark {
    /// Notes the logs' ends and leaves a line in the kernel's log.
    pub fn new(host: &Host<'_>, scenario: &str) -> Result<Mark> {
        let serial = host.qemu.serial().len();
        let text = format!("lab: scenario {scenario} begins at {serial}");
        host.post_mortem.ok(&format!("echo '{text}' >/dev/kmsg"))?;
        Ok(Mark { serial, text })
    }

    /// Where a host's logs begin.
    pub fn everything() -> Mark {
        Mark {
            serial: 0,
            text: "Linux version".into(),
        }
    }

    /// Fails when dom0 or Xen has complained since.
    pub fn search(&self, host: &Host<'_>) -> Result<()> {
        let serial = host.qemu.serial();
        let dmesg = if host.is_off() {
            // All of it is on the console.
            String::new()
        } else {
            host.post_mortem.ok("dmesg")?
        };
        let fresh = dmesg
            .split_once(&self.text)
            .map_or(dmesg.as_str(), |(_, after)| after);
        let consoles = serial.get(self.serial..).unwrap_or(&serial);
        for (log, text) in [
            ("dom0's kernel log", fresh),
            ("the Xen and dom0 console", consoles),
        ] {
            if let Some(line) = complaint(text) {
                bail!("{log} has: {line}");
            }
        }
        Ok(())
    }
}

fn complaint(text: &str) -> Option<&str> {
    let any = |list: &[&str], line: &str| list.iter().any(|words| line.contains(words));
    text.lines()
        .find(|line| any(COMPLAINTS, line) && !any(HARMLESS, line))
}

/// The last lines of a log.
pub fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// The end of each log in a directory, for a failed scenario's report.
pub fn ends(dir: &Path, count: usize) -> Result<String> {
    let mut files: Vec<_> = fs::read_dir(dir)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    files.sort();
    let mut text = String::new();
    for file in files
        .iter()
        .filter(|f| f.extension().is_some_and(|e| e == "log"))
    {
        let log = String::from_utf8_lossy(&fs::read(file)?).into_owned();
        text += &format!(
            "--- end of {}\n{}\n",
            file.display(),
            last_lines(&log, count)
        );
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_are_found() {
        assert_eq!(
            complaint("a\n[    1.0] ------------[ cut here ]------------\n"),
            Some("[    1.0] ------------[ cut here ]------------")
        );
        assert!(
            complaint("[    1.0] BUG kmalloc-8 (Not tainted): Right Redzone overwritten").is_some()
        );
        let boot = "rcu: \tRCU callback double-/use-after-free debug is enabled.";
        assert_eq!(complaint(boot), None);
        assert!(complaint("xen:grant_table: g.e. 0x8 still in use!").is_some());
        assert_eq!(
            complaint("[    0.1] Kernel command line: BUGS\nspec-ctrl"),
            None
        );
    }

    #[test]
    fn ends() {
        assert_eq!(last_lines("1\n2\n3\n", 2), "2\n3");
        assert_eq!(last_lines("", 2), "");
    }
}
