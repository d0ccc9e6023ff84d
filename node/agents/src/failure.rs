//! Why a service is not healthy: the step, what was expected there, and what was seen.

use std::borrow::Cow;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::connection::{BYTES_MAX, LINE_BYTES_MAX, LINES_MAX};
use crate::text::quoted;

/// A step of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What is done: `greeting`, `EHLO`.
    pub name: &'static str,
    /// What a service that works does then.
    pub expected: Cow<'static, str>,
}

impl Step {
    pub(crate) const fn new(name: &'static str, expected: &'static str) -> Self {
        Self {
            name,
            expected: Cow::Borrowed(expected),
        }
    }

    pub(crate) fn failed(&self, seen: Seen) -> Failure {
        Failure {
            step: self.clone(),
            seen,
        }
    }

    pub(crate) fn answered(&self, answer: &[u8]) -> Failure {
        self.failed(Seen::Answer(quoted(answer)))
    }
}

/// A test transaction that failed. Displayed it is one line of printable ASCII, but for the system's words on an error.
#[derive(Debug, thiserror::Error)]
#[error("{}: expected {}: {seen}", step.name, step.expected)]
pub struct Failure {
    /// Where.
    pub step: Step,
    /// What was there instead of what was expected.
    pub seen: Seen,
}

/// What was seen instead of what was expected.
#[derive(Debug, thiserror::Error)]
pub enum Seen {
    /// Another answer, in quotes and escaped.
    #[error("the answer was {0}")]
    Answer(String),
    /// The server closed the connection; what it had said of a line or message is in quotes.
    #[error("the server closed the connection{}", after(.0))]
    Closed(Vec<u8>),
    /// The system reports an error of the connection.
    #[error(transparent)]
    Io(io::Error),
    /// No TLS session came about.
    #[error("{0}")]
    Tls(String),
    /// Nothing that would have ended the step, within the caller's limit.
    #[error("it did not come within {0:?}")]
    Nothing(Duration),
    /// A line longer than [`LINE_BYTES_MAX`].
    #[error("a line of more than {LINE_BYTES_MAX} bytes")]
    LongLine,
    /// More lines than [`LINES_MAX`].
    #[error("more than {LINES_MAX} lines")]
    ManyLines,
    /// More than [`BYTES_MAX`].
    #[error("more than {BYTES_MAX} bytes")]
    ManyBytes,
    /// The server went on in the clear after it had agreed to TLS: somebody between may have put words into its mouth (CVE-2011-0411).
    #[error("the server went on in the clear: {0}")]
    Unencrypted(String),
    /// Not the server's fault: the agent cannot do what it was asked to.
    #[error("{0}")]
    Unable(String),
}

fn after(partial: &[u8]) -> String {
    if partial.is_empty() {
        String::new()
    } else {
        format!(" after {}", quoted(partial))
    }
}

/// The step that a transaction has come to, for whoever loses patience with it.
#[derive(Default)]
pub(crate) struct Progress(Mutex<Option<Step>>);

impl Progress {
    pub(crate) fn reached(&self, step: &Step) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(step.clone());
    }

    pub(crate) fn step(&self) -> Step {
        let step = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        step.clone().unwrap_or(Step::new("start", "a first step"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_step_expectation_and_what_was_seen() {
        let greeting = Step::new("greeting", "220");
        for (seen, sentence) in [
            (
                Seen::Answer(quoted(b"554 no")),
                r#"greeting: expected 220: the answer was "554 no""#,
            ),
            (
                Seen::Closed(Vec::new()),
                "greeting: expected 220: the server closed the connection",
            ),
            (
                Seen::Closed(b"22".to_vec()),
                r#"greeting: expected 220: the server closed the connection after "22""#,
            ),
            (
                Seen::Nothing(Duration::from_secs(10)),
                "greeting: expected 220: it did not come within 10s",
            ),
            (
                Seen::LongLine,
                "greeting: expected 220: a line of more than 8192 bytes",
            ),
        ] {
            assert_eq!(greeting.failed(seen).to_string(), sentence);
        }
    }

    #[test]
    fn progress_is_the_latest_step() {
        let progress = Progress::default();
        assert_eq!(progress.step().name, "start");
        progress.reached(&Step::new("greeting", "220"));
        progress.reached(&Step::new("EHLO", "250"));
        assert_eq!(progress.step(), Step::new("EHLO", "250"));
    }
}
