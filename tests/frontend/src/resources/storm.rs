// SPDX-License-Identifier: GPL-2.0

//! Events without a request, and channels that are closed and bound again.

use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use anyhow::ensure;
use serde_json::json;

use crate::disk::Disk;
use crate::disk::Setup;
use crate::events::Events;
use crate::events::Port;
use crate::grants::DOM0;
use crate::grants::Grants;
use crate::link::Link;
use crate::pool::Pool;
use crate::request::OKAY;
use crate::request::READ;
use crate::request::Request;

/// Events between two looks at the clock.
const BURST: u32 = 64;
/// Ports that the backend's end of a channel is looked for among.
const PORTS: u32 = 4096;

/// Sends events to all queues for so long, then does `rebinds` times to each queue what a channel allows. Each
/// queue has to answer after all of it, and the disk to close when a channel is gone for good.
pub fn storm(disk: &Disk, setup: &Setup, time: Duration, rebinds: u32) -> Result<()> {
    let (grants, events) = (Grants::open()?, Events::open()?);
    let pool = Pool {
        pages: grants.pages(1)?,
    };
    let mut link = Link::connect(disk, &grants, &events, setup)?;
    let (begin, mut sent) = (Instant::now(), 0);
    while begin.elapsed() < time {
        sent += burst(&link)?;
    }
    answers(&mut link, &pool).context("after the storm")?;
    for round in 0..rebinds {
        for number in 0..link.queues.len() {
            sent += burst(&link)?;
            rebind(&mut link, &events, number)
                .with_context(|| format!("queue {number}, round {round}"))?;
            sent += burst(&link)?;
        }
        answers(&mut link, &pool).with_context(|| format!("after round {round}"))?;
    }
    if rebinds > 0 {
        // The backend's end stays open, with nobody at the other one.
        link.queues[0].port = events.port(u32::from(DOM0))?;
    }
    disk.reopen()?;
    let mut line = crate::describe(setup);
    line["ok"] = json!(true);
    line["done"] = json!({"events": sent, "rebinds": rebinds});
    println!("{line}");
    Ok(())
}

/// Events on all queues.
fn burst(link: &Link) -> Result<u64> {
    for _ in 0..BURST {
        for queue in &link.queues {
            queue.port.notify()?;
        }
    }
    Ok(u64::from(BURST) * link.queues.len() as u64)
}

/// Closes the channel of a queue, then makes one to the backend's end, which the backend knows nothing of.
fn rebind(link: &mut Link, events: &Events, number: usize) -> Result<()> {
    // In the place of the one that is closed with it.
    link.queues[number].port = events.port(u32::from(DOM0))?;
    link.queues[number].port = left_open(events)?;
    Ok(())
}

/// A channel to a port of dom0's whose other end was closed. Xen lets nobody but this domain have it.
fn left_open(events: &Events) -> Result<Port> {
    match (1..PORTS).find_map(|port| events.bind(u32::from(DOM0), port).ok()) {
        Some(port) => Ok(port),
        None => bail!("no port of dom0's up to {PORTS} waits for this domain"),
    }
}

fn answers(link: &mut Link, pool: &Pool) -> Result<()> {
    for number in 0..link.queues.len() {
        let status = link.ask(number, Request::direct(READ, 0, &[pool.whole(0)]))?;
        ensure!(
            status == OKAY,
            "queue {number} answered a read with {status}"
        );
    }
    Ok(())
}
