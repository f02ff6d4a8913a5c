// SPDX-License-Identifier: GPL-2.0

//! A write barrier behind a write: Linux's own frontend sends flushes instead where it may.

use anyhow::Result;
use anyhow::ensure;
use serde_json::json;

use crate::disk::Disk;
use crate::disk::Setup;
use crate::events::Events;
use crate::grants::Grants;
use crate::layout;
use crate::link::Link;
use crate::pool::Pool;
use crate::request::BARRIER;
use crate::request::OKAY;
use crate::request::Request;
use crate::request::WRITE;

/// Connects, sends both at once, and waits for their answers.
pub fn ordered(disk: &Disk) -> Result<()> {
    let (grants, events) = (Grants::open()?, Events::open()?);
    disk.reset()?;
    let mut link = Link::connect(disk, &grants, &events, &Setup::plain(&layout::ALL[0]))?;
    let pool = Pool {
        pages: grants.pages(2)?,
    };
    let requests = vec![
        Request::direct(WRITE, 0, &[pool.whole(0)]),
        Request::direct(BARRIER, 8, &[pool.whole(1)]),
    ];
    let statuses = link.ask_all(0, requests)?;
    ensure!(
        statuses == [OKAY, OKAY],
        "write and barrier were answered with {statuses:?}"
    );
    println!("{}", json!({"ok": true}));
    disk.close()
}
