//! What ends the demo, or one act of it.

use crate::lab::LabError;

/// Why the demo, or an act of it, does not go on.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// This machine cannot run it.
    #[error("the demo cannot run here: {0}")]
    Unavailable(String),
    /// The lab failed.
    #[error(transparent)]
    Lab(#[from] LabError),
    /// Something that had to happen did not.
    #[error("{what} did not happen within {seconds:.0} s{}", last.as_deref().map(|l| format!(" ({l})")).unwrap_or_default())]
    Late {
        /// What was waited for.
        what: String,
        /// How long.
        seconds: f64,
        /// What was seen last.
        last: Option<String>,
    },
    /// A command refused.
    #[error("{command} failed ({status}): {said}")]
    Refused {
        /// The command line.
        command: String,
        /// Its exit status.
        status: String,
        /// What it wrote to stderr.
        said: String,
    },
    /// An answer that is none.
    #[error("{command} answered something else than expected: {reason}")]
    Answer {
        /// The command line.
        command: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Mail was not sent or not found.
    #[error("mail: {0}")]
    Mail(String),
    /// The result cannot be written as JSON.
    #[error("the result cannot be written: {0}")]
    Result(#[from] serde_json::Error),
    /// Ctrl-C, or SIGTERM.
    #[error("interrupted")]
    Interrupted,
}

impl DemoError {
    /// Exit code of sysexits(3): 69 where the machine cannot run the demo, else what the lab says, else 1.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Unavailable(_) => 69,
            Self::Lab(error) => error.exit_code(),
            Self::Late { .. }
            | Self::Refused { .. }
            | Self::Answer { .. }
            | Self::Mail(_)
            | Self::Result(_)
            | Self::Interrupted => 1,
        }
    }
}
