// SPDX-License-Identifier: GPL-2.0

//! The state machine of the xenbus handshake.
//!
//! The frontend and the backend of a disk each have a `state` key in xenstore. Events
//! may be lost, doubled or come in any order, and a guest may write any state. So
//! [`decide`] does not depend on events: it looks at the present situation and returns
//! one step. The caller carries out the step and calls [`decide`] again, until there is
//! nothing to do. Nothing in this file reads or writes xenstore.
//!
//! | phase | frontend | and | step | next phase |
//! |---|---|---|---|---|
//! | Waiting | Initialised, Connected | online, device is open | connect | Connected, Failed, or same |
//! | Closed | Initialising, Initialised, Connected | online | announce InitWait | Waiting |
//! | Failed | Initialising | online, device is open | announce InitWait | Waiting |
//! | Waiting, Failed | Initialising | not online | announce Closed | Closed |
//! | Waiting, Failed, Connected | Closing | | announce Closing | same |
//! | Waiting, Failed | Closed | | announce Closed | Closed |
//! | Closed | Closed, Initialising | not online | unregister | Leaving |
//! | Waiting, Failed, Closed | gone | not online | unregister | Leaving |
//! | Connected | Initialising, Closed, gone | | stop the rings | Draining |
//! | Draining | any | last request done | unmap, announce Closed | Closed |
//! | Connected | any | driver is unbound | stop the rings | Draining |
//! | Draining | any | unbound, last request done | unmap | Closed |
//!
//! In every other situation there is nothing to do. Only the toolstack can remove a disk,
//! by the key `online`. The guest alone cannot: its other disks may be under a cap that
//! this disk carries. A toolstack that writes no such key leaves it to the guest, which
//! removes the disk when it closes it.
//!
//! Source: `xen/interface/io/xenbus.h` (`enum xenbus_state`).

use super::number::decimal;

/// The value of the frontend's `state` key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frontend {
    /// The key does not exist, or is 0 (Unknown).
    Gone,
    /// 1: the frontend starts and has written no ring yet.
    Initialising,
    /// 3: the rings of the frontend are ready.
    Initialised,
    /// 4: connected. Also seen before the backend connects, if it takes over a running guest.
    Connected,
    /// 5: the frontend wants to close. Requests may still be on the ring.
    Closing,
    /// 6: the frontend is closed.
    Closed,
    /// 2, 7 and 8, which a block backend ignores, and any invalid text.
    Other,
}

impl Frontend {
    /// Parses the text of the key; `None` if the key does not exist.
    pub fn parse(text: Option<&[u8]>) -> Self {
        let Some(text) = text else {
            return Self::Gone;
        };
        match decimal(text, u32::MAX) {
            Some(0) => Self::Gone,
            Some(1) => Self::Initialising,
            Some(3) => Self::Initialised,
            Some(4) => Self::Connected,
            Some(5) => Self::Closing,
            Some(6) => Self::Closed,
            Some(_) | None => Self::Other,
        }
    }
}

/// The phase of the backend of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// No ring is mapped; the backend waits for the frontend.
    Waiting,
    /// The rings are served.
    Connected,
    /// No new request is consumed; requests may still be in flight.
    Draining,
    /// No ring is mapped, and no request is in flight.
    Closed,
    /// Connecting failed; the `error` key has the reason.
    Failed,
    /// The backend asked for the removal of the device. No step follows.
    Leaving,
}

/// The present situation of a disk, apart from its phase.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// The state of the frontend.
    pub frontend: Frontend,
    /// The backing device is open.
    pub disk: bool,
    /// The toolstack wants the disk to stay (`online` is not 0).
    pub online: bool,
    /// Every consumed request has its response, and its frames are unmapped.
    pub drained: bool,
    /// The driver is unbound from the xenbus device.
    pub unbound: bool,
}

/// What the backend has to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing, until the situation changes.
    Rest,
    /// Announce InitWait; the phase becomes Waiting.
    Offer,
    /// Map the rings, write the keys of the disk for the frontend, announce Connected.
    Connect,
    /// Stop consuming requests; the phase becomes Draining.
    Stop,
    /// Unmap the rings and, unless the driver is unbound, announce Closed; the phase
    /// becomes Closed.
    Release,
    /// Announce Closing; the phase stays.
    AnnounceClosing,
    /// Announce Closed; the phase becomes Closed.
    AnnounceClosed,
    /// Ask for the removal of the device; the phase becomes Leaving.
    Unregister,
}

