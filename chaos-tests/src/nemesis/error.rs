//! Why a fault could not strike, or not be undone.

use crate::cluster::ClusterError;
use crate::equipment::EquipmentError;
use crate::lab::LabError;

use super::target::TargetError;

/// A fault that did not strike as it was meant to, or an end that did not restore everything.
#[derive(Debug, thiserror::Error)]
pub enum NemesisError {
    /// The lab refused.
    #[error(transparent)]
    Lab(#[from] LabError),
    /// The cluster did not answer as it should.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// A host lacks what the fault needs.
    #[error(transparent)]
    Equipment(#[from] EquipmentError),
    /// A target names nobody at the moment.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The fault needs daemons to talk to, and the scene is a bare lab.
    #[error("{0} needs a running cluster")]
    NeedsCluster(&'static str),
    /// Something of the system failed.
    #[error("cannot {what}: {source}")]
    Io {
        /// What was attempted, as it reads after "cannot".
        what: String,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// The fault was applied and had no effect, or its end did not bring back what it should.
    #[error("{0}")]
    Ineffective(String),
}

impl NemesisError {
    /// Wraps an [`std::io::Error`] for `map_err`; `what` reads after "cannot".
    pub fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}
