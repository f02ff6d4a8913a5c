// SPDX-License-Identifier: GPL-2.0

use anyhow::Result;
use serde_json::json;

use crate::check;
use crate::disk::Disk;
use crate::flood;
use crate::flood::Flooded;
use crate::guest::Guest;
use crate::host::Host;
use crate::results::Figures;

/// Of a ring, as a power of two.
const SHALLOW: u32 = 0;
const DEEP: u32 = 4;
/// What the longer of two runs does and the shorter one does not is requests only.
const SECONDS: [u64; 2] = [1, 2];

/// A frontend keeps a ring of 32 slots full, then one of 512: so many more requests come at a time,
/// and none may cost dom0 more for it.
pub fn deep_ring(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    let disk = Disk::instant(host, "nb0", 1024)?;
    let guest = host
        .guest("deep")
        .disk(&disk, "xvda")
        .own_frontend()
        .start()?;
    let shallow = cost(host, &guest, SHALLOW)?;
    let deep = cost(host, &guest, DEEP)?;
    figures.insert(
        "dom0's instructions a request".into(),
        json!({"1 page": shallow, "16 pages": deep}),
    );
    check::within("of 16 pages, of one's", deep / shallow, 0.0..=1.0)?;
    guest.destroy()?;
    disk.remove(host)
}

/// Dom0's nanoseconds, which are instructions here, for each request of a ring of `order`.
fn cost(host: &Host<'_>, guest: &Guest<'_, '_>, order: u32) -> Result<f64> {
    let [short, long] = SECONDS;
    let (short, long) = (
        run(host, guest, order, short)?,
        run(host, guest, order, long)?,
    );
    Ok((long.0 - short.0) / (long.1 - short.1))
}

/// For how long dom0 ran, and how many requests were answered.
fn run(host: &Host<'_>, guest: &Guest<'_, '_>, order: u32, seconds: u64) -> Result<(f64, f64)> {
    let before = host.run_time()?;
    let flooded = Flooded::parse(&guest.ok(&flood::command(order, 0, seconds))?)?;
    let after = host.run_time()?;
    Ok(((after - before) as f64, flooded.answered))
}
