//! Invocations and what became of them.

use std::collections::BTreeMap;

use super::event::{Event, Kind};
use super::op::Op;

/// An operation from its invocation to its completion.
#[derive(Clone, Debug, PartialEq)]
pub struct Operation<'a> {
    /// Who invoked it.
    pub process: u64,
    /// What was asked for.
    pub invoked: &'a Op,
    /// When.
    pub call_ns: u64,
    /// What became of it.
    pub outcome: Outcome<'a>,
}

/// What became of an operation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Outcome<'a> {
    /// It took effect by then, with this result.
    Ok {
        /// When that was known.
        return_ns: u64,
        /// The operation with its result.
        result: &'a Op,
    },
    /// It took no effect.
    Fail,
    /// It may take effect at any time after its invocation, or never.
    Unknown,
}

/// A history that no processes can have produced.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PairError {
    /// A process invoked an operation while another was under way.
    #[error("process {process} invokes a second operation at {t_ns} ns")]
    Busy {
        /// Which process.
        process: u64,
        /// When.
        t_ns: u64,
    },
    /// A completion of nothing.
    #[error("process {process} completes at {t_ns} ns what it has not invoked")]
    Stray {
        /// Which process.
        process: u64,
        /// When.
        t_ns: u64,
    },
    /// A completion before its invocation.
    #[error("process {process} completes at {t_ns} ns what it invoked later")]
    Backwards {
        /// Which process.
        process: u64,
        /// When.
        t_ns: u64,
    },
}

/// Every client operation of `events`, in the order of invocation times. One that never completes is
/// [`Unknown`](Outcome::Unknown).
///
/// # Errors
/// A process does two operations at a time, or completes what it did not invoke.
pub fn pairs(events: &[Event]) -> Result<Vec<Operation<'_>>, PairError> {
    let mut operations: Vec<Operation<'_>> = Vec::new();
    let mut under_way: BTreeMap<u64, usize> = BTreeMap::new();
    for event in events.iter().filter(|event| event.op.is_invoked()) {
        let Event {
            t_ns,
            process,
            kind,
            ref op,
        } = *event;
        if kind == Kind::Invoke {
            if under_way.insert(process, operations.len()).is_some() {
                return Err(PairError::Busy { process, t_ns });
            }
            operations.push(Operation {
                process,
                invoked: op,
                call_ns: t_ns,
                outcome: Outcome::Unknown,
            });
            continue;
        }
        let begun = under_way.remove(&process);
        let Some(operation) = begun.and_then(|at| operations.get_mut(at)) else {
            return Err(PairError::Stray { process, t_ns });
        };
        if !op.completes(operation.invoked) {
            return Err(PairError::Stray { process, t_ns });
        }
        if t_ns < operation.call_ns {
            return Err(PairError::Backwards { process, t_ns });
        }
        operation.outcome = match kind {
            Kind::Ok => Outcome::Ok {
                return_ns: t_ns,
                result: op,
            },
            Kind::Fail => Outcome::Fail,
            Kind::Info | Kind::Invoke => Outcome::Unknown,
        };
    }
    operations.sort_by_key(|operation| operation.call_ns);
    Ok(operations)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(t_ns: u64, process: u64, kind: Kind, op: Op) -> Event {
        Event {
            t_ns,
            process,
            kind,
            op,
        }
    }

    #[test]
    fn completions_find_their_invocations() {
        let write = |value| Op::RegisterWrite { key: 1, value };
        let read = Op::RegisterRead {
            key: 1,
            value: Some(7),
        };
        let events = [
            event(1, 1, Kind::Invoke, write(7)),
            event(2, 2, Kind::Invoke, Op::read(1)),
            event(
                3,
                0,
                Kind::Info,
                Op::Mark {
                    text: "passed over".to_owned(),
                },
            ),
            event(4, 2, Kind::Ok, read.clone()),
            event(5, 1, Kind::Info, write(7)),
            event(6, 1, Kind::Invoke, write(8)),
            event(7, 1, Kind::Fail, write(8)),
            event(8, 1, Kind::Invoke, write(9)),
        ];
        let found = pairs(&events).unwrap();
        let outcomes: Vec<_> = found
            .iter()
            .map(|o| (o.process, o.call_ns, o.outcome))
            .collect();
        assert_eq!(
            outcomes,
            [
                (1, 1, Outcome::Unknown),
                (
                    2,
                    2,
                    Outcome::Ok {
                        return_ns: 4,
                        result: &read
                    }
                ),
                (1, 6, Outcome::Fail),
                (1, 8, Outcome::Unknown),
            ]
        );
    }

    #[test]
    fn impossible_histories_are_refused() {
        let add = |element| Op::SetAdd { element };
        for (events, expected) in [
            (
                vec![
                    event(1, 4, Kind::Invoke, add(1)),
                    event(2, 4, Kind::Invoke, add(2)),
                ],
                PairError::Busy {
                    process: 4,
                    t_ns: 2,
                },
            ),
            (
                vec![event(1, 4, Kind::Ok, add(1))],
                PairError::Stray {
                    process: 4,
                    t_ns: 1,
                },
            ),
            (
                vec![
                    event(1, 4, Kind::Invoke, add(1)),
                    event(2, 4, Kind::Ok, add(2)),
                ],
                PairError::Stray {
                    process: 4,
                    t_ns: 2,
                },
            ),
            (
                vec![
                    event(3, 4, Kind::Invoke, add(1)),
                    event(2, 4, Kind::Ok, add(1)),
                ],
                PairError::Backwards {
                    process: 4,
                    t_ns: 2,
                },
            ),
        ] {
            assert_eq!(pairs(&events), Err(expected));
        }
    }
}
