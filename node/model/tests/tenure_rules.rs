//! The way from an election to a lease and back, step by step: what is asked for, and in which order (P1, P3).

use std::time::Duration;

use model::Instant;
use model::command::{Control, Refusal, Response};
use model::ids::{Epoch, NodeId};
use model::tenure::{Action, Done, HandOverError, Member, Seen, Tenures, Why};

const LEASE: Duration = Duration::from_millis(270);
const TERM: u64 = 7;

fn ms(ms: u64) -> Instant {
    Instant::from_nanos(ms * 1_000_000)
}

fn leading(term: u64) -> Seen {
    Seen {
        leading: Some(term),
        disk_stalled: false,
        configured: true,
        latest: Epoch(0),
    }
}

fn following() -> Seen {
    Seen {
        leading: None,
        ..leading(0)
    }
}

fn begun(epoch: u64, longest: Duration) -> Done {
    Done::Answered(Ok(Response::EpochBegun {
        epoch: Epoch(epoch),
        longest_older_lease: longest,
    }))
}

fn tenures() -> Tenures {
    Tenures::new(NodeId(1), "atm1".to_owned(), LEASE)
}

fn begin() -> Action {
    Action::Propose(Control::BeginEpoch {
        node: NodeId(1),
        name: "atm1".to_owned(),
        term: TERM,
        lease: LEASE,
    })
}

/// One that speaks in epoch 3 since 10 ms.
fn active() -> Tenures {
    let mut tenures = tenures();
    assert_eq!(tenures.step(leading(TERM), ms(1)), Action::Elected(TERM));
    assert_eq!(tenures.step(leading(TERM), ms(1)), begin());
    tenures.done(begun(3, Duration::ZERO), ms(5));
    assert_eq!(tenures.step(leading(TERM), ms(5)), Action::Barrier);
    tenures.done(Done::Reached(true), ms(6));
    assert!(matches!(
        tenures.step(leading(TERM), ms(6)),
        Action::AskWaitOut { .. }
    ));
    tenures.done(Done::WaitOut(Some(ms(10))), ms(6));
    assert!(matches!(
        tenures.step(leading(TERM), ms(10)),
        Action::Begin { .. }
    ));
    tenures
}

fn group(heard: [bool; 3], matched: [u64; 3]) -> Vec<Member> {
    (0..3)
        .map(|at| Member {
            id: NodeId(1 + at as u64),
            name: format!("atm{}", at + 1),
            heard: heard[at],
            matched: Some(matched[at]),
        })
        .collect()
}

#[test]
fn from_elected_to_speaking() {
    let mut tenures = tenures();
    assert_eq!(tenures.step(following(), ms(0)), Action::Rest);
    let bare = Seen {
        configured: false,
        ..leading(TERM)
    };
    assert_eq!(tenures.step(bare, ms(1)), Action::Elected(TERM));
    assert_eq!(tenures.step(bare, ms(1)), Action::ProposeConfig);
    assert_eq!(
        tenures.step(bare, ms(2)),
        Action::Rest,
        "one thing at a time"
    );
    tenures.done(
        Done::Answered(Ok(Response::Applied(model::ids::ConfigNumber(1)))),
        ms(3),
    );
    assert_eq!(tenures.step(leading(TERM), ms(3)), Action::Wait(ms(5)));
    assert_eq!(tenures.step(leading(TERM), ms(5)), begin());
    tenures.done(begun(1, LEASE), ms(8));
    assert_eq!(tenures.step(leading(TERM), ms(8)), Action::Barrier);
    tenures.done(Done::Reached(true), ms(9));
    let ask = Action::AskWaitOut {
        term: TERM,
        longest: LEASE,
    };
    assert_eq!(tenures.step(leading(TERM), ms(9)), ask);
    tenures.done(Done::WaitOut(Some(ms(100))), ms(9));
    assert_eq!(tenures.step(leading(TERM), ms(10)), Action::Wait(ms(100)));
    assert_eq!(tenures.step(leading(TERM), ms(99)), Action::Wait(ms(100)));
    assert_eq!(tenures.active(), None);
    let speaks = Action::Begin {
        term: TERM,
        epoch: Epoch(1),
        length: LEASE,
    };
    assert_eq!(tenures.step(leading(TERM), ms(100)), speaks);
    assert_eq!(tenures.active(), Some(Epoch(1)));
    assert_eq!(tenures.step(leading(TERM), ms(101)), Action::Rest);
    let timeline = tenures.timeline();
    assert_eq!(
        [
            timeline.leader,
            timeline.begun,
            timeline.table,
            timeline.wait_until,
            timeline.claimed
        ],
        [1, 8, 9, 100, 100].map(ms)
    );
}

