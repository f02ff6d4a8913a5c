// SPDX-License-Identifier: GPL-2.0

//! Ring indices are compared with a model that counts in 64 bits and never wraps, for any
//! published producer index and any start.

mod host;

use host::cases;
use proptest::collection::vec;
use proptest::prelude::*;
use rblkback_logic::protocol::index::must_notify;
use rblkback_logic::protocol::index::Indices;
use rblkback_logic::protocol::index::ResponseIndices;
use std::collections::VecDeque;

/// Both sides of a ring.
struct Ring {
    requests: Indices,
    responses: ResponseIndices,
}

impl Ring {
    fn new(requests: Indices) -> Self {
        let responses = requests.responses();
        Self {
            requests,
            responses,
        }
    }

    /// Responds to the oldest request in flight, if there is one.
    fn respond(&mut self) -> Option<u32> {
        (self.requests.in_flight() > 0).then(|| {
            let slot = self.responses.respond();
            self.requests.note_responses(self.responses.rsp_prod());
            slot
        })
    }
}

/// The true state of a ring, in indices that never wrap.
struct Model {
    entries: u64,
    produced: u64,
    consumed: u64,
    responded: u64,
}

impl Model {
    fn new(entries: u64, start: u64) -> Self {
        Self {
            entries,
            produced: start,
            consumed: start,
            responded: start,
        }
    }

    /// The number of unread requests if `claim` is a producer index that a correct frontend could
    /// publish.
    fn unread(&self, claim: u32) -> Option<u32> {
        (self.consumed..=self.responded + self.entries)
            .find(|index| *index as u32 == claim)
            .map(|index| (index - self.consumed) as u32)
    }

    fn slot(&self, index: u64) -> u32 {
        (index % self.entries) as u32
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    /// The frontend puts up to so many requests on the ring.
    Produce(u64),
    /// The frontend publishes an arbitrary producer index.
    Claim(u32),
    /// The backend consumes up to so many requests.
    Consume(u64),
    /// The backend writes up to so many responses.
    Respond(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (0..600u64).prop_map(Step::Produce),
        3 => (0..600u64).prop_map(Step::Consume),
        3 => (0..600u64).prop_map(Step::Respond),
        2 => any::<u32>().prop_map(Step::Claim),
    ];
    vec(step, 1..80)
}

/// Moves most claims near the true indices.
fn near(model: &Model, claim: u32) -> u32 {
    match claim % 4 {
        0 => claim,
        1 => (model.responded + model.entries) as u32 ^ (claim >> 30),
        2 => (model.consumed as u32).wrapping_sub(claim >> 29),
        _ => (model.produced as u32).wrapping_add(claim >> 29),
    }
}

fn apply(ring: &mut Ring, model: &mut Model, step: Step) {
    match step {
        Step::Produce(count) => {
            model.produced = (model.produced + count).min(model.responded + model.entries);
        }
        Step::Claim(claim) => {
            let claim = near(model, claim);
            match ring.requests.unread(claim) {
                Ok(unread) => assert_eq!(Some(unread), model.unread(claim)),
                Err(overrun) => {
                    assert_eq!(model.unread(claim), None, "{claim} is possible");
                    assert_eq!(
                        (overrun.req_prod, overrun.req_cons),
                        (claim, model.consumed as u32)
                    );
                }
            }
        }
        Step::Consume(most) => {
            for _ in 0..most.min(model.produced - model.consumed) {
                assert_eq!(ring.requests.consume(), model.slot(model.consumed));
                model.consumed += 1;
            }
        }
        Step::Respond(most) => {
            for _ in 0..most.min(model.consumed - model.responded) {
                assert_eq!(ring.respond(), Some(model.slot(model.responded)));
                model.responded += 1;
            }
            if model.responded == model.consumed {
                assert_eq!(ring.respond(), None);
            }
        }
    }
}

fn check(ring: &Ring, model: &Model) {
    assert_eq!(
        u64::from(ring.requests.in_flight()),
        model.consumed - model.responded
    );
    assert_eq!(ring.responses.rsp_prod(), model.responded as u32);
    assert_eq!(ring.requests.next_event(), (model.consumed + 1) as u32);
    let unread = (model.produced - model.consumed) as u32;
    assert_eq!(ring.requests.unread(model.produced as u32), Ok(unread));
}

/// Ring sizes of one to sixteen pages, and start indices.
fn starts() -> impl Strategy<Value = (u32, u64)> {
    let start = prop_oneof![
        Just(0u64),
        (0..1200u64).prop_map(|back| (1 << 32) - back),
        0..1u64 << 32,
    ];
    ((0..=9u32).prop_map(|order| 1 << order), start)
}

proptest! {
    #![proptest_config(cases(4000))]

    #[test]
    fn indices_behave_like_counters_that_never_wrap((entries, start) in starts(), steps in steps()) {
        let at = start as u32;
        let mut ring = Ring::new(Indices::attach(entries, at, at).expect("an empty ring"));
        let mut model = Model::new(u64::from(entries), start);
        for step in steps {
            apply(&mut ring, &mut model, step);
            check(&ring, &model);
        }
    }

    #[test]
    fn a_ring_is_attached_with_at_most_as_many_unread_requests_as_slots(
        (entries, start) in starts(),
        unread in prop_oneof![0..=600u32, any::<u32>()],
    ) {
        let (rsp_prod, req_prod) = (start as u32, (start as u32).wrapping_add(unread));
        match Indices::attach(entries, req_prod, rsp_prod) {
            Ok(ring) => {
                prop_assert!(unread <= entries);
                prop_assert_eq!(ring.unread(req_prod), Ok(unread));
                prop_assert_eq!((ring.in_flight(), ring.responses().rsp_prod()), (0, rsp_prod));
            }
            Err(_) => prop_assert!(unread > entries),
        }
    }

    #[test]
    fn the_frontend_is_notified_if_its_event_index_is_among_the_new_responses(
        start in starts().prop_map(|(_, start)| start),
        new in 0..=512u64,
        event: u32,
    ) {
        let (old, new) = (start as u32, (start + new) as u32);
        // Near the old index, near the new one, or anywhere.
        let event = match event % 3 {
            0 => old.wrapping_add(event >> 29).wrapping_sub(4),
            1 => new.wrapping_add(event >> 29).wrapping_sub(4),
            _ => event,
        };
        let mut responses = (1..=new.wrapping_sub(old)).map(|count| old.wrapping_add(count));
        prop_assert_eq!(must_notify(old, new, event), responses.any(|response| response == event));
    }

    #[test]
    fn responses_have_the_order_of_the_requests(
        (entries, start) in starts(),
        count in 0..=512u32,
    ) {
        let at = start as u32;
        let count = count.min(entries);
        let ring = Indices::attach(entries, at.wrapping_add(count), at).expect("a ring");
        let mut ring = Ring::new(ring);
        let mut consumed: VecDeque<u32> = (0..count).map(|_| ring.requests.consume()).collect();
        while let Some(slot) = ring.respond() {
            prop_assert_eq!(Some(slot), consumed.pop_front());
        }
        prop_assert!(consumed.is_empty());
    }
}
