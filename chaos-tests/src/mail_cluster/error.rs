//! What ends the mail demo, or one act of it.

use crate::cluster::ClusterError;
use crate::lab::LabError;

/// Why the mail cluster, or an act of its demo, does not go on.
#[derive(Debug, thiserror::Error)]
pub enum MailClusterError {
    /// Packages are not installed.
    #[error("packages are missing: {list}; `make mail-demo` installs them as root, or: apt-get install {list}", list = .0.join(" "))]
    Missing(Vec<String>),
    /// Users, owners and mounts of the mail servers are real ones.
    #[error("real mail daemons need root; this is a user namespace")]
    NotRoot,
    /// The lab failed.
    #[error(transparent)]
    Lab(#[from] LabError),
    /// The cluster failed, or something did not happen in time.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// A client failed.
    #[error("{command} failed ({status}): {said}")]
    Client {
        /// The command line.
        command: String,
        /// Its exit status.
        status: String,
        /// What it wrote.
        said: String,
    },
    /// A client said something that cannot be understood.
    #[error("{command} said something else than expected: {reason}")]
    Answer {
        /// The command line.
        command: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The result cannot be written as JSON.
    #[error("the result cannot be written: {0}")]
    Result(#[from] serde_json::Error),
}

impl MailClusterError {
    /// Exit code of sysexits(3): 69 where the machine cannot run it, else what the lab says, else 1.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Missing(_) | Self::NotRoot => 69,
            Self::Lab(error) => error.exit_code(),
            Self::Cluster(ClusterError::Lab { source }) => source.exit_code(),
            Self::Cluster(_) | Self::Client { .. } | Self::Answer { .. } | Self::Result(_) => 1,
        }
    }

    /// Whether this machine cannot run it at all, so that a test says "skipped".
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        matches!(self, Self::Missing(_) | Self::NotRoot)
    }
}
