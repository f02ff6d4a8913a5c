// SPDX-License-Identifier: GPL-2.0

//! Virtual disks made by hand in xenstore.

use anyhow::Result;

use crate::host::Host;
use crate::host::quote;
use crate::vbd::Vbd;

/// Keys in xenstore with their values.
pub type Nodes = Vec<(String, String)>;

/// The number of a virtual disk that no `xl` hands out here; 256 further is the next one.
pub const FIRST_VDEV: u32 = 268_435_456 + 256 * 64;

pub fn borrow(nodes: &Nodes) -> Vec<(String, &str)> {
    nodes
        .iter()
        .map(|(node, value)| (node.clone(), value.as_str()))
        .collect()
}

/// A virtual disk made by hand in xenstore: no toolstack, no frontend driver.
pub struct Forged<'h, 'l> {
    pub host: &'h Host<'l>,
    pub vbd: Vbd<'h, 'l>,
    frontend: String,
}

impl<'h, 'l> Forged<'h, 'l> {
    pub fn new(host: &'h Host<'l>, vbd: Vbd<'h, 'l>) -> Self {
        // Not where the guest's own kernel would find it and answer.
        let frontend = format!("/local/domain/{}/data/lab/{}", vbd.domid, vbd.vdev);
        Forged {
            host,
            vbd,
            frontend,
        }
    }

    /// The nodes of both directories, as a toolstack makes them.
    pub fn created(&self, number: &str, changed: &[(&str, Option<&str>)]) -> Nodes {
        let domid = self.vbd.domid.to_string();
        let good = [
            ("frontend", self.frontend.as_str()),
            ("frontend-id", &domid),
            ("online", "1"),
            ("device-type", "disk"),
            ("mode", "w"),
            ("physical-device", number),
            ("state", "1"),
        ];
        let mut nodes = overlay(&good, changed, |key| self.vbd.path(key));
        let mut front =
            |key: &str, value: &str| nodes.push((format!("{}/{key}", self.frontend), value.into()));
        front("backend", self.vbd.path("").trim_end_matches('/'));
        front("backend-id", "0");
        front("state", "1");
        nodes
    }

    /// Makes it, and `more` keys with it. No hotplug script has named a device yet.
    pub fn appear(&self, more: Nodes) -> Result<()> {
        let mut nodes = self.created("", &[("physical-device", None)]);
        nodes.extend(more);
        self.host.store_write(&borrow(&nodes))
    }

    /// What a frontend says when it has made its ring, with some of it bad.
    pub fn connected(&self, changed: &[(&str, Option<&str>)]) -> Nodes {
        let good = [
            ("ring-ref", "8"),
            ("event-channel", "5"),
            ("protocol", "x86_64-abi"),
            ("state", "3"),
        ];
        overlay(&good, changed, |key| format!("{}/{key}", self.frontend))
    }

    pub fn front(&self, key: &str, value: &str) -> Result<()> {
        self.host
            .store_write(&[(format!("{}/{key}", self.frontend), value)])
    }

    pub fn remove(&self) -> Result<()> {
        let error = self.vbd.error_path();
        let error = error.trim_end_matches("/error");
        let backend = self.vbd.path("");
        self.host.ok(&format!(
            "xenstore-rm {} {}; xenstore-rm {error} 2>/dev/null; lab_gone {} 30",
            backend.trim_end_matches('/'),
            self.frontend,
            quote(&self.vbd.sysfs())
        ))?;
        Ok(())
    }
}

/// The good keys with the changed ones in their place.
fn overlay(
    good: &[(&str, &str)],
    changed: &[(&str, Option<&str>)],
    path: impl Fn(&str) -> String,
) -> Nodes {
    let pick = |(key, value): &(&str, &str)| match changed.iter().find(|(name, _)| name == key) {
        Some((_, instead)) => instead.map(|value| (path(key), value.to_string())),
        None => Some((path(key), value.to_string())),
    };
    good.iter().filter_map(pick).collect()
}
