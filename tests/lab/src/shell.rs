// SPDX-License-Identifier: GPL-2.0

//! A bash at the far end of a socket, driven one command at a time.
//!
//! Each command is sent as `{ CMD; } </dev/null 2>&1; printf '\036%d\036\n' $?`: everything up to
//! the framed status is its output. Nothing is polled: a read blocks until the far end writes, and
//! a deadline in host time turns a hang into an error that shows what was seen so far. Deadlines
//! are there for that alone; no result is judged by them.

use std::cell::Cell;
use std::cell::RefCell;
use std::fs::File;
use std::io::ErrorKind;
use std::io::Read;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;

/// Long enough for any single step of an emulated host on a busy machine.
pub const DEADLINE: Duration = Duration::from_secs(120);

const MARK: u8 = 0x1e;

/// Every command of a host's shells, with what it took, for whoever reads the logs.
pub struct Diary {
    pub file: File,
    /// The emulator, whose processor time says more than the clock of a busy machine.
    pub emulator: u32,
}

impl Diary {
    fn cpu(&self) -> f64 {
        let stat =
            std::fs::read_to_string(format!("/proc/{}/stat", self.emulator)).unwrap_or_default();
        let fields = stat.rsplit(") ").next().unwrap_or_default().split(' ');
        // utime and stime, in hundredths of a second.
        fields
            .skip(11)
            .take(2)
            .filter_map(|ticks| ticks.parse::<f64>().ok())
            .sum::<f64>()
            / 100.0
    }

    fn note(&self, shell: &str, begin: Instant, cpu: f64, command: &str, status: i32) {
        let (took, cpu) = (begin.elapsed().as_secs_f64(), self.cpu() - cpu);
        // A diary that cannot be written is no reason to fail a test.
        let _ = writeln!(
            &self.file,
            "{took:>8.2} s {cpu:>7.2} cpu  {shell}: {} -> {status}",
            brief(command)
        );
    }
}

/// What a command printed and how it ended.
#[derive(Debug)]
pub struct Output {
    pub status: i32,
    pub text: String,
}

/// One shell. Used from one thread; at most one command runs at a time.
pub struct Shell {
    name: String,
    stream: UnixStream,
    received: RefCell<Vec<u8>>,
    busy: Cell<bool>,
    diary: Option<Diary>,
    patience: u32,
}

impl Shell {
    pub fn new(name: &str, stream: UnixStream) -> Self {
        let received = RefCell::new(Vec::new());
        Shell {
            name: name.into(),
            stream,
            received,
            busy: Cell::new(false),
            diary: None,
            patience: 1,
        }
    }

    /// Keeps a diary of its commands.
    pub fn with_diary(self, diary: Diary) -> Self {
        Shell {
            diary: Some(diary),
            ..self
        }
    }

    /// As [`Shell::wait_ready`], noted in the diary as the boot of `what`.
    pub fn wait_boot(&self, what: &str, deadline: Duration) -> Result<()> {
        let (begin, cpu) = (Instant::now(), self.cpu());
        self.wait_ready(deadline)?;
        if let Some(diary) = &self.diary {
            diary.note(&self.name, begin, cpu, &format!("(boot of {what})"), 0);
        }
        Ok(())
    }

    /// Multiplies all deadlines, for a host that is slower than the usual one.
    pub fn with_patience(self, patience: u32) -> Self {
        Shell { patience, ..self }
    }

    /// Waits for the line `LAB READY`, which the far end writes before its bash starts.
    pub fn wait_ready(&self, deadline: Duration) -> Result<()> {
        let end = Instant::now() + deadline * self.patience;
        loop {
            let ready = find(&self.received.borrow(), b"LAB READY");
            if let Some(at) = ready {
                self.received.borrow_mut().drain(..at + b"LAB READY".len());
                return self.sync(end);
            }
            self.read_more(end).with_context(|| {
                format!(
                    "{} did not get ready; it wrote:\n{}",
                    self.name,
                    self.tail()
                )
            })?;
        }
    }

    /// Waits for the far end's bash, which was left idle.
    pub fn wait_idle(&self, deadline: Duration) -> Result<()> {
        self.sync(Instant::now() + deadline * self.patience)
    }

    /// Runs a command after which there is nobody left to answer.
    pub fn last(&self, command: &str, deadline: Duration) -> Result<()> {
        self.busy.set(true);
        self.send(command)?;
        let end = Instant::now() + deadline * self.patience;
        self.stream
            .set_read_timeout(Some(end.saturating_duration_since(Instant::now())))?;
        // Its own output, and whatever there was before.
        (&self.stream)
            .read_to_end(&mut self.received.borrow_mut())
            .with_context(|| format!("{}: no end after `{}`", self.name, brief(command)))
            .map(drop)
    }