/// The next step of a disk in `phase`.
pub fn decide(phase: Phase, seen: &Seen) -> Step {
    match phase {
        Phase::Draining if seen.drained => Step::Release,
        Phase::Draining => Step::Rest,
        Phase::Connected if seen.unbound => Step::Stop,
        _ if seen.unbound => Step::Rest,
        Phase::Connected => connected(seen),
        Phase::Waiting => waiting(seen),
        Phase::Closed => closed(seen),
        Phase::Failed => failed(seen),
        Phase::Leaving => Step::Rest,
    }
}

fn connected(seen: &Seen) -> Step {
    match seen.frontend {
        Frontend::Initialising | Frontend::Closed | Frontend::Gone => Step::Stop,
        Frontend::Closing => Step::AnnounceClosing,
        Frontend::Initialised | Frontend::Connected | Frontend::Other => Step::Rest,
    }
}

fn waiting(seen: &Seen) -> Step {
    match seen.frontend {
        Frontend::Initialised | Frontend::Connected if seen.disk && seen.online => Step::Connect,
        Frontend::Initialised | Frontend::Connected => Step::Rest,
        Frontend::Closing => Step::AnnounceClosing,
        Frontend::Closed => Step::AnnounceClosed,
        Frontend::Gone if !seen.online => Step::Unregister,
        Frontend::Initialising if !seen.online => Step::AnnounceClosed,
        Frontend::Initialising | Frontend::Gone | Frontend::Other => Step::Rest,
    }
}

fn closed(seen: &Seen) -> Step {
    match seen.frontend {
        // A disk that is closed has no device open: it is opened when the disk waits.
        Frontend::Initialising | Frontend::Initialised | Frontend::Connected if seen.online => {
            Step::Offer
        }
        Frontend::Initialised | Frontend::Connected => Step::Rest,
        Frontend::Initialising => Step::Unregister,
        Frontend::Closed | Frontend::Gone if !seen.online => Step::Unregister,
        Frontend::Closed | Frontend::Gone | Frontend::Closing | Frontend::Other => Step::Rest,
    }
}

