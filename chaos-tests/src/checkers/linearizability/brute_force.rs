//! The definition itself, for small histories: is there any order?

use super::{Action, Call};

/// Tries every order of every choice of unknown calls.
pub(super) fn is_linear(calls: &[Call]) -> bool {
    extend(calls, &mut vec![false; calls.len()], None)
}

fn extend(calls: &[Call], taken: &mut Vec<bool>, state: Option<u64>) -> bool {
    let left = || {
        calls
            .iter()
            .zip(taken.iter())
            .filter(|(_, taken)| !**taken)
            .map(|(call, _)| call)
    };
    if left().all(|call| call.return_ns.is_none()) {
        return true;
    }
    // Whatever has returned before a call was invoked precedes it.
    let first_return = left()
        .filter_map(|call| call.return_ns)
        .min()
        .unwrap_or(u64::MAX);
    for (at, call) in calls.iter().enumerate() {
        if taken[at] || call.call_ns > first_return {
            continue;
        }
        if let Some(after) = apply(call.action, state) {
            taken[at] = true;
            let found = extend(calls, taken, after);
            taken[at] = false;
            if found {
                return true;
            }
        }
    }
    false
}

/// Written apart from [`Action::apply`], so that a mistake there shows.
fn apply(action: Action, state: Option<u64>) -> Option<Option<u64>> {
    match action {
        Action::Read(value) if value == state => Some(state),
        Action::Write(value) => Some(Some(value)),
        Action::Cas {
            expected,
            new,
            swapped: Some(true) | None,
        } if state == Some(expected) => Some(Some(new)),
        Action::Cas {
            expected,
            swapped: Some(false),
            ..
        } if state != Some(expected) => Some(state),
        Action::Read(_) | Action::Cas { .. } => None,
    }
}
