// SPDX-License-Identifier: GPL-2.0

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use serde::Deserialize;
use serde_json::Value;

use crate::check;
use crate::disk::Disk;
use crate::guest::Guest;
use crate::host::Host;
use crate::lab::Backend;
use crate::results::Figures;
use crate::shell::Running;

/// Seconds of host time after which a run of the frontend is taken for hung.
const DEADLINE: u64 = 540;

/// One line of what the frontend prints.
#[derive(Debug, Deserialize)]
pub struct Line {
    pub ok: bool,
    #[serde(default)]
    pub done: Value,
    #[serde(flatten)]
    pub rest: serde_json::Map<String, Value>,
}

impl Line {
    pub fn word(&self, key: &str) -> String {
        match self.rest.get(key) {
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
            None => String::new(),
        }
    }
}

/// What failed, each with the connections in which it did.
pub fn summary(lines: &[&Line]) -> String {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in lines {
        let what = ["case", "name", "seen"].map(|key| line.word(key)).join(" ");
        let place = ["layout", "queues", "order", "persistent"].map(|key| line.word(key));
        found.entry(what).or_default().push(place.join("/"));
    }
    let text: Vec<String> = found
        .iter()
        .map(|(what, places)| format!("{} ({})", what.trim(), places.join(", ")))
        .collect();
    text.join("\n")
}

/// Random requests, well-formed and not, in each layout, with one and several queues, small and
/// large rings, with and without persistent grants: every one is answered once and every byte is
/// the right one.
pub fn model(host: &Host<'_>, figures: &mut Figures) -> Result<()> {
    let disk = Disk::memory_with(host, "nb0", 64, "echo 1 >discard")?;
    more_queues(host, host.lab.backend)?;
    let guest = host
        .guest("model")
        .disk(&disk, "xvda")
        .own_frontend()
        .start()?;
    let lines = frontend(&guest, "run --seed 1 --requests 120")?;
    let mut total = serde_json::Map::new();
    let failed: Vec<&Line> = lines.iter().filter(|line| !line.ok).collect();
    check::that(failed.is_empty(), || summary(&failed))?;
    for line in &lines {
        for (name, count) in line.done.as_object().into_iter().flatten() {
            let sum = total.get(name).and_then(Value::as_u64).unwrap_or(0);
            total.insert(name.clone(), (sum + count.as_u64().unwrap_or(0)).into());
        }
    }
    check::that(lines.len() >= 6, || format!("only {} runs", lines.len()))?;
    figures.insert("connections".into(), lines.len().into());
    figures.extend(total);
    guest.destroy()?;
    disk.remove(host)
}

/// Lets a guest have four queues, where the backend has them: its own default is one for each of
/// dom0's processors, and that is one here.
pub fn more_queues(host: &Host<'_>, backend: Backend) -> Result<()> {
    host.ok(&format!(
        "limit=/sys/module/{}/parameters/max_queues; [ ! -e $limit ] || echo 4 >$limit",
        backend.module()
    ))
    .map(drop)
}

/// Runs the frontend in a guest; gives what it printed. That cases failed is no error here.
pub fn frontend(guest: &Guest<'_, '_>, arguments: &str) -> Result<Vec<Line>> {
    lines(&guest.ok_within(&command(arguments), DEADLINE)?)
}

/// A run of the frontend under way in a guest.
pub struct RunningFrontend<'g>(Running<'g>);

/// Starts the frontend in a guest.
pub fn start<'g>(guest: &'g Guest<'_, '_>, arguments: &str) -> Result<RunningFrontend<'g>> {
    guest.start(&command(arguments)).map(RunningFrontend)
}

impl RunningFrontend<'_> {
    /// As [`frontend`].
    pub fn finish(self) -> Result<Vec<Line>> {
        lines(&self.0.ok_within(Duration::from_secs(DEADLINE))?)
    }
}

/// Each line has to be of something that held.
pub fn all_held(lines: &[Line]) -> Result<()> {
    let failed: Vec<&Line> = lines.iter().filter(|line| !line.ok).collect();
    check::that(failed.is_empty(), || summary(&failed))
}

/// What the lines count under that name, in all.
pub fn total(lines: &[Line], name: &str) -> u64 {
    lines
        .iter()
        .filter_map(|line| line.done[name].as_u64())
        .sum()
}

/// Does something while the frontend holds what its arguments say. It says so in a line, and ends well
/// when its input ends.
pub fn held<T>(
    guest: &Guest<'_, '_>,
    arguments: &str,
    action: impl FnOnce() -> Result<T>,
) -> Result<T> {
    guest.ok_within(
        &format!(
            "rm -f /tmp/hold /tmp/said && mkfifo /tmp/hold /tmp/said && \
             {{ /frontend {arguments} </tmp/hold >/tmp/said & }} && \
             exec 5>/tmp/hold 6</tmp/said && {NEXT_LINE}"
        ),
        DEADLINE,
    )?;
    let result = action()?;
    guest.ok_within(
        "exec 5>&-; rest=$(cat <&6); wait $! && exec 6<&- || { echo \"$rest\"; false; }",
        DEADLINE,
    )?;
    Ok(result)
}

/// A frontend that is held goes on to its next line.
pub fn go_on(guest: &Guest<'_, '_>) -> Result<()> {
    guest
        .ok_within(&format!("echo >&5 && {NEXT_LINE}"), DEADLINE)
        .map(drop)
}

const NEXT_LINE: &str =
    "read -r said <&6 && case $said in *'\"ok\":true'*) ;; *) echo \"$said\"; false ;; esac";

fn command(arguments: &str) -> String {
    format!("/frontend {arguments}; [ $? -le 1 ]")
}

fn lines(text: &str) -> Result<Vec<Line>> {
    let parse = |line: &str| {
        serde_json::from_str(line).with_context(|| format!("the frontend printed {line:?}"))
    };
    let lines: Vec<Line> = text.lines().map(parse).collect::<Result<_>>()?;
    if lines.is_empty() {
        bail!("the frontend printed nothing");
    }
    Ok(lines)
}
