//! Connections that stay, are lost, are moved.

use super::super::verdict::Outcome;
use super::*;
use crate::checkers::testing::{History, judged};
use crate::history::FaultStart;
use crate::history::Kind::{Info, Invoke, Ok};

fn link(port: u16) -> Link {
    Link {
        client: ([10, 1, 0, 9], port).into(),
        service: ([10, 1, 0, 100], 7000).into(),
    }
}

impl History {
    fn open(self, from: u64, to: u64, port: u16, server: &str) -> Self {
        let Link { client, service } = link(port);
        let process = 1000 + from;
        self.event(from, process, Invoke, Op::open()).event(
            to,
            process,
            Ok,
            Op::opened(client, service, Some(server.to_owned())),
        )
    }

    fn close(self, at: u64, port: u16) -> Self {
        let op = Op::ConnectionClose {
            connection: link(port),
        };
        self.event(at, 2000 + at, Invoke, op)
    }

    /// A listing by `atm` at an exact index, asked at `at` and answered at `at + 5`.
    fn list(
        self,
        at: u64,
        atm: &str,
        applied: u64,
        barrier: bool,
        entries: &[(u16, &str)],
    ) -> Self {
        let asked = Listing {
            atm: atm.to_owned(),
            ..Listing::default()
        };
        let listing = Listing {
            applied,
            barrier,
            connections: entries
                .iter()
                .map(|(port, server)| (link(*port), (*server).to_owned()))
                .collect(),
            ..asked.clone()
        };
        self.event(
            at,
            3000 + at,
            Invoke,
            Op::ConnectionListing(Box::new(asked)),
        )
        .event(
            at + 5,
            3000 + at,
            Ok,
            Op::ConnectionListing(Box::new(listing)),
        )
    }

    fn flow(self, at: u64, port: u16, server: &str, change: impl Fn(&mut Flow)) -> Self {
        let mut flow = Flow {
            connection: link(port),
            server: server.to_owned(),
            alive: true,
            ended: None,
            sent: 10,
            acknowledged: 9,
            received: 8,
            lost: 0,
            repeated: 0,
            out_of_order: 0,
            foreign: 0,
            longest_stall_ns: 5,
        };
        change(&mut flow);
        self.fact(at, Op::ConnectionFlow(Box::new(flow)))
    }
}

fn judge(history: &History) -> (Outcome, Vec<String>) {
    judged(Checker::Connections, history)
}

#[test]
fn connections_that_stay_are_accepted() {
    let base = History::default()
        .open(10, 20, 1, "s1")
        .open(11, 21, 2, "s2");
    for history in [
        base.clone()
            .list(30, "a", 5, true, &[(1, "s1"), (2, "s2")])
            .flow(99, 1, "s1", |_| ()),
        // A lagging ATM knows one of them.
        base.clone()
            .list(30, "a", 5, true, &[(1, "s1"), (2, "s2")])
            .list(40, "b", 4, false, &[(1, "s1")]),
        // Without a barrier an empty table is one that lags.
        base.clone().list(30, "a", 5, false, &[]),
        // The listing touches the opening, or the close: either way.
        base.clone().list(18, "a", 5, true, &[]),
        base.clone()
            .close(33, 1)
            .list(30, "a", 5, true, &[(2, "s2")]),
        // Closed, but the close is not applied yet.
        base.clone()
            .close(33, 1)
            .list(40, "a", 5, true, &[(1, "s1"), (2, "s2")]),
        // The same port again, to another server; a lagging ATM still has the old connection.
        base.clone()
            .close(33, 1)
            .open(40, 45, 1, "s3")
            .list(50, "a", 9, true, &[(1, "s3"), (2, "s2")])
            .list(60, "b", 6, false, &[(1, "s1"), (2, "s2")])
            .flow(70, 1, "s3", |_| ()),
        // An opening of unknown outcome demands nothing.
        base.clone()
            .event(22, 9, Invoke, Op::open())
            .event(23, 9, Info, Op::open())
            .list(30, "a", 5, true, &[(1, "s1"), (2, "s2"), (3, "s1")]),
        // Its server was killed.
        base.fact(
            50,
            Op::FaultStart(Box::new(FaultStart {
                target: "s1".to_owned(),
                ..FaultStart::default()
            })),
        )
        .flow(99, 1, "s1", |flow| flow.alive = false),
    ] {
        assert_eq!(judge(&history), (Outcome::Holds, vec![]));
    }
    assert_eq!(judge(&History::default()).0, Outcome::NothingToCheck);
}

