//! The table at the end.

use std::fmt::Write as _;
use std::io::{self, Write as _};

use super::outcome::Outcome;
use super::rows::{Row, Rows};
use super::timeline;

/// Every timeline and row of `outcome`, for people.
pub(super) fn table(outcome: &Outcome) -> String {
    let mut text = String::new();
    // One is drawn whole; of the others the figures have to do, so that everything fits on a screen.
    let mut takeovers = outcome.takeovers.iter();
    if let Some(first) = takeovers.next() {
        let _ = write!(text, "\n{}", timeline::draw(first));
    }
    for takeover in takeovers {
        text.push_str(&timeline::figures(takeover));
    }
    text.push_str(&checks_table(&outcome.rows, outcome.elapsed_ms));
    text
}

/// The rows under their acts, and how many failed.
pub(crate) fn checks_table(checks: &Rows, elapsed_ms: u64) -> String {
    let rows = checks.all();
    let mut text = String::from("\n");
    let width = |of: fn(&Row) -> &str, title: &str| {
        let widths = rows.iter().map(|row| of(row).chars().count());
        widths.chain([title.len()]).max().unwrap_or_default()
    };
    let what = width(|row| &row.what, "CHECK");
    let measured = width(|row| &row.measured, "MEASURED");
    let bound = width(|row| &row.bound, "BOUND");
    let mut act = "";
    for row in rows {
        if row.act != act {
            act = &row.act;
            let _ = writeln!(text, "{act}");
        }
        let held = if row.ok { "ok" } else { "FAILED" };
        let _ = writeln!(
            text,
            "  {:<what$}  {:<measured$}  {:<bound$}  {held}",
            row.what, row.measured, row.bound
        );
    }
    let failed = rows.iter().filter(|row| !row.ok).count();
    let verdict = match failed {
        // A run without rows proved nothing.
        0 if !rows.is_empty() => format!("all {} checks held", rows.len()),
        _ => format!("{failed} of {} checks FAILED", rows.len()),
    };
    let seconds = std::time::Duration::from_millis(elapsed_ms).as_secs_f64();
    let _ = write!(text, "\n{verdict}, in {seconds:.0} s");
    text
}

/// To standard output; a reader that has seen enough is no failure.
pub(crate) fn print(text: &str) {
    let _ = writeln!(io::stdout(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_stand_under_their_act_and_failures_are_counted() {
        let mut outcome = Outcome {
            elapsed_ms: 21_400,
            ..Outcome::default()
        };
        for (act, rows) in [
            ("one", &[("a", true), ("longer", false)][..]),
            ("two", &[("b", true)]),
        ] {
            outcome.rows.begin(act);
            for (what, ok) in rows {
                outcome.rows.push(*what, "3 ms", "<= 5 ms", *ok);
            }
        }
        let text = table(&outcome);
        assert_eq!(
            text.lines().collect::<Vec<_>>(),
            [
                "",
                "one",
                "  a       3 ms      <= 5 ms  ok",
                "  longer  3 ms      <= 5 ms  FAILED",
                "two",
                "  b       3 ms      <= 5 ms  ok",
                "",
                "1 of 3 checks FAILED, in 21 s",
            ]
        );
    }
}
