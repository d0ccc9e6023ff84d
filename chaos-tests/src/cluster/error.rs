//! What keeps a cluster under test from being asked or waited for.

use std::io;
use std::time::Duration;

use crate::equipment::EquipmentError;
use crate::lab::{LabError, with_causes};

/// Why a step of a test could not be done; the text is what a failed test shows.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The lab.
    #[error("{}", with_causes(source))]
    Lab {
        /// What it says.
        #[from]
        source: LabError,
    },
    /// What faults of a host's resources need.
    #[error(transparent)]
    Equipment(#[from] EquipmentError),
    /// A condition did not come true in time.
    #[error("not within {limit:?}: {what}; last seen: {last}")]
    Late {
        /// What was waited for.
        what: String,
        /// How long.
        limit: Duration,
        /// What was seen instead.
        last: String,
    },
    /// `atmctl` answered something else than it should.
    #[error("atmctl {args} on {host}: exit {code:?}: {stderr}")]
    Atmctl {
        /// On which host.
        host: String,
        /// The command.
        args: String,
        /// Its exit code.
        code: Option<i32>,
        /// What it said, or what is wrong with its answer.
        stderr: String,
    },
    /// The workload could not be started.
    #[error("cannot {what}: {source}")]
    Workload {
        /// What was attempted.
        what: String,
        /// What the system says.
        source: io::Error,
    },
}