#[test]
fn lost_and_moved_connections_are_found() {
    let base = History::default()
        .open(10, 20, 1, "s1")
        .open(11, 21, 2, "s2");
    let whole: &[_] = &[(1, "s1"), (2, "s2")];
    for (history, word) in [
        (
            base.clone().list(30, "a", 5, true, &[(1, "s1")]),
            "10.1.0.9:2, acknowledged at 0.000000 s, is not in the table of a",
        ),
        // b has applied as much as a, which shows it.
        (
            base.clone()
                .list(30, "a", 5, false, whole)
                .list(40, "b", 6, false, &[(2, "s2")]),
            "is not in the table of b at index 6",
        ),
        // Lost later, in the same ATM.
        (
            base.clone()
                .list(30, "a", 5, true, whole)
                .list(40, "a", 7, false, &[(2, "s2")]),
            "is not in the table of a at index 7",
        ),
        (
            base.clone()
                .list(30, "a", 5, false, &[(1, "s9"), (2, "s2")]),
            "belongs to s1; the table of a at index 5 says s9",
        ),
        (
            base.clone().flow(50, 1, "s2", |_| ()),
            "it was opened to s1, and s2 answers",
        ),
        (
            base.clone().flow(50, 1, "s1", |flow| {
                flow.alive = false;
                flow.ended = Some("reset".to_owned());
            }),
            "it broke: reset",
        ),
        (
            base.clone().flow(50, 1, "s1", |flow| flow.lost = 3),
            "3 lines lost",
        ),
        (
            base.clone().flow(50, 1, "s1", |flow| flow.foreign = 1),
            "1 lines of another",
        ),
        (
            base.clone().list(30, "a", 5, false, whole).list(
                30,
                "b",
                5,
                false,
                &[(1, "s1"), (2, "s2"), (3, "s1")],
            ),
            "tables of a and b at index 5 differ, as by 10.1.0.9:3",
        ),
        // Another server was killed.
        (
            base.fact(
                30,
                Op::FaultStart(Box::new(FaultStart {
                    target: "s2".to_owned(),
                    ..FaultStart::default()
                })),
            )
            .flow(50, 1, "s1", |flow| flow.alive = false),
            "it broke",
        ),
    ] {
        // The processes of two events at one instant have to differ.
        let (outcome, found) = judge(&history);
        assert_eq!(
            (outcome, found.len()),
            (Outcome::Violated, 1),
            "{word}: {found:?}"
        );
        assert!(found[0].contains(word), "{found:?}");
    }
}

#[test]
fn a_listing_between_two_indices_is_judged_by_the_lower_one() {
    let base = History::default().open(10, 20, 1, "s1");
    let between = |at, lower, upper, connections: &[(u16, &str)]| {
        let history = base.clone().list(at, "a", lower, false, connections);
        let mut events = history.build().events;
        if let Some(Op::ConnectionListing(listing)) = events.last_mut().map(|event| &mut event.op) {
            listing.applied_max = Some(upper);
        }
        events
    };
    // Shown by a somewhere in 5..=8; so certain in b from 8 on, not from 7.
    for (applied, expected) in [(7, Outcome::Holds), (8, Outcome::Violated)] {
        let events = between(30, 5, 8, &[(1, "s1")]);
        let history = events
            .into_iter()
            .fold(History::default(), |history, event| {
                history.event(event.t_ns, event.process, event.kind, event.op)
            });
        assert_eq!(
            judge(&history.list(40, "b", applied, false, &[])).0,
            expected
        );
    }
}