fn failed(seen: &Seen) -> Step {
    match seen.frontend {
        Frontend::Initialising if !seen.online => Step::AnnounceClosed,
        Frontend::Initialising if seen.disk => Step::Offer,
        Frontend::Closing => Step::AnnounceClosing,
        Frontend::Closed => Step::AnnounceClosed,
        Frontend::Gone if !seen.online => Step::Unregister,
        Frontend::Initialising
        | Frontend::Initialised
        | Frontend::Connected
        | Frontend::Gone
        | Frontend::Other => Step::Rest,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRONTENDS: [Frontend; 7] = [
        Frontend::Gone,
        Frontend::Initialising,
        Frontend::Initialised,
        Frontend::Connected,
        Frontend::Closing,
        Frontend::Closed,
        Frontend::Other,
    ];
    const PHASES: [Phase; 6] = [
        Phase::Waiting,
        Phase::Connected,
        Phase::Draining,
        Phase::Closed,
        Phase::Failed,
        Phase::Leaving,
    ];

    fn all() -> impl Iterator<Item = (Phase, Seen)> {
        PHASES.into_iter().flat_map(|phase| {
            FRONTENDS.into_iter().flat_map(move |frontend| {
                (0..16u32).map(move |bits| {
                    let seen = Seen {
                        frontend,
                        disk: bits & 1 != 0,
                        online: bits & 2 != 0,
                        drained: bits & 4 != 0,
                        unbound: bits & 8 != 0,
                    };
                    (phase, seen)
                })
            })
        })
    }

    /// The phase after `step` succeeded.
    fn after(phase: Phase, step: Step) -> Phase {
        match step {
            Step::Rest | Step::AnnounceClosing => phase,
            Step::Unregister => Phase::Leaving,
            Step::Offer => Phase::Waiting,
            Step::Connect => Phase::Connected,
            Step::Stop => Phase::Draining,
            Step::Release | Step::AnnounceClosed => Phase::Closed,
        }
    }

    #[test]
    fn a_ring_is_drained_before_it_is_released_or_closed() {
        for (phase, seen) in all() {
            let step = decide(phase, &seen);
            if matches!(phase, Phase::Connected | Phase::Draining) {
                assert_ne!(step, Step::AnnounceClosed, "{phase:?} {seen:?}");
                assert_ne!(step, Step::Unregister, "{phase:?} {seen:?}");
            }
            if step == Step::Release {
                assert!(seen.drained && phase == Phase::Draining);
            }
        }
    }

    #[test]
    fn rings_are_mapped_only_if_none_are_mapped() {
        for (phase, seen) in all() {
            if decide(phase, &seen) == Step::Connect {
                assert_eq!(phase, Phase::Waiting);
                assert!(seen.disk && seen.online && !seen.unbound);
            }
        }
    }

    #[test]
    fn an_unbound_driver_only_drains() {
        for (phase, mut seen) in all() {
            seen.unbound = true;
            let step = decide(phase, &seen);
            assert!(matches!(step, Step::Rest | Step::Stop | Step::Release));
        }
    }

    #[test]
    fn every_situation_reaches_rest() {
        for (mut phase, seen) in all() {
            let seen = Seen {
                drained: true,
                ..seen
            };
            let mut steps = 0;
            loop {
                let step = decide(phase, &seen);
                // The caller's loop ends if a state is announced again: that writes
                // nothing.
                if matches!(step, Step::Rest | Step::AnnounceClosing) {
                    break;
                }
                phase = after(phase, step);
                steps += 1;
                assert!(steps < 4, "{seen:?}");
            }
        }
    }

    #[test]
    fn a_correct_guest_connects_and_closes() {
        let mut seen = Seen {
            frontend: Frontend::Initialising,
            disk: true,
            online: true,
            drained: true,
            unbound: false,
        };
        assert_eq!(decide(Phase::Waiting, &seen), Step::Rest);
        seen.frontend = Frontend::Initialised;
        assert_eq!(decide(Phase::Waiting, &seen), Step::Connect);
        seen.frontend = Frontend::Connected;
        assert_eq!(decide(Phase::Connected, &seen), Step::Rest);
        seen.frontend = Frontend::Closing;
        assert_eq!(decide(Phase::Connected, &seen), Step::AnnounceClosing);
        seen.frontend = Frontend::Closed;
        assert_eq!(decide(Phase::Connected, &seen), Step::Stop);
        assert_eq!(decide(Phase::Draining, &seen), Step::Release);
        assert_eq!(decide(Phase::Closed, &seen), Step::Rest);
        seen.online = false;
        assert_eq!(decide(Phase::Closed, &seen), Step::Unregister);
    }

    #[test]
    fn a_guest_that_restarts_is_offered_the_disk_again() {
        let seen = Seen {
            frontend: Frontend::Initialising,
            disk: true,
            online: true,
            drained: true,
            unbound: false,
        };
        assert_eq!(decide(Phase::Connected, &seen), Step::Stop);
        assert_eq!(decide(Phase::Draining, &seen), Step::Release);
        assert_eq!(decide(Phase::Closed, &seen), Step::Offer);
        assert_eq!(decide(Phase::Failed, &seen), Step::Offer);
    }

    #[test]
    fn a_frontend_that_is_ready_early_is_offered_the_disk_and_connected() {
        let seen = Seen {
            frontend: Frontend::Initialised,
            disk: true,
            online: true,
            drained: true,
            unbound: false,
        };
        assert_eq!(decide(Phase::Draining, &seen), Step::Release);
        assert_eq!(decide(Phase::Closed, &seen), Step::Offer);
        assert_eq!(decide(Phase::Waiting, &seen), Step::Connect);
    }

    #[test]
    fn the_toolstack_can_remove_a_disk_that_never_connected() {
        let seen = Seen {
            frontend: Frontend::Initialising,
            disk: true,
            online: false,
            drained: true,
            unbound: false,
        };
        assert_eq!(decide(Phase::Waiting, &seen), Step::AnnounceClosed);
        assert_eq!(decide(Phase::Closed, &seen), Step::Unregister);
    }

    #[test]
    fn a_guest_cannot_remove_a_disk() {
        // The removal would also remove the cap that the disk carries for other disks.
        for (phase, seen) in all() {
            if seen.online {
                assert_ne!(decide(phase, &seen), Step::Unregister, "{phase:?} {seen:?}");
            }
        }
    }

    #[test]
    fn states_have_the_numbers_of_xenbus_h() {
        let parse = |text: &str| Frontend::parse(Some(text.as_bytes()));
        assert_eq!(parse("0"), Frontend::Gone);
        assert_eq!(parse("1"), Frontend::Initialising);
        assert_eq!(parse("3"), Frontend::Initialised);
        assert_eq!(parse("4"), Frontend::Connected);
        assert_eq!(parse("5"), Frontend::Closing);
        assert_eq!(parse("6"), Frontend::Closed);
        for other in [
            "2",
            "7",
            "8",
            "9",
            "4294967295",
            "4294967296",
            "-1",
            "",
            "junk",
        ] {
            assert_eq!(parse(other), Frontend::Other, "{other}");
        }
        assert_eq!(Frontend::parse(None), Frontend::Gone);
    }
}
