// SPDX-License-Identifier: GPL-2.0

//! Ring indices are compared with counters that never wrap, for any published producer index.

use rblkback_logic::protocol::index::Indices;
use rblkback_logic::protocol::index::ResponseIndices;
use rblkback_logic::protocol::index::must_notify;

use crate::input::Input;

/// The true state of the ring: the numbers of requests and responses since it was attached.
struct Model {
    entries: u32,
    /// The index at which the ring was attached.
    start: u32,
    consumed: u64,
    responded: u64,
}

impl Model {
    fn slot(&self, number: u64) -> u32 {
        self.index(number) % self.entries
    }

    fn index(&self, number: u64) -> u32 {
        ((u64::from(self.start) + number) & u64::from(u32::MAX)) as u32
    }

    /// The number of unread requests according to `req_prod`, if that is possible.
    fn unread(&self, req_prod: u32) -> Option<u32> {
        let free = u64::from(self.entries) - (self.consumed - self.responded);
        (0..=free as u32).find(|more| self.index(self.consumed + u64::from(*more)) == req_prod)
    }
}

pub fn run(data: &[u8]) -> bool {
    let mut input = Input::new(data);
    let entries = input.pick([1, 2, 32, 64, 512]);
    let start = input.near(1 << 32) as u32;
    let req_prod = publish(&mut input, start, entries);
    let mut model = Model {
        entries,
        start,
        consumed: 0,
        responded: 0,
    };
    let attached = Indices::attach(entries, req_prod, start);
    assert_eq!(attached.is_ok(), model.unread(req_prod).is_some());
    let Ok(mut ring) = attached else {
        return false;
    };
    let mut responses = ring.responses();
    while !input.is_empty() {
        step(&mut input, (&mut ring, &mut responses), &mut model);
        let in_flight = model.consumed - model.responded;
        assert_eq!(u64::from(ring.in_flight()), in_flight);
        assert!(in_flight <= u64::from(entries), "a slot is used twice");
        assert_eq!(responses.rsp_prod(), model.index(model.responded));
        assert_eq!(ring.next_event(), model.index(model.consumed + 1));
        assert_eq!(ring.next_request(), model.slot(model.consumed));
    }
    model.responded > 0
}

fn step(
    input: &mut Input<'_>,
    (ring, responses): (&mut Indices, &mut ResponseIndices),
    model: &mut Model,
) {
    if input.flag() {
        let req_prod = publish(input, model.index(model.consumed), model.entries);
        let unread = ring.unread(req_prod);
        assert_eq!(unread.ok(), model.unread(req_prod));
        if let Err(overrun) = unread {
            assert_eq!(overrun.req_prod, req_prod);
            assert_eq!(overrun.req_cons, model.index(model.consumed));
        }
        let most = u32::from(input.u8());
        for _ in 0..unread.unwrap_or(0).min(most) {
            assert_eq!(ring.consume(), model.slot(model.consumed));
            model.consumed += 1;
        }
        return;
    }
    let old = responses.rsp_prod();
    for _ in 0..input.u8() {
        if model.consumed == model.responded {
            // An index that is not of a request in flight changes nothing.
            ring.note_responses(responses.rsp_prod().wrapping_add(1));
            break;
        }
        assert_eq!(responses.respond(), model.slot(model.responded));
        model.responded += 1;
    }
    ring.note_responses(responses.rsp_prod());
    let new = responses.rsp_prod();
    assert_eq!(responses.publish(), (new != old).then_some((old, new)));
    notify(old, new, publish(input, old, model.entries));
}

/// An index near `from`, or any index.
fn publish(input: &mut Input<'_>, from: u32, entries: u32) -> u32 {
    match input.up_to(4) {
        0 => input.u32(),
        1 => from
            .wrapping_add(entries)
            .wrapping_add(input.u32() % 3)
            .wrapping_sub(1),
        2 => from.wrapping_sub(u32::from(input.u8())),
        _ => from.wrapping_add(u32::from(input.u8())),
    }
}

/// Checks that the frontend is notified if and only if `wanted` is among the new responses.
fn notify(old: u32, new: u32, wanted: u32) {
    let count = new.wrapping_sub(old);
    let passed = (1..=count).any(|more| old.wrapping_add(more) == wanted);
    assert_eq!(must_notify(old, new, wanted), passed);
}
