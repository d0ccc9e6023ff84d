//! The search for a linear order: Wing & Gong 1993, with Lowe's linked list and cache of visited configurations (2017).
//!
//! Two things keep it near linear time. A read that fits is taken at once and never put back: it changes nothing, so whatever
//! can follow without it can follow it. And a write of unknown outcome whose value nobody ever saw is left out
//! ([`useful`]), because each of them would double the search.

use std::collections::BTreeSet;

use rustc_hash::FxHashSet;

use super::register::{Action, Call};

/// Bounds of a search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Entries looked at, at most. An operation costs about its concurrency; 200 million take some seconds.
    pub steps_max: u64,
    /// Configurations remembered, at most: 18 to 36 bytes each.
    pub cache_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            steps_max: 200_000_000,
            cache_max: 16_000_000,
        }
    }
}

/// What the search came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Search {
    /// There is a linear order.
    Linear,
    /// There is none.
    NotLinear(Stuck),
    /// The bounds were reached: nothing is known.
    GaveUp,
}

/// Where the longest order ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stuck {
    /// The first call to complete that fits behind none of the longest orders.
    pub call: usize,
    /// What the register holds after those, at most eight values.
    pub held: Vec<Option<u64>>,
    /// Calls in the longest orders.
    pub ordered: usize,
}

/// Calls of one search: as many as fit into a history, twice.
const CALLS_MAX: usize = 1 << 24;

/// Values of [`Stuck::held`] kept: enough to see what is wrong.
const HELD_MAX: usize = 8;

/// Looks for an order of `calls` in which each fits behind the one before it and none comes before one that completed before it
/// was invoked. The register begins unwritten.
#[must_use]
pub fn linearize(calls: &[Call], limits: &Limits) -> Search {
    // Entries are counted in 32 bits; so many calls would have to be given up in any case.
    if calls.len() > CALLS_MAX {
        return Search::GaveUp;
    }
    let useful = useful(calls);
    let mut search = Searching::new(calls, &useful);
    search.run(limits)
}

/// One end of a call in the list.
#[derive(Clone, Copy)]
struct Entry {
    call: u32,
    /// The list's other entries, as indices; entry 0 is before the first and 1 after the last.
    previous: u32,
    next: u32,
    is_return: bool,
}

const HEAD: u32 = 0;
const END: u32 = 1;

/// A call taken into the order.
struct Taken {
    call: u32,
    /// The register before it.
    before: Option<u64>,
    /// It need not be put back to try another in its place.
    forced: bool,
}

struct Searching<'a> {
    calls: &'a [Call],
    entries: Vec<Entry>,
    /// Entries of each call: its invocation, and its completion or [`END`].
    ends: Vec<(u32, u32)>,
    /// Completed calls not yet in the order.
    left: usize,
    state: Option<u64>,
    /// Stands for the set of calls in the order: the exclusive or of a 128-bit number for each.
    set: u128,
    taken: Vec<Taken>,
    /// Configurations (set and state) reached before. Two of them fall together with a probability below 2^-70 at 2^28
    /// entries; then a branch is passed over, so a history may be accused wrongly, but never acquitted wrongly.
    seen: FxHashSet<u128>,
    steps: u64,
    stuck: Option<Stuck>,
}

impl<'a> Searching<'a> {
    fn new(calls: &'a [Call], useful: &[bool]) -> Self {
        let considered = || {
            let all = calls.iter().zip(useful).zip(0_u32..);
            all.filter(|((_, useful), _)| **useful)
                .map(|((call, _), at)| (at, call))
        };
        let begins = considered().map(|(at, call)| (call.call_ns, false, at));
        let returns = considered().filter_map(|(at, call)| Some((call.return_ns?, true, at)));
        // At the same instant invocations come first: calls that touch overlap.
        let mut ordered: Vec<_> = begins.chain(returns).collect();
        ordered.sort_unstable();

        let mut entries = Vec::with_capacity(ordered.len() + 2);
        let bound = Entry {
            call: u32::MAX,
            previous: HEAD,
            next: END,
            is_return: false,
        };
        entries.extend([bound, bound]);
        let mut ends = vec![(END, END); calls.len()];
        let (mut last, mut left) = (HEAD, 0);
        for ((_, is_return, call), index) in ordered.into_iter().zip(2_u32..) {
            entries.push(Entry {
                call,
                previous: last,
                next: END,
                is_return,
            });
            entries[last as usize].next = index;
            let (begin, end) = &mut ends[call as usize];
            if is_return {
                *end = index;
                left += 1;
            } else {
                *begin = index;
            }
            last = index;
        }
        entries[END as usize].previous = last;
        Self {
            calls,
            entries,
            ends,
            left,
            state: None,
            set: 0,
            taken: Vec::new(),
            seen: FxHashSet::default(),
            steps: 0,
            stuck: None,
        }
    }

    fn run(&mut self, limits: &Limits) -> Search {
        let mut from = self.first();
        loop {
            if self.left == 0 {
                return Search::Linear;
            }
            if self.steps > limits.steps_max || self.seen.len() > limits.cache_max {
                return Search::GaveUp;
            }
            from = if self.advance(from) {
                self.first()
            } else if let Some(next) = self.back() {
                next
            } else {
                return Search::NotLinear(self.stuck.take().unwrap_or_default());
            };
        }
    }

    fn first(&self) -> u32 {
        self.entries[HEAD as usize].next
    }

