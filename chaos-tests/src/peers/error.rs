//! What keeps a campaign, or one trial of it, from being measured.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::contender::Contender;
use crate::cluster::ClusterError;
use crate::lab::LabError;

/// Why something could not be measured.
#[derive(Debug, thiserror::Error)]
pub enum PeersError {
    /// The cluster under test.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// A command on a host failed.
    #[error("on {host}: `{command}` failed: {said}")]
    Command {
        /// The host.
        host: String,
        /// The command.
        command: String,
        /// What it said.
        said: String,
    },
    /// Something did not come true.
    #[error("not within {limit:?}: {what}")]
    Late {
        /// What was waited for.
        what: String,
        /// How long.
        limit: Duration,
    },
    /// The trial proves nothing: the fault met something else than one calm router.
    #[error("void: {0}")]
    Void(String),
    /// The build has nothing to run under that name.
    #[error("{contender} is not measured: {reason}")]
    Skipped {
        /// Who.
        contender: Contender,
        /// Why.
        reason: String,
    },
    /// The file of results.
    #[error("cannot {what} {path}: {source}", path = path.display())]
    File {
        /// What was attempted.
        what: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A line of the file of results.
    #[error("{path}:{line} is no result: {reason}; --fresh begins anew", path = path.display())]
    Result {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// Results of another campaign are in the way.
    #[error("{path} has results of seed {theirs}; go on without --seed, or begin anew with --fresh", path = path.display())]
    OtherSeed {
        /// The file.
        path: PathBuf,
        /// Its seed.
        theirs: u64,
    },
}

impl From<LabError> for PeersError {
    fn from(error: LabError) -> Self {
        Self::Cluster(error.into())
    }
}

impl PeersError {
    /// For [`PeersError::File`].
    pub(super) fn file(
        what: &'static str,
        path: &std::path::Path,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { what, path, source }
    }
}
