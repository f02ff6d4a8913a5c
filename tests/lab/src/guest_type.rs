// SPDX-License-Identifier: GPL-2.0

//! What a guest is to Xen: the `type` of its configuration. Each scenario is written for any;
//! `scenarios/guests.rs` says which run with which.

/// `type` in xl.cfg(5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuestType {
    /// Paravirtualised: it makes hypercalls for its page tables.
    Pv,
    /// In a hardware container with page tables of its own, and no device but Xen's.
    Pvh,
    /// The same with an emulated computer around it: firmware, and disks that QEMU emulates until
    /// the guest's kernel unplugs them.
    Hvm,
}

impl GuestType {
    pub const ALL: [GuestType; 3] = [GuestType::Pv, GuestType::Pvh, GuestType::Hvm];

    /// As xl's configuration has it, and as it stands behind a scenario's name and `@`.
    pub fn name(self) -> &'static str {
        match self {
            GuestType::Pv => "pv",
            GuestType::Pvh => "pvh",
            GuestType::Hvm => "hvm",
        }
    }

    pub fn by_name(name: &str) -> Option<GuestType> {
        GuestType::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Whether Xen runs it by the processor's virtualisation, SVM here.
    pub fn needs_svm(self) -> bool {
        self != GuestType::Pv
    }

    /// Its kernel, and what else its configuration has to have. tsc_mode: QEMU's emulated processor does not tell Xen
    /// the length of an intercepted RDTSCP, of which such a guest would end.
    pub fn settings(self) -> &'static str {
        match self {
            GuestType::Pv => "kernel = \"/lab-guest/vmlinux\"\n",
            GuestType::Pvh => "kernel = \"/lab-guest/vmlinux\"\ntsc_mode = \"native\"\n",
            GuestType::Hvm => {
                "kernel = \"/lab-guest/vmlinuz\"\ntsc_mode = \"native\"\n\
                 vga = \"none\"\nusb = 0\n"
            }
        }
    }

    /// Megabytes that it has at least: enough for a kernel, an initrd and fio. Each costs time
    /// whenever a guest begins or ends.
    pub fn memory(self) -> u32 {
        match self {
            GuestType::Pv => 160,
            GuestType::Pvh => 256,
            // The kernel's image lies beside the kernel until that is unpacked.
            GuestType::Hvm => 320,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for kind in GuestType::ALL {
            assert_eq!(GuestType::by_name(kind.name()), Some(kind));
        }
        assert_eq!(GuestType::by_name("lxc"), None);
    }
}
