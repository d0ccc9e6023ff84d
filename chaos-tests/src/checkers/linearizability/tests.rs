//! Hand-written histories, generated ones, and all small ones against the definition.

use proptest::prelude::*;

use super::brute_force::is_linear;
use super::*;
use crate::checkers::testing::{History, judged};
use crate::history::Kind::{Fail, Info, Invoke, Ok as Done};

fn call(call_ns: u64, return_ns: impl Into<Option<u64>>, action: Action) -> Call {
    Call {
        call_ns,
        return_ns: return_ns.into(),
        action,
    }
}

const fn cas(expected: u64, new: u64, swapped: Option<bool>) -> Action {
    Action::Cas {
        expected,
        new,
        swapped,
    }
}

fn search(calls: &[Call]) -> Search {
    linearize(calls, &Limits::default())
}

#[test]
fn linear_histories_are_accepted() {
    use Action::{Read, Write};
    for (name, calls) in [
        ("nothing", vec![]),
        ("never written", vec![call(0, 1, Read(None))]),
        (
            "one after the other",
            vec![
                call(0, 1, Write(1)),
                call(2, 3, Read(Some(1))),
                call(4, 5, cas(1, 2, Some(true))),
                call(6, 7, Read(Some(2))),
            ],
        ),
        (
            "a read during a write sees either",
            vec![
                call(0, 10, Write(1)),
                call(1, 2, Read(None)),
                call(3, 4, Read(Some(1))),
            ],
        ),
        (
            "calls that touch overlap",
            vec![call(0, 5, Write(1)), call(5, 9, Read(None))],
        ),
        (
            "an unknown write that happened",
            vec![
                call(0, None, Write(1)),
                call(100, 101, Read(None)),
                call(102, 103, Read(Some(1))),
            ],
        ),
        (
            "an unknown write that did not",
            vec![
                call(0, 1, Write(1)),
                call(2, None, Write(2)),
                call(9, 10, Read(Some(1))),
            ],
        ),
        (
            "an unknown cas that happened late",
            vec![
                call(0, 1, Write(1)),
                call(2, None, cas(1, 2, None)),
                call(3, 4, Read(Some(1))),
                call(5, 6, Read(Some(2))),
            ],
        ),
        (
            "a cas that failed for an unknown write",
            vec![
                call(0, 1, Write(1)),
                call(2, None, Write(7)),
                call(3, 4, cas(1, 2, Some(false))),
            ],
        ),
        (
            "an unknown cas behind an unknown write",
            vec![
                call(0, None, Write(5)),
                call(1, None, cas(5, 6, None)),
                call(2, 3, Read(Some(6))),
            ],
        ),
    ] {
        assert_eq!(search(&calls), Search::Linear, "{name}");
        assert!(is_linear(&calls), "{name}");
    }
}

#[test]
fn histories_without_an_order_are_rejected() {
    use Action::{Read, Write};
    for (name, stuck, calls) in [
        (
            "a stale read",
            2,
            vec![
                call(0, 1, Write(1)),
                call(2, 3, Write(2)),
                call(4, 5, Read(Some(1))),
            ],
        ),
        (
            "a lost write",
            1,
            vec![call(0, 1, Write(1)), call(2, 3, Read(None))],
        ),
        (
            "a value nobody wrote",
            1,
            vec![call(0, 1, Write(1)), call(2, 3, Read(Some(9)))],
        ),
        (
            "back and forth",
            3,
            vec![
                call(0, 10, Write(1)),
                call(0, 10, Write(2)),
                call(11, 12, Read(Some(1))),
                call(13, 14, Read(Some(2))),
            ],
        ),
        (
            "two cas from one value",
            2,
            vec![
                call(0, 1, Write(1)),
                call(2, 3, cas(1, 2, Some(true))),
                call(4, 5, cas(1, 3, Some(true))),
            ],
        ),
        (
            "a cas that should have been",
            1,
            vec![call(0, 1, Write(1)), call(2, 3, cas(1, 2, Some(false)))],
        ),
        (
            "an unknown write before it began",
            1,
            vec![
                call(0, 1, Write(1)),
                call(2, 3, Read(Some(2))),
                call(4, None, Write(2)),
            ],
        ),
        (
            "an unknown write that happened twice",
            4,
            vec![
                call(0, 1, Write(1)),
                call(2, None, Write(2)),
                call(3, 4, Read(Some(2))),
                call(5, 6, Write(3)),
                call(7, 8, Read(Some(2))),
            ],
        ),
    ] {
        let Search::NotLinear(found) = search(&calls) else {
            panic!("{name}: accepted")
        };
        assert_eq!(found.call, stuck, "{name}");
        assert!(!is_linear(&calls), "{name}");
    }
}

