//! What the demo found: takeovers, reports, and the rows.

use serde::Serialize;

use super::error::DemoError;
use super::rows::{self, Rows};
use super::takeover::Takeover;
use crate::lines::{ChurnReport, Report};

/// The result of a run. Serialized names are stable: programs read them.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Outcome {
    /// Every check, in the order of the acts.
    pub rows: Rows,
    /// Every takeover, by phase.
    pub takeovers: Vec<Takeover>,
    /// Time to open a connection through the VIP, in milliseconds.
    pub connect: Option<Connect>,
    /// The numbered lines of the 100 connections.
    pub lines: Report,
    /// Connections that came and went meanwhile.
    pub churn: ChurnReport,
    /// Frames that spoke for the VIP.
    pub frames_heard: usize,
    /// Of those, frames the observer lost.
    pub frames_missed: u64,
    /// How long everything took.
    pub elapsed_ms: u64,
}

/// Time to open a connection, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Connect {
    /// Connections opened.
    pub count: usize,
    /// Half took no longer, through the VIP.
    pub median_ms: f64,
    /// 95 of 100 took no longer.
    pub p95_ms: f64,
    /// Half took no longer, straight to a server: what the path costs without the cluster.
    pub direct_median_ms: f64,
}

impl Outcome {
    /// Whether every row held; a run without rows proved nothing.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.rows.hold()
    }

    /// As JSON, with `ok` for [`Self::holds`].
    ///
    /// # Errors
    /// A number that JSON cannot express.
    pub fn json(&self) -> Result<String, DemoError> {
        Ok(rows::json(self, &self.rows)?)
    }
}
