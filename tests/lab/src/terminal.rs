// SPDX-License-Identifier: GPL-2.0

//! Joins the user's terminal to a dom0 shell.

use std::io::Read;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use anyhow::Result;
use nix::poll::PollFd;
use nix::poll::PollFlags;
use nix::poll::PollTimeout;
use nix::poll::poll;
use nix::sys::termios;
use nix::sys::termios::SetArg;

/// Gives bash a terminal of its own in dom0; `exit` ends the session.
const SESSION: &str =
    "TERM=xterm exec socat STDIO EXEC:'bash -li',pty,stderr,setsid,sigint,sane,ctty\n";

/// Passes bytes both ways until the far shell ends or standard input closes.
pub fn interact(shell: &UnixStream) -> Result<()> {
    let stdin = std::io::stdin();
    let before = termios::tcgetattr(stdin.as_fd()).ok();
    if let Some(settings) = &before {
        let mut raw = settings.clone();
        termios::cfmakeraw(&mut raw);
        termios::tcsetattr(stdin.as_fd(), SetArg::TCSANOW, &raw)?;
    }
    let result = pump(shell);
    if let Some(settings) = &before {
        termios::tcsetattr(stdin.as_fd(), SetArg::TCSANOW, settings)?;
    }
    result
}

fn pump(mut shell: &UnixStream) -> Result<()> {
    let stdin = std::io::stdin();
    let mut keys = stdin.lock();
    let mut screen = std::io::stdout();
    // Larger than the buffer of standard input, so that poll sees all there is.
    let mut chunk = [0; 16384];
    let mut open = true;
    shell.set_read_timeout(None)?;
    shell.write_all(SESSION.as_bytes())?;
    loop {
        let wanted = if open {
            PollFlags::POLLIN
        } else {
            PollFlags::empty()
        };
        let mut sources = [
            PollFd::new(stdin.as_fd(), wanted),
            PollFd::new(shell.as_fd(), PollFlags::POLLIN),
        ];
        poll(&mut sources, PollTimeout::NONE)?;
        let [typed, said] = sources.map(|s| s.any().unwrap_or(false));
        if said {
            let n = shell.read(&mut chunk)?;
            // The dom0 shell that follows an ended session announces itself.
            if n == 0 || chunk[..n].windows(9).any(|w| w == b"LAB READY") {
                return Ok(());
            }
            screen.write_all(&chunk[..n])?;
            screen.flush()?;
        } else if typed && open {
            let n = keys.read(&mut chunk)?;
            open = n > 0;
            // The end of a script typed in ends the session.
            shell.write_all(if open { &chunk[..n] } else { b"\x04" })?;
        }
    }
}
