// SPDX-License-Identifier: GPL-2.0

//! One virtual disk on the backend's side: its xenstore keys and its files in sysfs.

use std::str::FromStr;

use anyhow::Context;
use anyhow::Result;

use crate::check;
use crate::host::Host;
use crate::host::quote;
use crate::lab::Backend;

/// Names a virtual disk; it need not exist.
#[derive(Clone, Copy)]
pub struct Vbd<'h, 'l> {
    host: &'h Host<'l>,
    pub domid: u32,
    pub vdev: u32,
}

/// The number of a virtual disk by its name: `xvda` to `xvdp` have those of old, all others the
/// extended ones.
fn number(vdev: &str) -> u32 {
    let letters = vdev.trim_start_matches("xvd").bytes();
    let count = letters.fold(0, |sum, letter| {
        26 * sum + u32::from(letter.saturating_sub(b'a')) + 1
    });
    match count.saturating_sub(1) {
        index @ 0..16 => 51712 + 16 * index,
        index => (1 << 28) | (index << 8),
    }
}

/// The name of the first, second, ... disk of a guest, from 0.
pub fn name(index: u32) -> String {
    let letter = |n: u32| char::from(b'a' + (n % 26) as u8);
    match index {
        0..26 => format!("xvd{}", letter(index)),
        _ => format!("xvd{}{}", letter(index / 26 - 1), letter(index)),
    }
}

impl<'h, 'l> Vbd<'h, 'l> {
    /// `vdev` is a name such as `xvdb`.
    pub fn new(host: &'h Host<'l>, domid: u32, vdev: &str) -> Self {
        Vbd {
            host,
            domid,
            vdev: number(vdev),
        }
    }

    /// Another virtual disk of the same guest, by number.
    pub fn sibling(&self, vdev: u32) -> Self {
        Vbd { vdev, ..*self }
    }

    /// The path of a key in the backend's directory.
    pub fn path(&self, key: &str) -> String {
        format!(
            "/local/domain/0/backend/vbd/{}/{}/{key}",
            self.domid, self.vdev
        )
    }

    /// A key in the backend's directory.
    pub fn key(&self, key: &str) -> Result<Option<String>> {
        self.host.store_read(&self.path(key))
    }

    /// Writes keys in one transaction.
    pub fn write(&self, keys: &[(&str, &str)]) -> Result<()> {
        let nodes: Vec<(String, &str)> = keys
            .iter()
            .map(|(key, value)| (self.path(key), *value))
            .collect();
        self.host.store_write(&nodes)
    }

    /// Removes a key.
    pub fn remove(&self, key: &str) -> Result<()> {
        self.host
            .ok(&format!("xenstore-rm {}", self.path(key)))
            .map(drop)
    }

    /// The text that sets a limit, for use in a longer script.
    pub fn limit_command(&self, refill: u64, max: u64) -> String {
        format!(
            "xenstore-write {} {refill} {} {max}",
            self.path("tokens-refill"),
            self.path("tokens-max")
        )
    }

    /// The text that removes a limit, for use in a longer script.
    pub fn unlimit_command(&self) -> String {
        format!(
            "xenstore-rm {} {}",
            self.path("tokens-refill"),
            self.path("tokens-max")
        )
    }

    /// Sets a limit and waits until the backend has taken it.
    pub fn limit(&self, refill: u64, max: u64) -> Result<()> {
        self.host.ok(&self.limit_command(refill, max))?;
        self.wait_file("qos/tokens_refill", &refill.to_string())?;
        self.wait_file("qos/tokens_max", &max.to_string())
    }

    /// Removes the limit and waits until the backend has seen that.
    pub fn unlimit(&self) -> Result<()> {
        self.host.ok(&self.unlimit_command())?;
        self.wait_file("qos/state", "unlimited")
    }

