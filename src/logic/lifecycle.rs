// SPDX-License-Identifier: GPL-2.0

//! What to do in which state of the handshake.
//!
//! The two ends of a disk shake hands over two `state` keys in xenstore. Events
//! may be lost, doubled or come in any order (a guest may write whatever it
//! likes), so nothing here depends on having seen each of them: [`decide`] looks
//! at how things stand and names one step; it is asked again until there is
//! nothing to do.
//!
//! | phase | frontend | and | step | next phase |
//! |---|---|---|---|---|
//! | Waiting, Closed | Initialised, Connected | online, disk is known | connect | Connected, or Failed |
//! | Closed | Initialising | online | announce InitWait | Waiting |
//! | Failed | Initialising | online, disk is known | announce InitWait | Waiting |
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
//! Everything else: nothing to do. Only the toolstack takes a disk away (`online`), never
//! the guest alone: other disks of the guest may be held by a cap that this one carries.
//!
//! Source: `xen/interface/io/xenbus.h` (`enum xenbus_state`).

use super::number::decimal;

/// What the frontend's `state` key says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frontend {
    /// There is no such key any more, or it says 0 (Unknown).
    Gone,
    /// 1: starting, has not told us anything yet.
    Initialising,
    /// 3: its ring is ready.
    Initialised,
    /// 4: connected (also when a backend takes over a running guest).
    Connected,
    /// 5: wants to close; requests may still be on the ring.
    Closing,
    /// 6: closed.
    Closed,
    /// 2, 7, 8, which mean nothing to a block backend, or nonsense.
    Other,
}

impl Frontend {
    /// From the key's text; `None` if there is no such key.
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

/// Where a disk of ours stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// No ring yet.
    Waiting,
    /// The ring is served.
    Connected,
    /// No new request is taken; requests are still in flight.
    Draining,
    /// Nothing is mapped, nothing in flight.
    Closed,
    /// Connecting failed; the `error` key says why.
    Failed,
    /// The device's removal was asked for; nothing can happen any more.
    Leaving,
}

/// How things stand outside.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// The frontend's state.
    pub frontend: Frontend,
    /// The backing device is open.
    pub disk: bool,
    /// The toolstack wants the disk to stay (`online` is not 0).
    pub online: bool,
    /// Every request taken was answered and unmapped.
    pub drained: bool,
    /// The driver no longer owns the device.
    pub unbound: bool,
}

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing to do until something changes.
    Rest,
    /// Announce InitWait; the phase becomes Waiting.
    Offer,
    /// Map the ring, tell the frontend about the disk, announce Connected.
    Connect,
    /// Take no more requests; the phase becomes Draining.
    Stop,
    /// Unmap the ring and, unless the driver is unbound, announce Closed; the
    /// phase becomes Closed.
    Release,
    /// Announce Closing; the phase stays.
    AnnounceClosing,
    /// Announce Closed; the phase becomes Closed.
    AnnounceClosed,
    /// Ask for the device's removal; the phase becomes Leaving.
    Unregister,
}

/// The next step for a disk in `phase`.
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
        Frontend::Initialised | Frontend::Connected if seen.disk && seen.online => Step::Connect,
        Frontend::Initialised | Frontend::Connected => Step::Rest,
        Frontend::Initialising if seen.online => Step::Offer,
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

    /// The phase after a step that succeeds.
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
    fn nothing_is_released_or_announced_closed_before_it_is_drained() {
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
    fn a_ring_is_mapped_only_where_none_is() {
        for (phase, seen) in all() {
            if decide(phase, &seen) == Step::Connect {
                assert!(matches!(phase, Phase::Waiting | Phase::Closed));
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
    fn every_situation_comes_to_rest() {
        for (mut phase, seen) in all() {
            let seen = Seen {
                drained: true,
                ..seen
            };
            let mut steps = 0;
            loop {
                let step = decide(phase, &seen);
                // Announcing the same state again writes nothing: the loop of the
                // caller ends there.
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
    fn a_polite_guest_is_served_from_start_to_end() {
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
    fn a_guest_that_starts_again_is_offered_the_disk_again() {
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
    fn a_disk_that_no_guest_ever_used_goes_when_the_toolstack_asks() {
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
    fn a_guest_cannot_have_a_disk_taken_away() {
        // With it would go the cap that it carries for the guest's other disks.
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
        for nothing in [
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
            assert_eq!(parse(nothing), Frontend::Other, "{nothing}");
        }
        assert_eq!(Frontend::parse(None), Frontend::Gone);
    }
}
