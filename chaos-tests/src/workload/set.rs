//! The configuration as one set that only grows: every element whose adding was acknowledged must be there for ever.
//!
//! The text carries the latest part of it. A part that has grown long is sealed by the change that puts an empty one in its place:
//! what that change replaced was committed, and is remembered here as read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::asking::{Atm, NoAnswer, Task};
use super::document::{Document, Part};
use super::pace::Pace;
use super::register::{Shared, show};
use crate::history::Op;

/// Elements of a part: their line stays far below what a line of a configuration may have.
const PART_MAX: usize = 200;

/// How often an add is tried that another change came before.
const ATTEMPTS_MAX: usize = 8;

/// What was replaced, by the number of the part and the version it was replaced from; and which of them it was.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sealed(Arc<Mutex<Parts>>);

#[derive(Debug, Default)]
struct Parts {
    attempts: BTreeMap<(u64, u64), BTreeSet<u64>>,
    sealed_from: BTreeMap<u64, u64>,
}

impl Sealed {
    fn parts(&self) -> MutexGuard<'_, Parts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Part `part` may be replaced from `version`.
    fn attempt(&self, part: &Part, version: u64) {
        let elements = part.elements.clone();
        self.parts()
            .attempts
            .insert((part.number, version), elements);
    }

    /// This part is in force: so the one before it was sealed as it says.
    fn saw(&self, part: &Part) {
        let Some(before) = part.number.checked_sub(1) else {
            return;
        };
        let mut parts = self.parts();
        parts.sealed_from.insert(before, part.since);
        parts
            .attempts
            .retain(|(number, version), _| *number != before || *version == part.since);
    }

    /// The whole set as a text with `part` says. `None`: a part before it was sealed by nobody here.
    fn whole(&self, part: &Part) -> Option<Vec<u64>> {
        self.saw(part);
        let parts = self.parts();
        let mut whole = part.elements.clone();
        for number in 0..part.number {
            let since = *parts.sealed_from.get(&number)?;
            whole.extend(parts.attempts.get(&(number, since))?);
        }
        Some(whole.into_iter().collect())
    }
}

/// A client that adds elements until it is stopped, seals parts, and then reads the whole set.
pub(crate) fn client(shared: Shared, sealed: Sealed, atm: Atm, mut pace: Pace) -> Task {
    Box::pin(async move {
        let mut process = shared.recorder.process();
        while !shared.stopped() {
            pace.wait().await;
            if !add(&shared, &sealed, &atm, process, &mut pace).await {
                process = shared.recorder.process();
            }
            if seal(&sealed, &atm).await {
                read(&shared, &sealed, &atm, process, false).await;
            }
        }
    })
}

/// Adds an element; says whether it is known what became of that.
async fn add(shared: &Shared, sealed: &Sealed, atm: &Atm, process: u64, pace: &mut Pace) -> bool {
    let element = shared.next_value();
    let op = Op::SetAdd { element };
    shared
        .operations
        .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    shared.recorder.invoke(process, op.clone());
    for _ in 0..ATTEMPTS_MAX {
        let Ok((version, mut document)) = show(atm).await else {
            break;
        };
        sealed.saw(&document.part);
        document.part.elements.insert(element);
        match atm.apply(document.render(), version).await {
            Ok(_) => {
                shared.recorder.ok(process, op);
                return true;
            }
            Err(NoAnswer::OtherVersion) => pace.wait_a_little().await,
            Err(NoAnswer::Refused(_)) => break,
            Err(NoAnswer::Unknown(_)) => {
                shared.recorder.info(process, op);
                return false;
            }
        }
    }
    shared.recorder.fail(process, op);
    true
}

/// Seals the part in force if it is long; says whether it did.
async fn seal(sealed: &Sealed, atm: &Atm) -> bool {
    let Ok((version, mut document)) = show(atm).await else {
        return false;
    };
    sealed.saw(&document.part);
    if document.part.elements.len() < PART_MAX {
        return false;
    }
    sealed.attempt(&document.part, version);
    document.part = Part {
        number: document.part.number + 1,
        since: version,
        elements: BTreeSet::new(),
    };
    atm.apply(document.render(), version).await.is_ok()
}

/// Reads the whole set, as the group or, with `local`, as this ATM alone has it; says whether it could be read.
pub(crate) async fn read(
    shared: &Shared,
    sealed: &Sealed,
    atm: &Atm,
    process: u64,
    local: bool,
) -> bool {
    let op = Op::SetRead {
        elements: Vec::new(),
    };
    shared.recorder.invoke(process, op.clone());
    let version = atm.show(local).await;
    let document = version.map(|version| Document::parse(&version.source));
    let whole = match document {
        Ok(Ok(document)) => sealed.whole(&document.part),
        Ok(Err(_)) | Err(_) => None,
    };
    match whole {
        Some(elements) => {
            shared.recorder.ok(process, Op::SetRead { elements });
            true
        }
        None => {
            shared.recorder.fail(process, op);
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(number: u64, since: u64, elements: &[u64]) -> Part {
        Part {
            number,
            since,
            elements: elements.iter().copied().collect(),
        }
    }

    #[test]
    fn the_attempt_that_took_effect_counts() {
        let sealed = Sealed::default();
        sealed.attempt(&part(0, 0, &[1, 2]), 7);
        sealed.attempt(&part(0, 0, &[1, 2, 3]), 9);
        assert_eq!(sealed.whole(&part(1, 9, &[4])), Some(vec![1, 2, 3, 4]));
        assert_eq!(sealed.parts().attempts.len(), 1);
    }

    #[test]
    fn a_part_sealed_by_nobody_is_told() {
        let sealed = Sealed::default();
        sealed.attempt(&part(0, 0, &[1]), 7);
        assert_eq!(sealed.whole(&part(1, 8, &[])), None);
        assert_eq!(sealed.whole(&part(0, 0, &[5])), Some(vec![5]));
    }
}
