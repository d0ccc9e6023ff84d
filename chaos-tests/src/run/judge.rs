//! The judgement over what a run left in its folder.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::RunError;
use crate::checkers::{Distribution, Rules, Verdicts, check_with, outages};
use crate::history::History;
use crate::report;

/// The history in a report folder.
pub const HISTORY_FILE: &str = "history.jsonl";

/// The schedule in a report folder.
pub const SCHEDULE_FILE: &str = "schedule.json";

/// The judgement in a report folder.
const JUDGEMENT_FILE: &str = "judgement.json";

/// What a run came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Judgement {
    /// What every checker says.
    pub verdicts: Verdicts,
    /// What did not come true once everything was healed, and what else went wrong.
    pub missing: Vec<String>,
    /// Outages by kind of fault.
    pub outages: BTreeMap<String, Distribution>,
    /// The share of the time in which probes were answered.
    pub available: BTreeMap<String, f64>,
    /// Events of the history.
    pub events: usize,
}

/// Judges the history in `folder`, adds what is `missing`, and leaves the judgement and the report there, with copies of `logs`.
///
/// # Errors
/// There is no history, or the report cannot be written.
pub fn judge(folder: &Path, missing: Vec<String>, logs: &[PathBuf]) -> Result<Judgement, RunError> {
    let history = History::read(&folder.join(HISTORY_FILE))?;
    let rules = Rules::default();
    let outages = outages(&history, &rules);
    let judgement = Judgement {
        verdicts: check_with(&history, &rules),
        missing,
        outages: outages.by_fault,
        available: outages.share,
        events: history.events.len(),
    };
    let file = folder.join(JUDGEMENT_FILE);
    fs::write(&file, judgement.json()).map_err(RunError::file("write", &file))?;
    let schedule = fs::read(folder.join(SCHEDULE_FILE)).ok();
    let schedule = schedule.and_then(|text| serde_json::from_slice(&text).ok());
    let schedule: serde_json::Value = schedule.unwrap_or_default();
    let seed = schedule.get("seed").map(ToString::to_string);
    let facts = [
        ("seed", seed.unwrap_or_default()),
        ("rung", "namespaces".to_owned()),
        ("again", format!("chaos replay {SCHEDULE_FILE}")),
        ("missing", judgement.missing.join("; ")),
    ];
    report::write(
        folder,
        &report::Run {
            title: "chaos run",
            facts: &facts,
            history: &history,
            schedule: &schedule,
            verdicts: &judgement.verdicts,
            rules: &rules,
            logs,
        },
    )?;
    Ok(judgement)
}

/// Judges a stored run again. What was missing at its end is taken over from the judgement of that time.
///
/// # Errors
/// As [`judge`].
pub fn check(folder: &Path) -> Result<Judgement, RunError> {
    let before = fs::read(folder.join(JUDGEMENT_FILE)).ok();
    let before: Option<Judgement> = before.and_then(|text| serde_json::from_slice(&text).ok());
    let missing = match before {
        Some(before) => before.missing,
        None => vec!["no judgement was made when the run ended".to_owned()],
    };
    judge(folder, missing, &[])
}

impl Judgement {
    /// Whether every promise was kept, as far as was seen, and nothing is missing.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.verdicts.passed() && self.missing.is_empty()
    }

    /// For programs.
    #[must_use]
    pub fn json(&self) -> String {
        // Maps with string keys, numbers and texts always have a JSON form.
        serde_json::to_string_pretty(self).unwrap_or_default()
    }
}

impl fmt::Display for Judgement {
    /// For people.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.verdicts)?;
        if !self.outages.is_empty() {
            let (fault, count) = ("outage after", "n");
            writeln!(
                f,
                "{fault:<24} {count:>4} {:>9} {:>9} {:>9}",
                "min", "median", "max"
            )?;
        }
        for (fault, lengths) in &self.outages {
            let ms = |ns: u64| format!("{} ms", ns / 1_000_000);
            writeln!(
                f,
                "{fault:<24} {:>4} {:>9} {:>9} {:>9}",
                lengths.count,
                ms(lengths.min_ns),
                ms(lengths.median_ns),
                ms(lengths.max_ns)
            )?;
        }
        for (probe, share) in &self.available {
            writeln!(f, "{probe}: answered {:.2} % of the time", share * 100.0)?;
        }
        for missing in &self.missing {
            writeln!(f, "MISSING: {missing}")?;
        }
        let word = if self.passed() { "passed" } else { "FAILED" };
        writeln!(f, "{word}: {} events", self.events)
    }
}
