// SPDX-License-Identifier: GPL-2.0

//! One virtual disk in xenstore: what the backend offers, and the handshake.
//!
//! | ours | means          | the backend then says |
//! |------|----------------|-----------------------|
//! | 1    | we start       | 2, with its offers    |
//! | 3    | keys are there | 4, or 5 and an error  |
//! | 4    | we are in use  |                       |
//! | 5    | we want to end | 5 or 6                |
//! | 6    | we have ended  | 6                     |

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Context;
use anyhow::Result;
use anyhow::ensure;

use crate::layout::Layout;
use crate::store::Store;

/// A bound for what has to happen, on the guest's clock. Nothing is judged by how long it takes.
pub const LIMIT: Duration = Duration::from_secs(60);

/// How a frontend connects.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    pub layout: &'static Layout,
    pub queues: u32,
    pub order: u32,
    pub persistent: bool,
    /// Whether even a single page is called `ring-ref0`.
    pub numbered: bool,
    /// Where the indices of the rings begin.
    pub start: u32,
}

impl Setup {
    pub fn plain(layout: &'static Layout) -> Self {
        Setup {
            layout,
            queues: 1,
            order: 0,
            persistent: false,
            numbered: false,
            start: 0,
        }
    }
}

/// What a backend offers before a frontend connects.
#[derive(Clone, Copy, Debug)]
pub struct Offer {
    pub queues: u32,
    pub order: u32,
    /// Segments of an indirect request; 0 if there are none.
    pub segments: u16,
}

/// What a backend says of the disk when it has connected.
#[derive(Clone, Copy, Debug)]
pub struct Traits {
    pub sectors: u64,
    /// Sectors of 512 bytes in a logical block.
    pub block: u64,
    pub read_only: bool,
    pub barrier: bool,
    pub discard: bool,
    pub secure: bool,
}

pub type Nodes = Vec<(String, String)>;

/// Why a backend did not connect.
#[derive(Debug)]
pub struct Refusal {
    pub state: String,
    pub error: Option<String>,
}

/// Keys that a frontend may write, but for the numbered ones.
const KEYS: [&str; 6] = [
    "ring-ref",
    "event-channel",
    "protocol",
    "ring-page-order",
    "multi-queue-num-queues",
    "feature-persistent",
];

pub struct Disk {
    pub store: Store,
    /// Keys and directories of ours, to be removed before the next connection.
    written: RefCell<BTreeSet<String>>,
    front: String,
    back: String,
    error: String,
}

impl Disk {
    pub fn open(vdev: u32) -> Result<Self> {
        let store = Store::open()?;
        let front = format!("device/vbd/{vdev}");
        let back = store
            .read(&format!("{front}/backend"))?
            .with_context(|| format!("this domain has no disk {vdev}"))?;
        let (host, name) = back
            .split_once("/backend/")
            .context("a backend's directory of another shape")?;
        let error = format!("{host}/error/backend/{name}/error");
        Ok(Disk {
            store,
            written: RefCell::default(),
            front,
            back,
            error,
        })
    }

    /// Ends whatever an earlier run left, and begins anew.
    pub fn reset(&self) -> Result<()> {
        let numbered = |name: &str| (0..16).map(move |n| format!("{name}{n}")).collect();
        let all: [Vec<String>; 3] = [
            numbered("ring-ref"),
            numbered("queue-"),
            KEYS.map(String::from).to_vec(),
        ];
        self.written.borrow_mut().extend(all.into_iter().flatten());
        if self.state()? != "2" {
            self.close()?;
        }
        self.begin()
    }

    fn front(&self, key: &str) -> String {
        format!("{}/{key}", self.front)
    }

    fn back(&self, key: &str) -> String {
        format!("{}/{key}", self.back)
    }

    /// Writes a key of ours.
    pub fn write(&self, key: &str, value: &str) -> Result<()> {
        self.store.write(&self.front(key), value)
    }

    fn number(&self, key: &str) -> Result<u64> {
        self.store.number(&self.back(key), 0)
    }

    /// The backend's state.
    pub fn state(&self) -> Result<String> {
        let state = self.store.read(&self.back("state"))?;
        Ok(state.unwrap_or_else(|| "absent".into()))
    }

    /// Waits until the backend's state is one of `wanted`.
    pub fn wait_state(&self, wanted: &[&str]) -> Result<String> {
        let among = |value: Option<&str>| value.is_some_and(|v| wanted.contains(&v));
        let (value, found) = self.store.wait(&self.back("state"), LIMIT, among)?;
        let value = value.unwrap_or_else(|| "absent".into());
        ensure!(
            found,
            "the backend's state stays {value}, expected {wanted:?} (error: {:?})",
            self.error()
        );
        Ok(value)
    }

    /// What the backend told the administrator. This domain can only read it where somebody has
    /// allowed that.
    pub fn error(&self) -> Option<String> {
        self.store.read(&self.error).ok().flatten()
    }

    pub fn wait_error(&self, limit: Duration) -> Result<Option<String>> {
        let there = |value: Option<&str>| value.is_some_and(|v| !v.is_empty());
        Ok(self.store.wait(&self.error, limit, there)?.0)
    }

    /// Forgets an earlier error, where this domain may.
    pub fn forget_error(&self) {
        // Without permission there is nothing to read either.
        let _ = self.store.remove(&self.error);
    }

