//! Why a fault of a host's resources cannot be had here.

use std::io;

use crate::lab::LabError;

/// A resource of a host that cannot be had, or not be changed.
#[derive(Debug, thiserror::Error)]
pub enum EquipmentError {
    /// This machine, or this user, does not have it. The text names what is missing.
    #[error("{what} is not available here: {why}")]
    Unavailable {
        /// What a test asked for.
        what: &'static str,
        /// What is missing.
        why: String,
    },
    /// The daemon of the host was started without it.
    #[error("{host} was started without {what}; the cluster needs it among its equipment")]
    NotEquipped {
        /// The host.
        host: String,
        /// What it lacks.
        what: &'static str,
    },
    /// The lab refused.
    #[error(transparent)]
    Lab(#[from] LabError),
    /// A file or system call failed.
    #[error("cannot {what}: {source}")]
    Io {
        /// What was attempted, as it reads after "cannot".
        what: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// A program failed.
    #[error("{command} failed: {said}")]
    Command {
        /// The command line.
        command: String,
        /// What it wrote to stderr.
        said: String,
    },
    /// It did not happen in time.
    #[error("not within {limit_ms} ms: {what}")]
    Late {
        /// What was waited for.
        what: String,
        /// How long.
        limit_ms: u128,
    },
}

impl EquipmentError {
    /// Wraps an [`io::Error`] for `map_err`; `what` reads after "cannot".
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    /// Whether a test that meets this is skipped: nothing is wrong but the machine.
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }
}
