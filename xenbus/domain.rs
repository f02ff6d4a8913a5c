// SPDX-License-Identifier: GPL-2.0

//! The state of another domain, as Xen knows it.
//!
//! A domain that is suspended to be saved or migrated has *shut down* for Xen; `xl list` shows it as
//! `s`. Nothing in xenstore says so to a backend. Xen tells the domain that may ask:
//!
//! | hypercall | its interface | offered by |
//! |---|---|---|
//! | `XEN_DOMCTL_get_domain_state` | stable, version 0 | Xen 4.21 and later |
//! | `XEN_DOMCTL_getdomaininfo` | of a version, the toolstack's | each Xen, see [`VERSIONS`] |
//!
//! Xen refuses a version that is not its own with `EACCES` before it looks at anything else, so
//! asking with the wrong one does no harm. Of the versions in the table the state is in the same
//! place.
//!
//! Source: `xen/include/public/domctl.h` of Xen 4.17.7 and 4.20.4 (Debian's libxen-dev), and for
//! `XEN_DOMCTL_get_domain_state` what was posted to xen-devel for 4.21. Only 4.20 was tried.

use kernel::{
    error::to_result,
    prelude::*,
    sync::atomic::{
        ordering::Relaxed,
        Atomic, //
    }, //
};

use super::bindings;

const GETDOMAININFO: u32 = 5;
const GET_DOMAIN_STATE: u32 = 90;

/// The versions of the interface (`XEN_DOMCTL_INTERFACE_VERSION`) that are known to have the flags
/// where [`Answer::Info`] looks for them: 0x17 is that of Xen 4.19 and 4.20, 0x16 of 4.18, 0x15 of
/// 4.17.
const VERSIONS: [u32; 3] = [0x17, 0x16, 0x15];

/// `XEN_DOMCTL_GETDOMSTATE_STATE_*`.
const STATE_SHUTDOWN: u32 = 1 << 1;
const STATE_DYING: u32 = 1 << 2 | 1 << 3;

/// `XEN_DOMINF_*`.
const INFO_DYING: u32 = 1 << 0;
const INFO_SHUTDOWN: u32 = 1 << 2;

/// The head of `struct xen_domctl`, and its union.
#[repr(C, align(8))]
struct Domctl {
    cmd: u32,
    interface_version: u32,
    domain: u16,
    pad: [u16; 3],
    /// 128 bytes in all versions so far; there is room for twice as much.
    words: [u32; 64],
}

/// The state of a domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DomainState {
    /// It runs, or is paused.
    Running,
    /// It has shut down: it is suspended, or about to be destroyed. It may run again.
    ShutDown,
    /// It is being destroyed, or is gone. It never runs again.
    Dying,
}

/// Which of the hypercalls Xen answers: not known yet, none, or the number of [`Question::ALL`].
static ANSWERED: Atomic<usize> = Atomic::new(UNKNOWN);
const UNKNOWN: usize = usize::MAX;
const NONE: usize = usize::MAX - 1;

/// One way to ask.
#[derive(Clone, Copy)]
struct Question {
    cmd: u32,
    version: u32,
}

impl Question {
    const ALL: [Self; 1 + VERSIONS.len()] = [
        Self {
            cmd: GET_DOMAIN_STATE,
            version: 0,
        },
        Self::info(VERSIONS[0]),
        Self::info(VERSIONS[1]),
        Self::info(VERSIONS[2]),
    ];

    const fn info(version: u32) -> Self {
        Self {
            cmd: GETDOMAININFO,
            version,
        }
    }

    /// Asks for the state of `domain`.
    ///
    /// # Errors
    ///
    /// What Xen answers: `EACCES`, `ENOSYS` or `EOPNOTSUPP` if it does not know the question, `EPERM`
    /// if this domain may not ask.
    fn ask(self, domain: u16) -> Result<DomainState> {
        let mut op = Domctl {
            cmd: self.cmd,
            interface_version: self.version,
            domain,
            pad: [0; 3],
            words: [0; 64],
        };
        // SAFETY: `op` is valid for reads and writes. Both operations only write to the structure
        // itself, of which Xen has no more than 144 bytes.
        let error = unsafe { bindings::xbk_domctl((&raw mut op).cast()) };
        if error == ESRCH.to_errno() {
            return Ok(DomainState::Dying);
        }
        to_result(error)?;
        Ok(self.decode(&op, domain))
    }

    fn decode(self, op: &Domctl, domain: u16) -> DomainState {
        let [first, second, ..] = op.words;
        let (dying, shut_down) = if self.cmd == GET_DOMAIN_STATE {
            (first & STATE_DYING != 0, first & STATE_SHUTDOWN != 0)
        } else {
            // Some versions answer for the next domain that there is.
            let other = op.domain != domain;
            (
                other || second & INFO_DYING != 0,
                second & INFO_SHUTDOWN != 0,
            )
        };
        match (dying, shut_down) {
            (true, _) => DomainState::Dying,
            (false, true) => DomainState::ShutDown,
            (false, false) => DomainState::Running,
        }
    }
}

/// Asks Xen for the state of `domain`.
///
/// Context: any that may be preempted.
///
/// # Errors
///
/// `ENOSYS` if Xen does not know any of the questions, or does not answer this domain: a driver
/// domain may not ask. It is not asked again then.
pub(crate) fn state(domain: u16) -> Result<DomainState> {
    let answered = ANSWERED.load(Relaxed);
    if let Some(question) = Question::ALL.get(answered) {
        return question.ask(domain);
    }
    if answered == NONE {
        return Err(no_answer());
    }
    for (number, question) in Question::ALL.iter().enumerate() {
        if let Ok(state) = question.ask(domain) {
            ANSWERED.store(number, Relaxed);
            return Ok(state);
        }
    }
    ANSWERED.store(NONE, Relaxed);
    Err(no_answer())
}

#[cold]
fn no_answer() -> Error {
    // The kernel crate has this error by name only as of Linux 7.3.
    Error::from_errno(-(bindings::ENOSYS as i32))
}
