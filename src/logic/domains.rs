// SPDX-License-Identifier: GPL-2.0

//! Whose disks the driver serves: the text of the module parameter `domains`.
//!
//! The entries are names and UUIDs of guests, with commas between them. Blanks around an entry do not
//! count. A name that holds a comma, or begins or ends with a blank, cannot be an entry; the UUID of
//! that guest can. An empty text stands for all guests, a comma for none.

/// What the toolstack adds to the name of a guest that is being migrated, until all of it is here
/// (tools/xl/xl_migrate.c of Xen).
const INCOMING: &[u8] = b"--incoming";

/// The domain whose disk it is, by its keys in xenstore. The toolstack writes both before the disk.
#[derive(Clone, Copy, Debug, Default)]
pub struct Domain<'a> {
    /// The key `name`.
    pub name: Option<&'a [u8]>,
    /// The key `vm`: `/vm/` and the UUID.
    pub vm: Option<&'a [u8]>,
}

/// The guests whose disks the driver serves.
#[derive(Clone, Copy, Debug)]
pub struct DomainList<'a>(&'a [u8]);

impl<'a> DomainList<'a> {
    /// The list that `text` stands for.
    pub fn new(text: &'a [u8]) -> Self {
        Self(text)
    }

    /// Does the list name all guests?
    pub fn is_all(self) -> bool {
        self.0.is_empty()
    }

    /// Does the list name `domain`?
    pub fn has(self, domain: Domain<'_>) -> bool {
        self.is_all()
            || self
                .0
                .split(|byte| *byte == b',')
                .map(<[u8]>::trim_ascii)
                .filter(|entry| !entry.is_empty())
                .any(|entry| is_name(entry, domain.name) || is_uuid(entry, domain.vm))
    }
}

fn is_name(entry: &[u8], name: Option<&[u8]>) -> bool {
    name.is_some_and(|name| entry == name || Some(entry) == name.strip_suffix(INCOMING))
}

fn is_uuid(entry: &[u8], vm: Option<&[u8]>) -> bool {
    vm.and_then(|vm| vm.strip_prefix(b"/vm/"))
        .is_some_and(|uuid| entry.eq_ignore_ascii_case(uuid))
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: &str = "5f3c8a1e-0000-4b6d-9c1a-2e9d1b0a77f1";

    fn has(list: &str, name: &str) -> bool {
        let vm = format!("/vm/{UUID}");
        DomainList::new(list.as_bytes()).has(Domain {
            name: Some(name.as_bytes()),
            vm: Some(vm.as_bytes()),
        })
    }

    #[test]
    fn an_empty_list_names_all() {
        assert!(has("", "web1"));
        assert!(DomainList::new(b"").has(Domain::default()));
    }

    #[test]
    fn entries_are_whole_names() {
        for (list, name, named) in [
            ("web1", "web1", true),
            ("web1,db2", "db2", true),
            ("web1, db2 ", "db2", true),
            ("web1,,db2,", "db2", true),
            ("web1", "web", false),
            ("web1", "web12", false),
            ("web1", "WEB1", false),
            ("a guest", "a guest", true),
            ("a guest", "a", false),
            ("\u{e4}", "\u{e4}", true),
            ("a,b", "a,b", false),
            (",", "web1", false),
            (",", "", false),
            (" ", "", false),
            ("web1", "", false),
        ] {
            assert_eq!(has(list, name), named, "{list:?} {name:?}");
        }
    }

    #[test]
    fn a_guest_that_arrives_is_named_by_its_name() {
        assert!(has("web1", "web1--incoming"));
        assert!(has("web1--incoming", "web1--incoming"));
        assert!(!has("web1", "web1--migratedaway"));
        assert!(!has("web1,", "--incoming"));
        assert!(!has("--incoming", "web1"));
    }

    #[test]
    fn a_uuid_names_a_guest_in_either_case() {
        assert!(has(UUID, "web1"));
        assert!(has(&UUID.to_uppercase(), "web1"));
        assert!(has(&format!("db2,{UUID}"), "web1"));
        assert!(!has(UUID.trim_end_matches('1'), "web1"));
        assert!(!has(&format!("/vm/{UUID}"), "web1"));
    }

    #[test]
    fn a_domain_without_keys_is_not_named() {
        for list in ["web1", ",", UUID] {
            assert!(!DomainList::new(list.as_bytes()).has(Domain::default()));
        }
        let vm_only = Domain {
            name: None,
            vm: Some(b"/vm/7"),
        };
        assert!(DomainList::new(b"7").has(vm_only));
        let odd = Domain {
            name: None,
            vm: Some(b"7"),
        };
        assert!(!DomainList::new(b"7").has(odd));
    }
}