    /// State 1: waits for the offers.
    fn begin(&self) -> Result<()> {
        for key in self.written.take() {
            self.store.remove(&self.front(&key))?;
        }
        self.write("state", "1")?;
        self.wait_state(&["2"]).map(drop)
    }

    pub fn offer(&self) -> Result<Offer> {
        let number = |key| anyhow::Ok(u32::try_from(self.number(key)?)?);
        Ok(Offer {
            queues: number("multi-queue-max-queues")?.max(1),
            order: number("max-ring-page-order")?,
            segments: u16::try_from(self.number("feature-max-indirect-segments")?)?,
        })
    }

    pub fn traits(&self) -> Result<Traits> {
        let flag = |key| Ok::<_, anyhow::Error>(self.number(key)? != 0);
        Ok(Traits {
            sectors: self.number("sectors")?,
            block: self.number("sector-size")?.max(512) / 512,
            read_only: self.number("info")? & 4 != 0,
            barrier: flag("feature-barrier")?,
            discard: flag("feature-discard")?,
            secure: flag("discard-secure")?,
        })
    }

    /// State 3 with these keys. The error says how the backend refused.
    pub fn connect(&self, keys: &[(String, String)]) -> Result<std::result::Result<(), Refusal>> {
        self.forget_error();
        let nodes: Nodes = keys
            .iter()
            .map(|(key, value)| (self.front(key), value.clone()))
            .collect();
        let tops = keys
            .iter()
            .filter_map(|(key, _)| key.split('/').next().map(String::from));
        self.written.borrow_mut().extend(tops);
        self.store.write_all(&nodes)?;
        self.write("state", "3")?;
        let state = self.wait_state(&["4", "5", "6"])?;
        if state == "4" {
            self.write("state", "4")?;
            return Ok(Ok(()));
        }
        let error = self.error();
        Ok(Err(Refusal { state, error }))
    }

    /// States 5 and 6: gives back everything.
    pub fn close(&self) -> Result<()> {
        self.write("state", "5")?;
        self.wait_state(&["5", "6"])?;
        self.write("state", "6")?;
        self.wait_state(&["6"]).map(drop)
    }

    /// After [`Disk::close`]: ready for the next connection.
    pub fn restart(&self) -> Result<()> {
        self.begin()
    }

    /// From the end to a new beginning: a disk is used as often as one likes.
    pub fn reopen(&self) -> Result<()> {
        self.close()?;
        self.begin()
    }
}

/// The keys of a frontend that connects as `setup` says, with these grants and ports per queue.
pub fn keys(setup: &Setup, queues: &[(Vec<u32>, u32)]) -> Nodes {
    let mut nodes = Nodes::new();
    let mut add = |key: String, value: String| nodes.push((key, value));
    if let Some(protocol) = setup.layout.protocol {
        add("protocol".into(), protocol.into());
    }
    if setup.persistent {
        add("feature-persistent".into(), "1".into());
    }
    if setup.order > 0 || setup.numbered {
        add("ring-page-order".into(), setup.order.to_string());
    }
    if queues.len() > 1 {
        add("multi-queue-num-queues".into(), queues.len().to_string());
    }
    for (number, (grefs, port)) in queues.iter().enumerate() {
        let place = if queues.len() > 1 {
            format!("queue-{number}/")
        } else {
            String::new()
        };
        match grefs.as_slice() {
            [gref] if !setup.numbered => add(format!("{place}ring-ref"), gref.to_string()),
            several => {
                for (page, gref) in several.iter().enumerate() {
                    add(format!("{place}ring-ref{page}"), gref.to_string());
                }
            }
        }
        add(format!("{place}event-channel"), port.to_string());
    }
    nodes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(setup: &Setup, queues: &[(Vec<u32>, u32)]) -> Vec<String> {
        let keys = keys(setup, queues);
        keys.iter().map(|(k, v)| format!("{k}={v}")).collect()
    }

    #[test]
    fn one_page_is_named_as_ever_or_numbered() {
        let setup = Setup::plain(Layout::by_name("x86_64-abi").unwrap());
        let one = [(vec![8], 5)];
        assert_eq!(
            names(&setup, &one),
            ["protocol=x86_64-abi", "ring-ref=8", "event-channel=5"]
        );
        let numbered = Setup {
            numbered: true,
            layout: Layout::by_name("unsaid").unwrap(),
            ..setup
        };
        assert_eq!(
            names(&numbered, &one),
            ["ring-page-order=0", "ring-ref0=8", "event-channel=5"]
        );
    }

    #[test]
    fn several_queues_have_directories() {
        let setup = Setup {
            order: 1,
            queues: 2,
            ..Setup::plain(Layout::by_name("unsaid").unwrap())
        };
        assert_eq!(
            names(&setup, &[(vec![8, 9], 5), (vec![10, 11], 6)]),
            [
                "ring-page-order=1",
                "multi-queue-num-queues=2",
                "queue-0/ring-ref0=8",
                "queue-0/ring-ref1=9",
                "queue-0/event-channel=5",
                "queue-1/ring-ref0=10",
                "queue-1/ring-ref1=11",
                "queue-1/event-channel=6"
            ]
        );
    }
}
