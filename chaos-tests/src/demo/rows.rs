//! The rows of a run, act by act.

use std::error::Error;

use serde::Serialize;

use crate::lab::with_causes;

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

/// Every check, in the order of the acts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Rows {
    rows: Vec<Row>,
    #[serde(skip)]
    act: String,
    /// Number of rows when the act began.
    #[serde(skip)]
    before: usize,
}

impl Rows {
    /// The next act begins.
    pub(crate) fn begin(&mut self, act: &str) {
        act.clone_into(&mut self.act);
        self.before = self.rows.len();
    }

    /// Something was measured.
    pub(crate) fn push(
        &mut self,
        what: impl Into<String>,
        measured: impl Into<String>,
        bound: impl Into<String>,
        ok: bool,
    ) {
        self.rows.push(Row {
            act: self.act.clone(),
            what: what.into(),
            measured: measured.into(),
            bound: bound.into(),
            ok,
        });
    }

    /// The act could not go on. Returns why, as the row says it.
    pub(crate) fn failed(&mut self, error: &dyn Error) -> String {
        let text = with_causes(error);
        self.push("goes to its end", &text, "no error", false);
        text
    }

    /// An earlier act could not go on, so this one was not tried. Returns these words.
    pub(crate) fn not_reached(&mut self) -> &'static str {
        let text = "not tried";
        self.push("goes to its end", text, "no error", false);
        text
    }

    /// Those of the act.
    pub(crate) fn of_act(&self) -> &[Row] {
        &self.rows[self.before..]
    }

    /// Whether those of the act held.
    pub(crate) fn act_holds(&self) -> bool {
        self.of_act().iter().all(|row| row.ok)
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> &[Row] {
        &self.rows
    }

    /// Whether every row held; a run without rows proved nothing.
    #[must_use]
    pub fn hold(&self) -> bool {
        !self.rows.is_empty() && self.rows.iter().all(|row| row.ok)
    }
}

/// `outcome` as JSON, with `ok` for whether its `rows` hold.
///
/// # Errors
/// A number that JSON cannot express.
pub(crate) fn json(outcome: &impl Serialize, rows: &Rows) -> Result<String, serde_json::Error> {
    let mut value = serde_json::to_value(outcome)?;
    if let Some(object) = value.as_object_mut() {
        object.insert("ok".to_owned(), rows.hold().into());
    }
    serde_json::to_string_pretty(&value)
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use super::*;
    use crate::lab::LabError;

    #[test]
    fn one_failed_row_fails_the_run_and_its_act() {
        let mut rows = Rows::default();
        assert!(!rows.hold(), "nothing was shown");
        rows.begin("one");
        rows.push("w", "m", "b", true);
        assert!(rows.hold() && rows.act_holds());
        rows.push("w", "m", "b", false);
        assert!(!rows.hold() && !rows.act_holds());
        rows.begin("two");
        rows.push("w", "m", "b", true);
        assert!(!rows.hold() && rows.act_holds());
        assert_eq!(rows.of_act().len(), 1);
        assert!(
            json(&rows.all()[0], &rows)
                .unwrap()
                .contains("\"ok\": false")
        );
    }

    #[test]
    fn an_act_that_could_not_go_on_tells_every_cause_and_the_next_one_was_not_tried() {
        let mut rows = Rows::default();
        rows.begin("one");
        let error = LabError::Io {
            what: "open a socket".to_owned(),
            source: ErrorKind::PermissionDenied.into(),
        };
        assert_eq!(
            rows.failed(&error),
            "cannot open a socket: permission denied"
        );
        rows.begin("two");
        rows.not_reached();
        let told = rows.all().iter();
        let told: Vec<_> = told
            .map(|row| (&*row.act, &*row.measured, row.ok))
            .collect();
        assert_eq!(
            told,
            [
                ("one", "cannot open a socket: permission denied", false),
                ("two", "not tried", false)
            ]
        );
    }
}