    /// Runs a command that ends the far end, which comes back with [`Shell::wait_ready`].
    pub fn leave(&self, command: &str) -> Result<()> {
        self.busy.set(true);
        self.send(command)
    }

    /// Throws away what a terminal or an earlier user of the port may still have to say.
    fn sync(&self, end: Instant) -> Result<()> {
        let seconds = end.saturating_duration_since(Instant::now());
        self.send("\necho ready")?;
        self.busy.set(true);
        Running {
            shell: self,
            command: "(first prompt)".into(),
            begin: Instant::now(),
            cpu: self.cpu(),
        }
        .finish_within(seconds)
        .map(drop)
    }

    /// Starts a command; its end is collected from the result.
    pub fn start(&self, command: &str) -> Result<Running<'_>> {
        if self.busy.replace(true) {
            bail!(
                "{}: asked to run `{}` while another command runs or hangs",
                self.name,
                brief(command)
            );
        }
        self.send(command)?;
        Ok(Running {
            shell: self,
            command: command.into(),
            begin: Instant::now(),
            cpu: self.cpu(),
        })
    }

    /// Runs a command to its end, whatever its status.
    pub fn run(&self, command: &str) -> Result<Output> {
        self.start(command)?.finish_within(DEADLINE)
    }

    /// Runs a command that must succeed; gives its output without the last newline.
    pub fn ok(&self, command: &str) -> Result<String> {
        self.start(command)?.ok_within(DEADLINE)
    }

    /// As [`Shell::ok`] with a deadline of its own.
    pub fn ok_within(&self, command: &str, deadline: Duration) -> Result<String> {
        self.start(command)?.ok_within(deadline)
    }

    /// The raw socket, for an interactive session. The framing is over after this.
    pub fn stream(&self) -> &UnixStream {
        &self.stream
    }

    fn cpu(&self) -> f64 {
        self.diary.as_ref().map_or(0.0, Diary::cpu)
    }

    fn send(&self, command: &str) -> Result<()> {
        let framed = format!("{{ {command}\n}} </dev/null 2>&1; printf '\\036%d\\036\\n' $?\n");
        (&self.stream)
            .write_all(framed.as_bytes())
            .with_context(|| format!("{} is gone", self.name))
    }

    /// Appends what the far end says next to `received`.
    fn read_more(&self, end: Instant) -> Result<()> {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            bail!("deadline passed");
        }
        self.stream.set_read_timeout(Some(left))?;
        let mut chunk = [0; 65536];
        match (&self.stream).read(&mut chunk) {
            Ok(0) => bail!("{}: the other end closed (the host died)", self.name),
            Ok(n) => self.received.borrow_mut().extend_from_slice(&chunk[..n]),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                bail!("deadline passed")
            }
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e).with_context(|| format!("reading from {}", self.name)),
        }
        Ok(())
    }

    /// The end of what was received and not yet consumed, for error messages.
    fn tail(&self) -> String {
        let received = self.received.borrow();
        String::from_utf8_lossy(&received[received.len().saturating_sub(3000)..]).into_owned()
    }
}

/// A command under way in a [`Shell`]. Dropping it unfinished leaves the shell unusable, which is
/// what a scenario wants when it kills the guest the shell lives in.
pub struct Running<'s> {
    shell: &'s Shell,
    command: String,
    begin: Instant,
    cpu: f64,
}

