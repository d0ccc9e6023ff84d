//! What keeps a run from being made, or from being judged.

use std::io;
use std::path::PathBuf;

use crate::cluster::ClusterError;
use crate::history::{HistoryError, RecordError};
use crate::lab::LabError;
use crate::report::ReportError;

/// Why there is no verdict.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The lab.
    #[error(transparent)]
    Lab(#[from] LabError),
    /// The cluster.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The history cannot be begun or read.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// The history is not whole.
    #[error(transparent)]
    Recording(#[from] RecordError),
    /// The report cannot be written.
    #[error(transparent)]
    Report(#[from] ReportError),
    /// A file of the report.
    #[error("cannot {what} {}", path.display())]
    File {
        /// What was attempted.
        what: &'static str,
        /// Which file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}

impl RunError {
    /// For `map_err`.
    pub(super) fn file(
        what: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { what, path, source }
    }
}