#[test]
fn a_term_that_is_lost_on_the_way_never_speaks() {
    let mut tenures = tenures();
    assert_eq!(tenures.step(leading(TERM), ms(1)), Action::Elected(TERM));
    assert_eq!(tenures.step(leading(TERM), ms(1)), begin());
    tenures.done(begun(1, LEASE), ms(2));
    assert_eq!(tenures.step(following(), ms(3)), Action::Rest);
    assert_eq!(
        tenures.step(leading(TERM + 2), ms(4)),
        Action::Elected(TERM + 2)
    );
}

#[test]
fn a_lost_tenure_is_told_once() {
    let mut tenures = active();
    assert_eq!(tenures.step(following(), ms(20)), Action::Deposed(Epoch(3)));
    assert_eq!(tenures.step(following(), ms(20)), Action::Rest);
    let mut tenures = active();
    let next = leading(TERM + 1);
    assert_eq!(tenures.step(next, ms(20)), Action::Deposed(Epoch(3)));
    assert_eq!(tenures.step(next, ms(20)), Action::Elected(TERM + 1));
}

#[test]
fn what_is_refused_is_tried_again_after_a_second_and_what_was_not_committed_at_once() {
    let mut tenures = tenures();
    assert_eq!(tenures.step(leading(TERM), ms(1)), Action::Elected(TERM));
    assert_eq!(tenures.step(leading(TERM), ms(1)), begin());
    tenures.done(Done::Answered(Err("no quorum".to_owned())), ms(10));
    assert_eq!(tenures.step(leading(TERM), ms(10)), Action::Wait(ms(12)));
    assert_eq!(tenures.step(leading(TERM), ms(12)), begin());
    let refused = Response::Refused(Refusal::Unknown);
    tenures.done(Done::Answered(Ok(refused)), ms(20));
    assert_eq!(tenures.step(leading(TERM), ms(20)), Action::Wait(ms(1020)));
    assert_eq!(tenures.step(leading(TERM), ms(1020)), begin());
}

#[test]
fn an_engine_that_ended_gives_the_claim_up_without_a_spin() {
    let mut tenures = tenures();
    assert_eq!(tenures.step(leading(TERM), ms(1)), Action::Elected(TERM));
    assert_eq!(tenures.step(leading(TERM), ms(1)), begin());
    tenures.done(begun(1, LEASE), ms(2));
    assert_eq!(tenures.step(leading(TERM), ms(2)), Action::Barrier);
    tenures.done(Done::Reached(false), ms(3));
    assert_eq!(tenures.step(leading(TERM), ms(3)), Action::Rest);
    assert_eq!(tenures.step(leading(TERM), ms(4)), Action::Elected(TERM));
}