    /// Waits until a file in sysfs reads `pattern`, a regular expression.
    pub fn wait_file(&self, file: &str, pattern: &str) -> Result<()> {
        let path = format!("{}/{file}", self.sysfs());
        let output = self.host.run(&format!(
            "lab_file {} {} 30",
            quote(&path),
            quote(&format!("^({pattern})$"))
        ))?;
        check::that(output.status == 0, || {
            format!(
                "{path}: expected {pattern:?}, saw {:?}",
                output.text.trim_end()
            )
        })
    }

    /// Waits until so many more reads and writes have been answered.
    pub fn wait_requests(&self, count: u64) -> Result<()> {
        self.host
            .ok(&format!("lab_requests {} {count} 60", quote(&self.sysfs())))
            .map(drop)
    }

    /// The driver that serves it.
    pub fn driver(&self) -> Result<String> {
        self.host
            .ok(&format!("basename $(readlink {}/driver)", self.sysfs()))
    }

    /// Takes it away from a driver; the guest is not told.
    pub fn unbind(&self, backend: Backend) -> Result<()> {
        self.tell_driver(backend, "unbind")
    }

    /// Gives it to a driver.
    pub fn bind(&self, backend: Backend) -> Result<()> {
        self.tell_driver(backend, "bind")
    }

    /// Takes it from one driver and gives it to the other when `count` more requests have been
    /// seen. All in one command: while dom0 waits for the next one its clock may leap over the
    /// answers to whatever was under way.
    pub fn hand_over(&self, count: u64, from: Backend, to: Backend) -> Result<()> {
        self.host
            .ok(&format!(
                "lab_requests {} {count} 60 && {} && {}",
                quote(&self.sysfs()),
                self.driver_command(from, "unbind"),
                self.driver_command(to, "bind")
            ))
            .map(drop)
    }

    fn tell_driver(&self, backend: Backend, what: &str) -> Result<()> {
        self.host.ok(&self.driver_command(backend, what)).map(drop)
    }

    fn driver_command(&self, backend: Backend, what: &str) -> String {
        let driver = format!("/sys/bus/xen-backend/drivers/{}", backend.driver());
        format!("echo {} >{driver}/{what}", self.device())
    }

    /// Waits for the backend's xenbus state.
    pub fn wait_state(&self, pattern: &str) -> Result<()> {
        self.host
            .store_wait(&self.path("state"), &format!("^({pattern})$"))
            .map(drop)
    }

    /// What the backend told the administrator about this disk, if anything.
    pub fn error(&self) -> Result<Option<String>> {
        self.host.store_read(&self.error_path())
    }

    pub fn error_path(&self) -> String {
        format!(
            "/local/domain/0/error/backend/vbd/{}/{}/error",
            self.domid, self.vdev
        )
    }

    /// The device's directory in sysfs.
    pub fn sysfs(&self) -> String {
        format!(
            "/sys/bus/xen-backend/devices/vbd-{}-{}",
            self.domid, self.vdev
        )
    }

    /// The device's name on the xen-backend bus.
    pub fn device(&self) -> String {
        format!("vbd-{}-{}", self.domid, self.vdev)
    }

    /// A file in sysfs, such as `statistics/rd_req`, as text.
    pub fn text(&self, file: &str) -> Result<String> {
        self.host
            .ok(&format!("cat {}/{file}", quote(&self.sysfs())))
    }

    /// A file in sysfs that holds a number.
    pub fn number<T: FromStr>(&self, file: &str) -> Result<T> {
        let text = self.text(file)?;
        text.trim()
            .parse()
            .ok()
            .with_context(|| format!("{file} is no number: {text:?}"))
    }

    /// `qos/state`.
    pub fn state(&self) -> Result<String> {
        self.text("qos/state")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        assert_eq!((name(0), number("xvda")), ("xvda".into(), 51712));
        assert_eq!((name(15), number("xvdp")), ("xvdp".into(), 51952));
        assert_eq!((name(16), number("xvdq")), ("xvdq".into(), 0x1000_1000));
        assert_eq!((name(26), number("xvdaa")), ("xvdaa".into(), 0x1000_1a00));
        assert_eq!((name(63), number("xvdbl")), ("xvdbl".into(), 0x1000_3f00));
    }
}
