// SPDX-License-Identifier: GPL-2.0

//! QEMU's control socket: the few commands that save a machine and bring it back, and those that
//! show each instruction it executes.

use std::io::BufRead;
use std::io::BufReader;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use serde_json::Value;
use serde_json::json;

/// A machine's memory is written and read in a few seconds.
const DEADLINE: Duration = Duration::from_secs(300);
/// More than any disk has, in bytes per second: the default keeps a network usable.
const BANDWIDTH: u64 = 1 << 40;

/// A connection to one QEMU.
pub struct Control {
    reader: BufReader<UnixStream>,
    /// What happened while something else was waited for.
    events: Vec<Value>,
}

impl Control {
    /// Greets the QEMU behind `stream`.
    pub fn new(stream: UnixStream) -> Result<Self> {
        stream.set_read_timeout(Some(DEADLINE))?;
        let mut control = Control {
            reader: BufReader::new(stream),
            events: Vec::new(),
        };
        control.read().context("QEMU's greeting")?;
        control.execute("qmp_capabilities", json!({}))?;
        // Without it the end of a migration would have to be asked for again and again.
        let events = json!({ "capabilities": [{ "capability": "events", "state": true }] });
        control.execute("migrate-set-capabilities", events)?;
        Ok(control)
    }

    /// Stops the machine, writes its state to `file` and ends QEMU.
    pub fn save(&mut self, file: &Path) -> Result<()> {
        self.execute("stop", json!({}))?;
        self.execute(
            "migrate-set-parameters",
            json!({ "max-bandwidth": BANDWIDTH }),
        )?;
        self.execute("migrate", json!({ "uri": uri(file) }))?;
        self.migrated()?;
        self.execute("quit", json!({})).map(drop)
    }

    /// Loads the state in `file` and lets the machine go on.
    pub fn resume(&mut self, file: &Path) -> Result<()> {
        self.execute("migrate-incoming", json!({ "uri": uri(file) }))?;
        self.migrated()?;
        self.execute("cont", json!({})).map(drop)
    }

    /// From now on writes to `file` the address of each instruction, and what page tables there are
    /// when they change.
    pub fn log_instructions(&mut self, file: &Path) -> Result<()> {
        // Without it a line stands for all instructions up to the next jump.
        self.monitor("one-insn-per-tb on")?;
        self.monitor(&format!("logfile {}", file.display()))?;
        self.monitor("log exec,mmu")
    }

    /// Ends that and closes the file.
    pub fn log_nothing(&mut self) -> Result<()> {
        self.monitor("log none")?;
        // The file stays open until there is another.
        self.monitor("logfile /dev/null")?;
        self.monitor("one-insn-per-tb off")
    }

    /// A command that only people are meant to use. What it prints is a complaint.
    fn monitor(&mut self, command: &str) -> Result<()> {
        let said = self.execute("human-monitor-command", json!({ "command-line": command }))?;
        match said.as_str() {
            Some("") => Ok(()),
            _ => bail!("QEMU's answer to `{command}`: {said}"),
        }
    }

    /// Gives the machine a disk: a file that QEMU has open from now on, and a PCI device of its own.
    pub fn plug_disk(&mut self, driver: &str, serial: &str, file: &Path) -> Result<()> {
        let file = json!({ "driver": "file", "filename": file.display().to_string() });
        self.execute(
            "blockdev-add",
            json!({ "driver": "raw", "node-name": serial, "discard": "unmap", "file": file }),
        )?;
        self.execute(
            "device_add",
            json!({ "driver": driver, "id": serial, "drive": serial, "serial": serial }),
        )
        .map(drop)
    }

    fn migrated(&mut self) -> Result<()> {
        loop {
            let event = match self.events.is_empty() {
                true => self.read()?,
                false => self.events.remove(0),
            };
            if event["event"] != "MIGRATION" {
                continue;
            }
            match event["data"]["status"].as_str() {
                Some("completed") => return Ok(()),
                Some(status @ ("failed" | "cancelled")) => bail!("QEMU's migration: {status}"),
                _ => {}
            }
        }
    }

    fn execute(&mut self, command: &str, arguments: Value) -> Result<Value> {
        let line = json!({ "execute": command, "arguments": arguments });
        writeln!(self.reader.get_mut(), "{line}").with_context(|| format!("QEMU: {command}"))?;
        loop {
            let mut answer = self
                .read()
                .with_context(|| format!("QEMU's answer to {command}"))?;
            if let Some(value) = answer.get_mut("return") {
                return Ok(value.take());
            }
            if let Some(error) = answer.get("error") {
                bail!("QEMU refuses {command}: {error}");
            }
            self.events.push(answer);
        }
    }

    fn read(&mut self) -> Result<Value> {
        let mut line = String::new();
        if self.reader.read_line(&mut line)? == 0 {
            bail!("QEMU has ended");
        }
        Ok(serde_json::from_str(&line)?)
    }
}

fn uri(file: &Path) -> String {
    format!("file:{}", file.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn control(said: &str) -> (Result<Control>, UnixStream) {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let greeting = r#"{"QMP": {}}
            {"return": {}}
            {"return": {}}
            "#;
        for line in (greeting.to_string() + said).lines() {
            writeln!(theirs, "{}", line.trim()).unwrap();
        }
        (Control::new(ours), theirs)
    }

    #[test]
    fn an_event_before_the_answer_is_not_lost() {
        let (control, _far) = control(
            r#"{"event": "MIGRATION", "data": {"status": "completed"}}
            {"return": {}}
            {"return": {}}"#,
        );
        control.unwrap().resume(Path::new("/x")).unwrap();
    }

    #[test]
    fn a_failure_is_told() {
        let (control, _far) = control(
            r#"{"return": {}}
            {"event": "MIGRATION", "data": {"status": "failed"}}"#,
        );
        let error = control.unwrap().resume(Path::new("/x")).unwrap_err();
        assert!(format!("{error:#}").contains("failed"), "{error:#}");
    }

    #[test]
    fn what_the_monitor_says_is_a_complaint() {
        let (control, _far) = control(
            r#"{"return": ""}
            {"return": ""}
            {"return": "cannot open"}"#,
        );
        let error = control
            .unwrap()
            .log_instructions(Path::new("/x"))
            .unwrap_err();
        assert!(format!("{error:#}").contains("cannot open"), "{error:#}");
    }

    #[test]
    fn a_refusal_is_told() {
        let (control, _far) = control(r#"{"error": {"desc": "no such file"}}"#);
        let error = control.unwrap().resume(Path::new("/x")).unwrap_err();
        assert!(format!("{error:#}").contains("no such file"), "{error:#}");
    }
}
