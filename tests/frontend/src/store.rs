// SPDX-License-Identifier: GPL-2.0

//! xenstore, spoken over `/dev/xen/xenbus`. Source of the format: Xen's public `io/xs_wire.h`.

use std::fs::File;
use std::io::Read;
use std::io::Write;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;

use crate::events::readable;
use crate::sys;

const READ: u32 = 2;
const WATCH: u32 = 4;
const UNWATCH: u32 = 5;
const TRANSACTION_START: u32 = 6;
const TRANSACTION_END: u32 = 7;
const WRITE: u32 = 11;
const RM: u32 = 13;
const WATCH_EVENT: u32 = 15;
const ERROR: u32 = 16;

/// Outside of any transaction.
const NO_TRANSACTION: u32 = 0;

pub struct Store {
    file: File,
}

/// What xenstored answered.
enum Reply {
    Data(Vec<u8>),
    Error(String),
}

impl Store {
    pub fn open() -> Result<Self> {
        Ok(Store {
            file: sys::open("/dev/xen/xenbus")?,
        })
    }

    /// The value of a node; `None` if it is not there.
    pub fn read(&self, path: &str) -> Result<Option<String>> {
        match self.ask(READ, NO_TRANSACTION, &[path.as_bytes(), b"\0"].concat())? {
            Reply::Data(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
            Reply::Error(e) if e == "ENOENT" => Ok(None),
            Reply::Error(e) => bail!("reading {path}: {e}"),
        }
    }

    /// The number that a node holds, or `default` when it holds none.
    pub fn number(&self, path: &str, default: u64) -> Result<u64> {
        let text = self.read(path)?;
        Ok(text.and_then(|t| t.trim().parse().ok()).unwrap_or(default))
    }

    pub fn write(&self, path: &str, value: &str) -> Result<()> {
        self.write_in(NO_TRANSACTION, path, value)
    }

    fn write_in(&self, transaction: u32, path: &str, value: &str) -> Result<()> {
        let payload = [path.as_bytes(), b"\0", value.as_bytes()].concat();
        self.ok(WRITE, transaction, &payload)
            .with_context(|| format!("writing {path}"))
            .map(drop)
    }

    /// Writes nodes, all at once.
    pub fn write_all(&self, nodes: &[(String, String)]) -> Result<()> {
        loop {
            let reply = self.ok(TRANSACTION_START, NO_TRANSACTION, b"\0")?;
            let text = String::from_utf8_lossy(&reply);
            let transaction = text.trim_end_matches('\0').parse()?;
            for (path, value) in nodes {
                self.write_in(transaction, path, value)?;
            }
            match self.ask(TRANSACTION_END, transaction, b"T\0")? {
                Reply::Data(_) => return Ok(()),
                // Somebody else wrote meanwhile.
                Reply::Error(e) if e == "EAGAIN" => {}
                Reply::Error(e) => bail!("ending a transaction: {e}"),
            }
        }
    }

    /// Removes a node and what is below it; it need not be there.
    pub fn remove(&self, path: &str) -> Result<()> {
        match self.ask(RM, NO_TRANSACTION, &[path.as_bytes(), b"\0"].concat())? {
            Reply::Error(e) if e != "ENOENT" => bail!("removing {path}: {e}"),
            _ => Ok(()),
        }
    }

    /// Blocks until `path` has a value that `wanted` takes; gives the last value and whether it
    /// was taken in time.
    pub fn wait(
        &self,
        path: &str,
        limit: Duration,
        wanted: impl Fn(Option<&str>) -> bool,
    ) -> Result<(Option<String>, bool)> {
        let value = self.read(path)?;
        if wanted(value.as_deref()) {
            return Ok((value, true));
        }
        let watch = [path.as_bytes(), b"\0frontend\0"].concat();
        self.ok(WATCH, NO_TRANSACTION, &watch)
            .with_context(|| format!("watching {path}"))?;
        let result = self.wait_watched(path, limit, wanted);
        self.ok(UNWATCH, NO_TRANSACTION, &watch)?;
        result
    }

    fn wait_watched(
        &self,
        path: &str,
        limit: Duration,
        wanted: impl Fn(Option<&str>) -> bool,
    ) -> Result<(Option<String>, bool)> {
        let end = Instant::now() + limit;
        loop {
            let value = self.read(path)?;
            if wanted(value.as_deref()) {
                return Ok((value, true));
            }
            let left = end.saturating_duration_since(Instant::now());
            if !readable(&self.file, left)? {
                return Ok((value, false));
            }
            // Nothing was asked, so this is an event: that much is all that is to be known.
            self.receive()?;
        }
    }

    fn ok(&self, kind: u32, transaction: u32, payload: &[u8]) -> Result<Vec<u8>> {
        match self.ask(kind, transaction, payload)? {
            Reply::Data(bytes) => Ok(bytes),
            Reply::Error(e) => bail!("xenstored: {e}"),
        }
    }

    fn ask(&self, kind: u32, transaction: u32, payload: &[u8]) -> Result<Reply> {
        let length = u32::try_from(payload.len())?;
        let header = [kind, 0, transaction, length]
            .map(u32::to_le_bytes)
            .concat();
        (&self.file).write_all(&[&header, payload].concat())?;
        loop {
            match self.receive()? {
                (WATCH_EVENT, _) => {}
                (ERROR, bytes) => {
                    let text = String::from_utf8_lossy(&bytes);
                    return Ok(Reply::Error(text.trim_end_matches('\0').into()));
                }
                (_, bytes) => return Ok(Reply::Data(bytes)),
            }
        }
    }

    fn receive(&self) -> Result<(u32, Vec<u8>)> {
        let mut header = [0; 16];
        (&self.file).read_exact(&mut header)?;
        let word = |i: usize| u32::from_le_bytes(std::array::from_fn(|b| header[4 * i + b]));
        let mut payload = vec![0; word(3) as usize];
        (&self.file).read_exact(&mut payload)?;
        Ok((word(0), payload))
    }
}
