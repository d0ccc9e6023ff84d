//! What the demo found: rows, takeovers, reports.

use serde::Serialize;

use super::error::DemoError;
use super::takeover::Takeover;
use crate::lines::{ChurnReport, Report};

/// One line of the summary: something measured, and the bound that it has to keep.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    /// The act it belongs to.
    pub act: String,
    /// What was measured.
    pub what: String,
    /// What came out.
    pub measured: String,
    /// What it has to be.
    pub bound: String,
    /// Whether it is.
    pub ok: bool,
}

/// The result of a run. Serialized names are stable: programs read them.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Outcome {
    /// Every check, in the order of the acts.
    pub rows: Vec<Row>,
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
        !self.rows.is_empty() && self.rows.iter().all(|row| row.ok)
    }

    /// As JSON, with `ok` for [`Self::holds`].
    ///
    /// # Errors
    /// A number that JSON cannot express.
    pub fn json(&self) -> Result<String, DemoError> {
        let mut value = serde_json::to_value(self)?;
        if let Some(object) = value.as_object_mut() {
            object.insert("ok".to_owned(), self.holds().into());
        }
        Ok(serde_json::to_string_pretty(&value)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_failed_row_fails_the_run() {
        let row = |ok| Row {
            act: "a".to_owned(),
            what: "w".to_owned(),
            measured: "m".to_owned(),
            bound: "b".to_owned(),
            ok,
        };
        let mut outcome = Outcome::default();
        assert!(!outcome.holds(), "nothing was shown");
        outcome.rows.push(row(true));
        assert!(outcome.holds());
        outcome.rows.push(row(false));
        assert!(!outcome.holds());
        assert!(outcome.json().unwrap().contains("\"ok\": false"));
    }
}
