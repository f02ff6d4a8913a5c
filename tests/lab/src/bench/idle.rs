// SPDX-License-Identifier: GPL-2.0

//! Many disks that nobody uses: what they keep dom0 from resting.

use anyhow::Result;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use super::counters::Observed;
use super::jobs::Server;
use super::measure;
use super::record;
use crate::host::Host;

pub const NAME: &str = "disks-64-idle";
/// Seconds on an idle processor.
pub const TAKES: u64 = 240;
const DISKS: u32 = 64;
const MEMORY: u32 = 576;
const SECONDS: u32 = 10;

/// What dom0 does in a while with so many idle disks of one guest, less what it does without.
pub fn idle(host: &Host<'_>) -> Result<Value> {
    let disks = measure::blank_disks(host, DISKS)?;
    let guest = host.guest("idle").memory(MEMORY).start()?;
    let observed = Observed {
        host,
        guest: Some(&guest),
    };
    let rest = |seconds: u32| guest.ok(&format!("sleep {seconds}")).map(drop);
    let mut servers = Map::new();
    for server in [Server::Blkback, Server::Rblkback] {
        let Some(backend) = server.backend() else {
            continue;
        };
        host.load(backend)?;
        let while_idle = || {
            rest(SECONDS)?;
            observed.cost(&mut |really| if really { rest(SECONDS) } else { Ok(()) })
        };
        let without = while_idle()?;
        let before = host.memory()? as f64;
        measure::attach(&guest, &disks)?;
        let bytes = (host.memory()? as f64 - before) / f64::from(DISKS);
        let mut figures = Map::from_iter([(record::ATTACHED.into(), json!(bytes))]);
        let with = while_idle()?;
        for name in [record::DOM0, record::INTERRUPTS, record::SWITCHES] {
            let more = (with[name] - without[name]) / f64::from(SECONDS);
            figures.insert(format!("{name}_per_second"), json!(more));
        }
        measure::detach(&guest, &disks)?;
        servers.insert(server.name().into(), figures.into());
    }
    guest.destroy()?;
    disks.into_iter().try_for_each(|disk| disk.remove(host))?;
    Ok(json!({"disks": DISKS, "seconds": SECONDS, "servers": servers}))
}