/// Unknown writes of which each was seen: 2^20 sets of them, if one were to try.
#[test]
fn a_search_beyond_its_bounds_gives_up() {
    let mut calls: Vec<_> = (0..20)
        .map(|value| call(value, None, Action::Write(value)))
        .collect();
    calls.extend((0..20).map(|value| call(100 + value, 1000, Action::Read(Some(value)))));
    calls.push(call(2000, 2001, Action::Read(Some(99))));
    let limits = Limits {
        steps_max: 10_000,
        ..Limits::default()
    };
    assert_eq!(linearize(&calls, &limits), Search::GaveUp);
    let limits = Limits {
        cache_max: 1000,
        ..Limits::default()
    };
    assert_eq!(linearize(&calls, &limits), Search::GaveUp);
}

#[test]
fn unknown_writes_that_nobody_saw_cost_nothing() {
    let mut calls: Vec<_> = (0..5000)
        .map(|value| call(value, None, Action::Write(1_000_000 + value)))
        .collect();
    for at in 0..5000 {
        calls.push(call(10_000 + 4 * at, 10_001 + 4 * at, Action::Write(at)));
        calls.push(call(
            10_002 + 4 * at,
            10_003 + 4 * at,
            Action::Read(Some(at)),
        ));
    }
    let limits = Limits {
        steps_max: 100_000,
        ..Limits::default()
    };
    assert_eq!(linearize(&calls, &limits), Search::Linear);
}

#[test]
fn the_checker_tells_which_register_and_which_operation() {
    let write = |value| Op::RegisterWrite { key: 7, value };
    let read = |value| Op::RegisterRead {
        key: 7,
        value: Some(value),
    };
    let other = |value| Op::RegisterRead { key: 8, value };
    let base = History::default()
        .event(1, 1, Invoke, write(10))
        .event(2, 1, Done, write(10))
        .event(3, 2, Invoke, write(20))
        .event(4, 2, Fail, write(20))
        .event(5, 3, Invoke, write(30))
        .event(6, 3, Info, write(30))
        .event(7, 4, Invoke, other(None))
        .event(8, 4, Done, other(None))
        .event(9, 4, Invoke, Op::read(7));
    for value in [10, 30] {
        let history = base.clone().event(10, 4, Done, read(value));
        assert_eq!(
            judged(Checker::Linearizability, &history),
            (Outcome::Holds, vec![])
        );
    }
    let stale = base.clone().event(10, 4, Done, read(20));
    let (outcome, found) = judged(Checker::Linearizability, &stale);
    assert_eq!(outcome, Outcome::Violated);
    assert!(
        found[0].starts_with("register 7: no order explains \"read 20\" of process 4"),
        "{found:?}"
    );
    assert!(found[0].ends_with("holds 10"), "{found:?}");
    assert_eq!(
        judged(Checker::Linearizability, &History::default()).0,
        Outcome::NothingToCheck
    );
    // A process that completes what it did not invoke.
    let odd = base.event(10, 5, Done, read(10));
    assert!(matches!(
        judged(Checker::Linearizability, &odd).0,
        Outcome::Invalid(_)
    ));
}

/// SplitMix64, so that a run of a seed is the same everywhere.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