impl Running<'_> {
    /// Waits for the command's end.
    pub fn finish_within(self, deadline: Duration) -> Result<Output> {
        let deadline = deadline * self.shell.patience;
        let end = Instant::now() + deadline;
        let mut scanned = 0;
        loop {
            let frame = frame(&self.shell.received.borrow(), scanned);
            if let Some(frame) = frame {
                return Ok(self.take(frame));
            }
            scanned = self.shell.received.borrow().len().saturating_sub(16);
            self.read_more(end, deadline)?;
        }
    }

    /// Waits for the command's end, which must be a success.
    pub fn ok_within(self, deadline: Duration) -> Result<String> {
        let place = self.shell.name.clone();
        let command = brief(&self.command);
        let output = self.finish_within(deadline)?;
        if output.status != 0 {
            bail!(
                "{place}: `{command}` ended with status {}:\n{}",
                output.status,
                output.text.trim_end()
            );
        }
        let mut text = output.text;
        text.truncate(text.trim_end_matches('\n').len());
        Ok(text)
    }

    /// The command's next line of output, or its status when there is none left.
    pub fn next_line(&mut self, deadline: Duration) -> Result<Line> {
        let deadline = deadline * self.shell.patience;
        let end = Instant::now() + deadline;
        loop {
            let newline = find(&self.shell.received.borrow(), b"\n");
            let frame = frame(&self.shell.received.borrow(), 0);
            match (newline, frame) {
                (newline, Some(frame)) if newline.is_none_or(|at| at >= frame.start) => {
                    if frame.start == 0 {
                        return Ok(Line::End(self.take(frame).status));
                    }
                    return Ok(Line::Text(self.take_line(frame.start, 0)));
                }
                (Some(at), _) => return Ok(Line::Text(self.take_line(at, 1))),
                _ => self.read_more(end, deadline)?,
            }
        }
    }

    fn take_line(&self, length: usize, newline: usize) -> String {
        let line: Vec<u8> = self
            .shell
            .received
            .borrow_mut()
            .drain(..length + newline)
            .collect();
        String::from_utf8_lossy(&line[..length]).into_owned()
    }

    fn read_more(&self, end: Instant, deadline: Duration) -> Result<()> {
        self.shell.read_more(end).with_context(|| {
            let (name, command, tail) = (&self.shell.name, brief(&self.command), self.shell.tail());
            format!("{name}: no end of `{command}` within {} s of host time; its output so far:\n{tail}", deadline.as_secs())
        })
    }

    fn take(&self, frame: Frame) -> Output {
        let bytes: Vec<u8> = self
            .shell
            .received
            .borrow_mut()
            .drain(..frame.end)
            .collect();
        self.shell.busy.set(false);
        if let Some(diary) = &self.shell.diary {
            diary.note(
                &self.shell.name,
                self.begin,
                self.cpu,
                &self.command,
                frame.status,
            );
        }
        let text = String::from_utf8_lossy(&bytes[..frame.start]).into_owned();
        Output {
            status: frame.status,
            text,
        }
    }
}

/// One step of a command's output.
#[derive(Debug, PartialEq, Eq)]
pub enum Line {
    Text(String),
    End(i32),
}

/// Where a framed status stands in what was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Frame {
    start: usize,
    end: usize,
    status: i32,
}

fn frame(bytes: &[u8], from: usize) -> Option<Frame> {
    let mut at = from;
    while let Some(start) = bytes
        .get(at..)?
        .iter()
        .position(|&b| b == MARK)
        .map(|i| at + i)
    {
        let length = bytes[start + 1..].iter().position(|&b| b == MARK)?;
        let digits = std::str::from_utf8(&bytes[start + 1..start + 1 + length]).unwrap_or("");
        let end = start + length + 3;
        match digits.parse() {
            // The newline belongs to the frame.
            Ok(status) => return (bytes.len() >= end).then_some(Frame { start, end, status }),
            Err(_) => at = start + 1,
        }
    }
    None
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|w| w == needle)
}

/// The first line of a command, for messages.
fn brief(command: &str) -> String {
    let line = command.trim().lines().next().unwrap_or_default();
    match line.char_indices().nth(160) {
        Some((at, _)) => format!("{}...", &line[..at]),
        None => line.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(said: &[u8]) -> (Shell, UnixStream) {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(said).unwrap();
        (Shell::new("test", ours), theirs)
    }

    #[test]
    fn output_and_status_are_split() {
        let (shell, _far) = shell(b"one\ntwo\x1e3\x1e\n\x1e0\x1e\n");
        let first = shell.run("x").unwrap();
        assert_eq!((first.status, first.text.as_str()), (3, "one\ntwo"));
        assert_eq!(shell.ok("y").unwrap(), "");
    }

    #[test]
    fn a_mark_in_the_output_is_no_frame() {
        let (shell, _far) = shell(b"a\x1eb\x1e0\x1e\n");
        assert_eq!(shell.ok("x").unwrap(), "a\u{1e}b");
    }

    #[test]
    fn lines_come_one_by_one() {
        let (shell, _far) = shell(b"one\ntwo\x1e7\x1e\n");
        let mut running = shell.start("x").unwrap();
        let lines: Vec<Line> = (0..3)
            .map(|_| running.next_line(DEADLINE).unwrap())
            .collect();
        assert_eq!(
            lines,
            [
                Line::Text("one".into()),
                Line::Text("two".into()),
                Line::End(7)
            ]
        );
    }

    #[test]
    fn a_hang_is_an_error_with_the_output_so_far() {
        let (shell, _far) = shell(b"half a line");
        let error = shell
            .start("wait")
            .unwrap()
            .finish_within(Duration::from_millis(20))
            .unwrap_err();
        assert!(format!("{error:#}").contains("half a line"), "{error:#}");
        assert!(
            shell.run("next").is_err(),
            "a shell with a hung command must not be used"
        );
    }
}