    /// Takes one more call, the entries before `from` having been tried; whether one could be taken.
    fn advance(&mut self, from: u32) -> bool {
        if from == self.first()
            && let Some(call) = self.find(from, |action, state| {
                action.is_pure() && action.apply(state).is_some()
            })
        {
            // Taken or, if that was reached before, known to lead nowhere.
            return self.take(call, true);
        }
        let mut entry = from;
        while let Some(call) = self.find(entry, |action, state| action.apply(state).is_some()) {
            if self.take(call, false) {
                return true;
            }
            entry = self.entries[self.ends[call as usize].0 as usize].next;
        }
        false
    }

    /// The first call from `entry` on that could be next in real time and that `fits`.
    fn find(&mut self, mut entry: u32, fits: impl Fn(Action, Option<u64>) -> bool) -> Option<u32> {
        loop {
            self.steps += 1;
            let Entry {
                call,
                next,
                is_return,
                ..
            } = self.entries[entry as usize];
            if entry == END {
                return None;
            }
            if is_return {
                self.note_stuck(call);
                return None;
            }
            if fits(self.calls[call as usize].action, self.state) {
                return Some(call);
            }
            entry = next;
        }
    }

    /// Takes `call` next, unless that configuration was reached before.
    fn take(&mut self, call: u32, forced: bool) -> bool {
        let Some(after) = self.calls[call as usize].action.apply(self.state) else {
            return false;
        };
        let set = self.set ^ number(u64::from(call));
        if !self.seen.insert(set ^ state_number(after)) {
            return false;
        }
        self.taken.push(Taken {
            call,
            before: self.state,
            forced,
        });
        self.set = set;
        self.state = after;
        let (begin, end) = self.ends[call as usize];
        self.unlink(begin);
        if end != END {
            self.unlink(end);
            self.left -= 1;
        }
        true
    }

    /// Puts calls back up to the last that had alternatives, and returns the entry from which to try them.
    fn back(&mut self) -> Option<u32> {
        loop {
            let Taken {
                call,
                before,
                forced,
            } = self.taken.pop()?;
            self.set ^= number(u64::from(call));
            self.state = before;
            let (begin, end) = self.ends[call as usize];
            if end != END {
                self.relink(end);
                self.left += 1;
            }
            self.relink(begin);
            if !forced {
                return Some(self.entries[begin as usize].next);
            }
        }
    }

    fn unlink(&mut self, entry: u32) {
        let Entry { previous, next, .. } = self.entries[entry as usize];
        self.entries[previous as usize].next = next;
        self.entries[next as usize].previous = previous;
    }

    /// Undoes the latest [`unlink`](Self::unlink) not yet undone.
    fn relink(&mut self, entry: u32) {
        let Entry { previous, next, .. } = self.entries[entry as usize];
        self.entries[previous as usize].next = entry;
        self.entries[next as usize].previous = entry;
    }

    /// `call` has to come next and does not fit: remembered if no longer order was found.
    fn note_stuck(&mut self, call: u32) {
        let (call, ordered) = (call as usize, self.taken.len());
        let longest = self.stuck.as_ref().map(|stuck| stuck.ordered);
        if longest.is_none_or(|longest| ordered > longest) {
            self.stuck = Some(Stuck {
                call,
                held: vec![self.state],
                ordered,
            });
        } else if let Some(stuck) = &mut self.stuck
            && (stuck.ordered, stuck.call) == (ordered, call)
            && stuck.held.len() < HELD_MAX
            && !stuck.held.contains(&self.state)
        {
            stuck.held.push(self.state);
        }
    }
}

/// Which calls matter. One of unknown outcome matters only if somebody can have seen its value: a read, or a compare-and-set
/// that expects it, of known success or itself useful. Otherwise leaving it out of an order that holds it leaves an order,
/// but for a failed compare-and-set, which another value than the expected one suffices to explain: then all are kept.
fn useful(calls: &[Call]) -> Vec<bool> {
    let any_failed = calls.iter().any(|call| {
        matches!(
            call.action,
            Action::Cas {
                swapped: Some(false),
                ..
            }
        )
    });
    let mut useful: Vec<_> = calls
        .iter()
        .map(|call| any_failed || call.return_ns.is_some())
        .collect();
    let mut seen = BTreeSet::new();
    loop {
        let before = seen.len();
        for (call, useful) in calls.iter().zip(&useful) {
            match call.action {
                Action::Read(Some(value)) => {
                    seen.insert(value);
                }
                Action::Cas { expected, .. } if *useful => {
                    seen.insert(expected);
                }
                Action::Read(None) | Action::Write(_) | Action::Cas { .. } => {}
            }
        }
        for (call, useful) in calls.iter().zip(&mut useful) {
            let written = match call.action {
                Action::Write(value) | Action::Cas { new: value, .. } => value,
                Action::Read(_) => continue,
            };
            *useful |= seen.contains(&written);
        }
        if seen.len() == before {
            return useful;
        }
    }
}

/// A number for call `at`, as good as random (SplitMix64, Steele et al. 2014).
fn number(at: u64) -> u128 {
    let low = mix(at.wrapping_mul(2).wrapping_add(1));
    let high = mix(at.wrapping_mul(2).wrapping_add(2));
    u128::from(high) << 64 | u128::from(low)
}

/// A number for a state; two states never have the same.
fn state_number(state: Option<u64>) -> u128 {
    state.map_or(0, |value| {
        let low = mix(value ^ 0x6a09_e667_f3bc_c908);
        u128::from(mix(low ^ 0xbb67_ae85_84ca_a73b)) << 64 | u128::from(low)
    })
}

fn mix(seed: u64) -> u64 {
    let z = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