/// `count` calls of `clients` clients on one real register, each in effect at some instant of its own between invocation and
/// completion; one in `unknown` has an unknown outcome, and its client goes on as another. Values are `0..values`.
fn real(seed: u64, count: usize, clients: u64, unknown: u64, values: u64) -> Vec<Call> {
    let mut chance = Chance(seed);
    let mut free: Vec<u64> = (0..clients).collect();
    // Instants of effect, in order, and then what was there is read off.
    let mut calls: Vec<(u64, Call)> = (0..count)
        .map(|at| {
            let client = at % free.len();
            let begin = free[client] + 1 + chance.below(10);
            let effect = begin + chance.below(20);
            let end = effect + chance.below(20);
            free[client] = end;
            let lost = chance.below(unknown) == 0;
            let action = match chance.below(4) {
                0 => Action::Write(chance.below(values)),
                1 => cas(chance.below(values), chance.below(values), None),
                _ => Action::Read(None),
            };
            (effect, call(begin, (!lost).then_some(end), action))
        })
        .collect();
    calls.sort_by_key(|(effect, _)| *effect);
    let mut state = None;
    for (_, call) in &mut calls {
        let happens = call.return_ns.is_some() || chance.below(2) == 0;
        match &mut call.action {
            Action::Read(value) => *value = state,
            Action::Write(value) if happens => state = Some(*value),
            Action::Cas {
                expected,
                new,
                swapped,
            } if happens => {
                let fits = state == Some(*expected);
                *swapped = call.return_ns.map(|_| fits);
                if fits {
                    state = Some(*new);
                }
            }
            Action::Write(_) | Action::Cas { .. } => {}
        }
    }
    let mut calls: Vec<_> = calls.into_iter().map(|(_, call)| call).collect();
    calls.retain(|call| !(call.return_ns.is_none() && matches!(call.action, Action::Read(_))));
    calls.sort_by_key(|call| call.call_ns);
    calls
}

/// Every value is written once, so that a stale read is one beyond doubt.
fn with_stale_read(seed: u64, count: usize) -> Option<Vec<Call>> {
    let mut chance = Chance(seed);
    let mut now = 0;
    let mut calls: Vec<_> = (0_u64..)
        .take(count)
        .map(|at| {
            now += 1 + chance.below(5);
            let begin = now;
            now += chance.below(3);
            // Neighbours may overlap: the completion comes a little later than the next invocation.
            let action = if at % 2 == 0 {
                Action::Write(at)
            } else {
                Action::Read(Some(at - 1))
            };
            call(begin, now + chance.below(3), action)
        })
        .collect();
    // A read that begins after the next write but one has ended.
    let victims: Vec<_> = (5..calls.len()).filter(|at| at % 2 == 1).collect();
    let victim =
        *victims.get(usize::try_from(chance.below(1 << 20)).ok()? % victims.len().max(1))?;
    calls[victim].action = Action::Read(Some(u64::try_from(victim).ok()? - 5));
    let overtaken = calls[victim - 3].return_ns? < calls[victim].call_ns;
    overtaken.then_some(calls)
}

/// Any small history, sound or not.
fn small() -> impl Strategy<Value = Vec<Call>> {
    let value = 0_u64..3;
    let action = prop_oneof![
        prop::option::of(value.clone()).prop_map(Action::Read),
        value.clone().prop_map(Action::Write),
        (value.clone(), value, any::<bool>()).prop_map(|(e, n, s)| cas(e, n, Some(s))),
    ];
    let one = (0_u64..12, 0_u64..6, prop::bool::weighted(0.2), action);
    prop::collection::vec(one, 0..8).prop_map(|calls| {
        let calls = calls
            .into_iter()
            .filter_map(|(begin, length, unknown, action)| match (unknown, action) {
                (true, Action::Read(_)) => None,
                (true, Action::Cas { expected, new, .. }) => {
                    Some(call(begin, None, cas(expected, new, None)))
                }
                (true, action @ Action::Write(_)) => Some(call(begin, None, action)),
                (false, action) => Some(call(begin, begin + length, action)),
            });
        calls.collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn agrees_with_the_definition(calls in small()) {
        let found = search(&calls);
        prop_assert_ne!(&found, &Search::GaveUp);
        prop_assert_eq!(found == Search::Linear, is_linear(&calls));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn what_one_register_did_is_accepted(seed in any::<u64>(), clients in 1_u64..8, values in 1_u64..6) {
        let calls = real(seed, 300, clients, 60, values);
        prop_assert_eq!(search(&calls), Search::Linear);
    }

    #[test]
    fn a_stale_read_is_rejected(seed in any::<u64>()) {
        if let Some(calls) = with_stale_read(seed, 60) {
            prop_assert!(matches!(search(&calls), Search::NotLinear(_)));
        }
    }
}

/// The bound on steps is the assertion: twenty for each operation.
#[test]
fn a_long_history_costs_a_few_steps_an_operation() {
    for seed in 0..4 {
        let calls = real(seed, 50_000, 5, u64::MAX, 100);
        let limits = Limits {
            steps_max: 1_000_000,
            ..Limits::default()
        };
        assert_eq!(linearize(&calls, &limits), Search::Linear, "seed {seed}");
    }
}
