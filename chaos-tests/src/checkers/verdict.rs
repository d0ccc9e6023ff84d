//! What a checker says.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Findings kept per checker; a broken promise is often broken by every operation after it.
pub const FINDINGS_MAX: usize = 100;

/// Which checker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Checker {
    /// At no time two ATMs spoke for one VIP (P1).
    OneVoice,
    /// Lease intervals never overlap (P1).
    Leases,
    /// Epochs are unique, have one holder, and grow with the log and with time.
    Epochs,
    /// An epoch's first speech comes after its BeginEpoch was applied and the table held it (P3).
    ClaimGate,
    /// Same index, same state (P4).
    Digests,
    /// Every acknowledged connection keeps its server, on every ATM (P2, P8).
    Connections,
    /// Registers behave as if there were one copy.
    Linearizability,
    /// Every acknowledged element is in the set, and nothing that was not added.
    Set,
    /// How long the service was away, fault by fault, and that it came back.
    Availability,
}

impl Checker {
    /// Its name as in files.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::OneVoice => "one-voice",
            Self::Leases => "leases",
            Self::Epochs => "epochs",
            Self::ClaimGate => "claim-gate",
            Self::Digests => "digests",
            Self::Connections => "connections",
            Self::Linearizability => "linearizability",
            Self::Set => "set",
            Self::Availability => "availability",
        }
    }
}

impl fmt::Display for Checker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What a checker came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "outcome", content = "why")]
pub enum Outcome {
    /// What was seen keeps the promise.
    Holds,
    /// The promise was broken; the findings say when.
    Violated,
    /// The search grew beyond its bounds: nothing is known.
    GaveUp(String),
    /// The history has holes or contradicts itself: nothing is proved.
    Invalid(String),
    /// The history has nothing of the kind.
    NothingToCheck,
}

/// An event or operation that a finding points at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moment {
    /// When.
    pub t_ns: u64,
    /// What happened then, in words.
    pub what: String,
}

/// One breach, with what proves it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What was broken, in a sentence.
    pub what: String,
    /// The moments that show it, in order of time.
    pub moments: Vec<Moment>,
}

/// What one checker says of a history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Who says it.
    pub checker: Checker,
    /// What it came to.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// How much it looked at, in words.
    pub summary: String,
    /// The first [`FINDINGS_MAX`] breaches.
    pub findings: Vec<Finding>,
    /// How many more there were.
    pub more: u64,
}

impl Verdict {
    /// A verdict over a history that cannot be judged.
    pub(super) fn invalid(checker: Checker, why: String) -> Self {
        Self {
            checker,
            outcome: Outcome::Invalid(why),
            summary: String::new(),
            findings: Vec::new(),
            more: 0,
        }
    }

    /// Nothing of its kind was seen.
    pub(super) fn nothing(checker: Checker) -> Self {
        Self {
            outcome: Outcome::NothingToCheck,
            ..Self::invalid(checker, String::new())
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (word, why) = match &self.outcome {
            Outcome::Holds => ("holds", ""),
            Outcome::Violated => ("VIOLATED", ""),
            Outcome::GaveUp(why) => ("gave up", why.as_str()),
            Outcome::Invalid(why) => ("invalid", why.as_str()),
            Outcome::NothingToCheck => ("nothing to check", ""),
        };
        write!(f, "{:<16} {word}", self.checker)?;
        for part in [why, self.summary.as_str()] {
            if !part.is_empty() {
                write!(f, ": {part}")?;
            }
        }
        let shown = 3;
        for finding in self.findings.iter().take(shown) {
            write!(f, "\n    {}", finding.what)?;
        }
        let more = self.findings.len().saturating_sub(shown);
        match self.more + u64::try_from(more).unwrap_or(u64::MAX) {
            0 => Ok(()),
            more => write!(f, "\n    and {more} more"),
        }
    }
}

/// What all checkers say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdicts(pub Vec<Verdict>);

impl Verdicts {
    /// Whether nothing was broken, given up or invalid. A checker that had nothing to check does not count.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.0
            .iter()
            .all(|verdict| matches!(verdict.outcome, Outcome::Holds | Outcome::NothingToCheck))
    }

    /// The checkers that found a promise broken.
    pub fn violated(&self) -> impl Iterator<Item = Checker> + '_ {
        let broken = self
            .0
            .iter()
            .filter(|verdict| verdict.outcome == Outcome::Violated);
        broken.map(|verdict| verdict.checker)
    }

    /// What `checker` says.
    #[must_use]
    pub fn of(&self, checker: Checker) -> Option<&Verdict> {
        self.0.iter().find(|verdict| verdict.checker == checker)
    }
}

impl fmt::Display for Verdicts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .iter()
            .try_for_each(|verdict| writeln!(f, "{verdict}"))
    }
}

/// Breaches on their way to a verdict.
#[derive(Debug, Default)]
pub(super) struct Findings {
    kept: Vec<Finding>,
    more: u64,
}

impl Findings {
    /// Adds a breach, shown by `moments`.
    pub(super) fn add(&mut self, what: String, moments: impl IntoIterator<Item = (u64, String)>) {
        if self.kept.len() == FINDINGS_MAX {
            self.more += 1;
            return;
        }
        let mut moments: Vec<_> = moments
            .into_iter()
            .map(|(t_ns, what)| Moment { t_ns, what })
            .collect();
        moments.sort_by_key(|moment| moment.t_ns);
        self.kept.push(Finding { what, moments });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// Holds if there is no breach.
    pub(super) fn verdict(self, checker: Checker, summary: String) -> Verdict {
        let outcome = if self.is_empty() {
            Outcome::Holds
        } else {
            Outcome::Violated
        };
        Verdict {
            checker,
            outcome,
            summary,
            findings: self.kept,
            more: self.more,
        }
    }
}

/// A time for people: seconds with microseconds.
pub(super) fn seconds(t_ns: u64) -> String {
    format!(
        "{}.{:06} s",
        t_ns / 1_000_000_000,
        t_ns % 1_000_000_000 / 1000
    )
}

/// A length for people: milliseconds with microseconds.
pub(super) fn millis(ns: u64) -> String {
    format!("{}.{:03} ms", ns / 1_000_000, ns % 1_000_000 / 1000)
}
