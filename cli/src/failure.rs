//! What can become of a command that is not done, in words and as an exit code.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use dataplane::offline::CaptureError;

use crate::endpoint::Endpoint;
use crate::output;

/// Why a command is not done. The variants differ in what the operator can do about it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The cluster heard it and said no; nothing was changed.
    #[error("refused: {0}")]
    Refused(String),
    /// A file has errors; they have been shown.
    #[error("{file}: the configuration is invalid")]
    Invalid { file: String },
    #[error("cannot read {}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    /// A capture that cannot be read, or not to its end.
    #[error("cannot read {}: {source}", path.display())]
    Capture { path: PathBuf, source: CaptureError },
    /// A file of host names that cannot be used.
    #[error("{}:{line}: {why}", path.display())]
    Hosts {
        path: PathBuf,
        line: usize,
        why: String,
    },
    /// Options that contradict one another, or the configuration.
    #[error("{0}")]
    Usage(String),
    /// A file for results.
    #[error("cannot write {}: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
    /// Nobody there, or no answer in time.
    #[error("cannot reach {endpoint}: {why} (is atmd running there? --endpoint names another ATM)")]
    Unreachable { endpoint: Endpoint, why: String },
    /// An ATM answered that it cannot: no leader, no quorum.
    #[error("cannot reach the cluster through {endpoint}: {why} (--endpoint names another ATM)")]
    Unavailable { endpoint: Endpoint, why: String },
    /// The request to change something was sent and its fate is not known.
    #[error(
        "cannot reach {endpoint}: {why}; it may have been done all the same (`atmctl status` and `atmctl config show` tell)"
    )]
    Unknown { endpoint: Endpoint, why: String },
    #[error("cannot write the answer: {0}")]
    Output(io::Error),
    #[error("cannot start: {0}")]
    Runtime(io::Error),
}

/// sysexits.h.
const EX_UNAVAILABLE: u8 = 69;
const EX_OSERR: u8 = 71;
const EX_IOERR: u8 = 74;

impl Failure {
    /// Tells the operator on stderr, and the shell by the code.
    pub(crate) fn report(&self) -> ExitCode {
        output::say(format_args!(
            "error: {}",
            output::printable(&self.to_string())
        ));
        ExitCode::from(self.code())
    }

    fn code(&self) -> u8 {
        match self {
            Self::Refused(_) | Self::Invalid { .. } => 1,
            Self::File { .. } | Self::Capture { .. } | Self::Hosts { .. } | Self::Usage(_) => 2,
            Self::Unreachable { .. } | Self::Unavailable { .. } | Self::Unknown { .. } => {
                EX_UNAVAILABLE
            }
            Self::Output(_) | Self::Write { .. } => EX_IOERR,
            Self::Runtime(_) => EX_OSERR,
        }
    }
}
