//! A register with compare-and-set, as one copy would behave.

use std::fmt;

/// What an operation does, and what it claims to have seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It read this; `None`: never written.
    Read(Option<u64>),
    /// It wrote this.
    Write(u64),
    /// It compared and set.
    Cas {
        /// What had to be there.
        expected: u64,
        /// What is there after it.
        new: u64,
        /// Whether it was set; `None`: unknown.
        swapped: Option<bool>,
    },
}

/// An action in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// When it was invoked.
    pub call_ns: u64,
    /// When it had taken effect; `None`: unknown, it may take effect at any time from its invocation on, or never.
    pub return_ns: Option<u64>,
    /// What it does.
    pub action: Action,
}

impl Action {
    /// The register after the action, if it can happen on a register that holds `state`. An action that may or may not take effect
    /// is asked only where it does.
    #[must_use]
    pub fn apply(self, state: Option<u64>) -> Option<Option<u64>> {
        match self {
            Self::Read(value) => (value == state).then_some(state),
            Self::Write(value) => Some(Some(value)),
            Self::Cas {
                expected,
                new,
                swapped,
            } => match (state == Some(expected), swapped.unwrap_or(true)) {
                (true, true) => Some(Some(new)),
                (false, false) => Some(state),
                (true, false) | (false, true) => None,
            },
        }
    }

    /// Whether it changes nothing, wherever it can happen.
    pub(super) const fn is_pure(self) -> bool {
        matches!(
            self,
            Self::Read(_)
                | Self::Cas {
                    swapped: Some(false),
                    ..
                }
        )
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Read(Some(value)) => write!(f, "read {value}"),
            Self::Read(None) => write!(f, "read nothing"),
            Self::Write(value) => write!(f, "write {value}"),
            Self::Cas {
                expected,
                new,
                swapped: Some(true),
            } => write!(f, "set {new} where {expected} was"),
            Self::Cas {
                expected,
                new,
                swapped: Some(false),
            } => {
                write!(f, "did not set {new}, {expected} was not there")
            }
            Self::Cas {
                expected,
                new,
                swapped: None,
            } => write!(f, "set {new} if {expected} is there"),
        }
    }
}
