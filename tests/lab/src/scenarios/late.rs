// SPDX-License-Identifier: GPL-2.0

//! Which scenarios also run on devices that answer late.

use crate::device::Device;

/// What moves, closes, saves, resizes or throttles a disk. What kills a guest is on devices of 50 ms by
/// itself; what is about one kind of device has that one. Those that `AT_LENGTH` names are left out of a short run; what is
/// left there has each kind of device and each thing that is done to a disk at least once.
const RUNS: &[(&str, &[Device])] = &[
    ("integrity", &[Device::Us20, Device::Mapped, Device::Nvme]),
    ("rebind", &[Device::Ms50, Device::S2, Device::Virtio]),
    ("takeover", &[Device::Ms50, Device::S2, Device::Nvme]),
    ("takeover-queues", &[Device::Ms50, Device::S2]),
    ("take", &[Device::Ms50]),
    ("update", &[Device::Ms50]),
    ("update-fails", &[Device::Ms50]),
    ("rebound-moved", &[Device::Ms50, Device::S2]),
    ("rebound-moved-one", &[Device::Ms50, Device::S2]),
    ("rebound-queues", &[Device::Ms50]),
    ("rebound-pages", &[Device::Ms50]),
    ("rebound-frames", &[Device::Ms50]),
    ("rebound-persistent", &[Device::Ms50]),
    ("rebound-device", &[Device::Ms50]),
    ("detach-remove", &[Device::Ms50]),
    ("destroy-remove", &[Device::Ms50]),
    ("power-off", &[Device::Ms50]),
    ("suspended", &[Device::Us80]),
    ("suspended-queues", &[Device::Us80]),
    ("cgroup", &[Device::Us80]),
    ("unload", &[Device::Ms50]),
    ("neighbour", &[Device::Us80]),
    ("filesystem", &[Device::Us80]),
    ("cycles", &[Device::Us80]),
    ("reconnect", &[Device::S2]),
    ("throttled-end", &[Device::Ms50]),
    ("save-restore", &[Device::Ms50, Device::Virtio]),
    ("migrate", &[Device::Ms50]),
    ("config-file", &[Device::Us80]),
    ("resize", &[Device::Ms50]),
    ("persistent", &[Device::Us80]),
    ("rate", &[Device::Us80]),
    ("rates", &[Device::Us80]),
    ("latency", &[Device::Us80]),
    ("live-change", &[Device::Us80]),
    ("priced", &[Device::Us80]),
    ("random-changes", &[Device::Us80]),
    ("vm-cap", &[Device::Us80]),
    ("limit-values", &[Device::Us80]),
    ("guest-sees", &[Device::Us80]),
    ("parallel-integrity", &[Device::Nvme]),
    ("parallel-rebind", &[Device::Ms50, Device::Virtio]),
];

/// Not in a run of everything.
pub const AT_LENGTH: &[&str] = &[
    "rebind@2s",
    "takeover-queues@2s",
    "take@50ms",
    "update-fails@50ms",
    "rebound-moved@50ms",
    "rebound-moved@2s",
    "rebound-moved-one@50ms",
    "rebound-moved-one@2s",
    "rebound-pages@50ms",
    "rebound-frames@50ms",
    "rebound-persistent@50ms",
    "rebound-device@50ms",
    "detach-remove@50ms",
    "destroy-remove@50ms",
    "suspended@80us",
    "suspended-queues@80us",
    "cgroup@80us",
    "unload@50ms",
    "filesystem@80us",
    "cycles@80us",
    "reconnect@2s",
    "save-restore@virtio",
    "migrate@50ms",
    "config-file@80us",
    "persistent@80us",
    "rates@80us",
    "latency@80us",
    "priced@80us",
    "random-changes@80us",
    "vm-cap@80us",
    "limit-values@80us",
    "guest-sees@80us",
    "parallel-integrity@nvme",
    "parallel-rebind@virtio",
];

/// The devices on which a scenario also runs.
pub fn devices(scenario: &str) -> impl Iterator<Item = Device> + use<> {
    let found = RUNS.iter().find(|(name, _)| *name == scenario);
    found
        .map_or(&[][..], |(_, devices)| devices)
        .iter()
        .copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_names_scenarios() {
        for (name, _) in RUNS {
            assert!(super::super::all().any(|s| s.name == *name), "{name}");
        }
        for name in AT_LENGTH {
            let (scenario, device) = name.split_once('@').unwrap();
            let device = Device::by_name(device).unwrap();
            assert!(devices(scenario).any(|d| d == device), "{name}");
        }
    }
}
