//! Operators who change and read the configuration, and the judgement of what they were told.
//!
//! A version's number is its place in the order of all changes. So the history is linearizable exactly when the numbers
//! agree with time: an operation that begins after another has ended sees at least its number, and a change gets a greater one;
//! no number has two texts; a change that expected a version stands directly in that version's place.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use node::simulation::{CallError, Client};

use crate::chance::Chance;
use crate::configuration;

/// A call whose end is not known by then is given up.
const DEADLINE: Duration = Duration::from_secs(3);

/// What an operator did and was told. Times are of the simulation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Operation {
    pub(crate) operator: usize,
    pub(crate) begun: Duration,
    /// `None`: nobody knows.
    pub(crate) ended: Option<Duration>,
    pub(crate) what: What,
}

/// See [`Operation`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// A change; `version`: it was acknowledged as this one.
    Write {
        value: u64,
        expected: Option<u64>,
        version: Option<u64>,
    },
    /// The version in force and its value.
    Read { version: u64, value: u64 },
}

/// Everything the operators did.
pub(crate) type History = Rc<RefCell<Vec<Operation>>>;

/// One operator, for ever.
pub(crate) async fn operate(index: usize, atms: usize, seed: u64, pause_ms: u64, history: History) {
    let mut chance = Chance::new(seed ^ (0x09e2 + index as u64));
    let mut known = None;
    let mut count = 0_u64;
    loop {
        tokio::time::sleep(Duration::from_millis(chance.between(20, pause_ms))).await;
        let address = format!("{}:7411", configuration::atm(chance.index(atms)));
        let Some(mut client) = Client::new(&address, DEADLINE) else {
            continue;
        };
        let begun = now();
        let (what, certain) = if chance.below(2) == 0 {
            count += 1;
            let value = (index as u64 + 1) * 1_000_000 + count;
            let expected = known.filter(|_| chance.below(2) == 0);
            let text = configuration::text(atms, value);
            let (version, certain) = match client.apply(text, expected).await {
                Ok(version) => (Some(version), true),
                Err(CallError::Refused(_)) => continue,
                Err(CallError::Unknown(_)) => (None, false),
            };
            let what = What::Write {
                value,
                expected,
                version,
            };
            (what, certain)
        } else {
            let Ok(read) = client.read().await else {
                continue;
            };
            known = Some(read.version);
            let value = configuration::value(&read.source).unwrap_or(u64::MAX);
            let version = read.version;
            (What::Read { version, value }, true)
        };
        history.borrow_mut().push(Operation {
            operator: index,
            begun,
            ended: certain.then(now),
            what,
        });
    }
}

/// What is wrong with a history, if anything.
pub(crate) fn judge(history: &[Operation]) -> Result<(), String> {
    let mut values: BTreeMap<u64, u64> = BTreeMap::new();
    for operation in history {
        let (version, value) = match operation.what {
            What::Write {
                version: Some(version),
                expected: Some(expected),
                ..
            } if version != expected + 1 => {
                return Err(format!("{operation:?} stands in another version's place"));
            }
            What::Write { version: None, .. } => continue,
            What::Write {
                version: Some(version),
                value,
                ..
            }
            | What::Read { version, value } => (version, value),
        };
        if *values.entry(version).or_insert(value) != value {
            return Err(format!("version {version} has two values: {operation:?}"));
        }
    }
    let mut by_begin: Vec<_> = history.iter().collect();
    by_begin.sort_by_key(|operation| operation.begun);
    let mut by_end: Vec<_> = history
        .iter()
        .filter_map(|operation| Some((operation.ended?, operation)))
        .collect();
    by_end.sort_by_key(|(ended, _)| *ended);
    let mut ended = by_end.into_iter().peekable();
    let mut seen: Option<(u64, &Operation)> = None;
    for operation in by_begin {
        while let Some((_, earlier)) = ended.next_if(|(ended, _)| *ended < operation.begun) {
            if let Some(version) = version(earlier)
                && seen.is_none_or(|(seen, _)| version > seen)
            {
                seen = Some((version, earlier));
            }
        }
        let (Some((seen, earlier)), Some(version)) = (seen, version(operation)) else {
            continue;
        };
        let enough = match operation.what {
            What::Write { .. } => version > seen,
            What::Read { .. } => version >= seen,
        };
        if !enough {
            return Err(format!("{operation:?} began after the end of {earlier:?}"));
        }
    }
    Ok(())
}

fn version(operation: &Operation) -> Option<u64> {
    match operation.what {
        What::Write { version, .. } => version,
        What::Read { version, .. } => Some(version),
    }
}

fn now() -> Duration {
    turmoil::sim_elapsed().unwrap_or_default()
}
