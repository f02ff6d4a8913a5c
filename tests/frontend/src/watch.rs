// SPDX-License-Identifier: GPL-2.0

//! When a domain shuts down, runs again and is gone, as Xen says. xenstored says the first of these
//! later, and the second never.

use std::io::Write;
use std::time::Duration;

use anyhow::Result;
use nix::time::ClockId;
use nix::time::clock_gettime;

use crate::sys;

/// How often Xen is asked.
const PERIOD: Duration = Duration::from_millis(1);

/// Prints a line for each change: the last moment at which it had not happened yet, the first at
/// which it had, and the new state.
pub fn watch(domid: u16) -> Result<()> {
    let mut out = std::io::stdout();
    let mut state = "";
    let mut before = now()?;
    while state != "gone" {
        let asked = now()?;
        let found = match sys::is_shut_down(domid)? {
            Some(true) => "shut-down",
            Some(false) => "running",
            None => "gone",
        };
        if found != state {
            writeln!(out, "{before} {} {found}", now()?)?;
            out.flush()?;
            state = found;
        }
        before = asked;
        std::thread::sleep(PERIOD);
    }
    Ok(())
}

fn now() -> Result<i128> {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC)?;
    Ok(i128::from(time.tv_sec()) * 1_000_000_000 + i128::from(time.tv_nsec()))
}