#[test]
fn an_orderly_end_is_silence_then_its_entry_then_the_transfer() {
    let mut tenures = active();
    let group = group([true, true, true], [9, 8, 9]);
    assert_eq!(tenures.hand_over(None, &group, ms(1000)), Ok(()));
    let deadline = ms(6000);
    let see = leading(TERM);
    let catch_up = Action::CatchUp(NodeId(3), deadline);
    assert_eq!(tenures.step(see, ms(1000)), catch_up, "most of the log");
    assert_eq!(tenures.step(see, ms(1001)), Action::Rest);
    tenures.done(Done::CaughtUp, ms(1002));
    assert_eq!(tenures.step(see, ms(1002)), Action::FallSilent(Why::Asked));
    tenures.done(Done::Silent, ms(1003));
    let end = Control::EndEpoch { epoch: Epoch(3) };
    assert_eq!(tenures.step(see, ms(1003)), Action::Propose(end));
    tenures.done(Done::Answered(Ok(Response::EpochEnded)), ms(1004));
    assert_eq!(tenures.step(see, ms(1004)), catch_up);
    tenures.done(Done::CaughtUp, ms(1005));
    assert_eq!(tenures.step(see, ms(1005)), Action::Transfer(NodeId(3)));
    tenures.done(Done::Transferred(Ok(())), ms(1005));
    assert_eq!(
        tenures.step(see, ms(1005)),
        Action::AwaitSuccessor(Epoch(3), deadline)
    );
    // Raft's news are not waited for: the successor's tenure is what counts.
    assert_eq!(tenures.step(following(), ms(1006)), Action::Rest);
    let taken = Some((Epoch(4), "atm3".to_owned()));
    tenures.done(Done::Successor(taken), ms(1010));
    let Action::Answer(Ok(done)) = tenures.step(following(), ms(1010)) else {
        panic!("no answer");
    };
    assert_eq!((done.from.as_str(), done.to.as_str()), ("atm1", "atm3"));
    assert_eq!(done.elapsed, Duration::from_millis(10));
    assert_eq!(tenures.step(following(), ms(1011)), Action::Rest);
}

#[test]
fn a_successor_that_does_not_come_leaves_the_lead_here() {
    let mut tenures = active();
    let group = group([true, true, true], [9, 9, 9]);
    assert_eq!(
        tenures.hand_over(Some("atm2".to_owned()), &group, ms(1000)),
        Ok(())
    );
    let see = leading(TERM);
    for done in [
        Done::CaughtUp,
        Done::Silent,
        Done::Answered(Ok(Response::EpochEnded)),
        Done::CaughtUp,
        Done::Transferred(Ok(())),
        Done::Successor(None),
    ] {
        assert_ne!(tenures.step(see, ms(1000)), Action::Rest);
        tenures.done(done, ms(1000));
    }
    assert!(matches!(
        tenures.step(see, ms(6000)),
        Action::Answer(Err(HandOverError::TimedOut(..)))
    ));
    assert_eq!(tenures.step(see, ms(6000)), Action::Elected(TERM));
}

#[test]
fn a_hand_over_that_cannot_be_changes_nothing() {
    let all = group([true, true, true], [9, 9, 9]);
    let refused = |to: Option<&str>, group: &[Member]| {
        let mut tenures = active();
        let outcome = tenures.hand_over(to.map(str::to_owned), group, ms(1000));
        assert_eq!(tenures.active(), Some(Epoch(3)));
        assert_eq!(tenures.step(leading(TERM), ms(1000)), Action::Rest);
        outcome.unwrap_err()
    };
    assert!(matches!(
        refused(Some("atm9"), &all),
        HandOverError::Unknown(name, known) if name == "atm9" && known == "atm1, atm2, atm3"
    ));
    assert!(matches!(
        refused(Some("atm1"), &all),
        HandOverError::AlreadyActive(_)
    ));
    let nobody = group([true, false, false], [9, 9, 9]);
    assert_eq!(refused(None, &nobody), HandOverError::NoSuccessor);
    assert_eq!(
        tenures().hand_over(None, &all, ms(1)),
        Err(HandOverError::NotActive)
    );
}

#[test]
fn a_stalled_disk_silences_first_and_hands_over_then() {
    let stalled = Seen {
        disk_stalled: true,
        ..leading(TERM)
    };
    let mut tenures = active();
    let silence = Action::FallSilent(Why::DiskStalled);
    assert_eq!(tenures.step(stalled, ms(20)), silence);
    assert_eq!(tenures.active(), None);
    tenures.done(Done::Silent, ms(21));
    assert_eq!(tenures.step(stalled, ms(21)), Action::FindSuccessor);
    let nobody = group([true, false, false], [9, 9, 9]);
    let refused = tenures.hand_over(None, &nobody, ms(21));
    assert_eq!(refused, Err(HandOverError::NoSuccessor));
    assert_eq!(tenures.step(stalled, ms(22)), Action::Rest);
    // The next claim waits for the disk.
    assert_eq!(tenures.step(stalled, ms(23)), Action::Elected(TERM));
    assert_eq!(tenures.step(stalled, ms(23)), Action::Wait(ms(25)));
    assert_eq!(tenures.step(leading(TERM), ms(25)), begin());
}
