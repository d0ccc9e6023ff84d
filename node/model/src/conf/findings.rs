//! Findings while they are gathered: bounded, put in the order of the file, with guesses at what was meant.

use std::ops::Range;

use super::code::Code;
use super::diagnostic::{Finding, Severity};

/// Findings in a file, bounded.
#[derive(Debug, Default)]
pub(super) struct Findings {
    kept: Vec<Finding<Range<usize>>>,
    errors: usize,
    warnings: usize,
}

impl Findings {
    /// Nobody reads more, and a hostile file of 1 MiB could have half a million.
    const KEPT_OF_EACH_SEVERITY_MAX: usize = 200;

    pub(super) fn push(&mut self, finding: Finding<Range<usize>>) {
        let count = match finding.severity {
            Severity::Error => &mut self.errors,
            Severity::Warning => &mut self.warnings,
        };
        *count += 1;
        if *count <= Self::KEPT_OF_EACH_SEVERITY_MAX {
            self.kept.push(finding);
        }
    }

    pub(super) fn errors(&self) -> usize {
        self.errors
    }

    pub(super) fn has_errors(&self) -> bool {
        self.errors > 0
    }

    /// Whether a further error would only be counted, so that looking for its cure is in vain.
    pub(super) fn is_full_of_errors(&self) -> bool {
        self.errors >= Self::KEPT_OF_EACH_SEVERITY_MAX
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// In the order of the file; the last one tells how many were left out.
    pub(super) fn into_sorted(mut self) -> Vec<Finding<Range<usize>>> {
        self.kept
            .sort_by_key(|finding| (finding.at.start, finding.severity));
        let left_out = |count: usize| count.saturating_sub(Self::KEPT_OF_EACH_SEVERITY_MAX);
        let (errors, warnings) = (left_out(self.errors), left_out(self.warnings));
        if errors + warnings > 0 {
            let severity = if errors > 0 {
                Severity::Error
            } else {
                Severity::Warning
            };
            let message =
                format!("{errors} more errors and {warnings} more warnings are not shown");
            let end = self.kept.last().map_or(0, |finding| finding.at.end);
            self.kept.push(Finding::new(
                severity,
                Code::TooManyProblems,
                end..end,
                message,
            ));
        }
        self.kept
    }
}

/// The candidate that `word` may have been meant to be.
pub(super) fn suggest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    // More than anybody has names; keeps the search short for a hostile file.
    const CANDIDATES_MAX: usize = 1000;
    const WORD_BYTES_MAX: usize = 64;
    if word.len() > WORD_BYTES_MAX {
        return None;
    }
    let wanted = word.to_ascii_lowercase();
    let tolerance = (word.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .take(CANDIDATES_MAX)
        .filter(|candidate| candidate.len() <= WORD_BYTES_MAX)
        .map(|candidate| {
            (
                strsim::osa_distance(&wanted, &candidate.to_ascii_lowercase()),
                candidate,
            )
        })
        .filter(|(distance, _)| *distance <= tolerance)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggestions_are_close() {
        let candidates = ["smtp", "imap", "pop"];
        for (word, expected) in [
            ("smpt", Some("smtp")),
            ("IMAP", Some("imap")),
            ("http", None),
            ("", None),
        ] {
            assert_eq!(suggest(word, candidates), expected, "{word}");
        }
    }

    #[test]
    fn findings_are_bounded_and_say_so() {
        let mut findings = Findings::default();
        for at in 0..1000 {
            findings.push(Finding::warning(Code::PoolNotUsed, at..at, ""));
        }
        findings.push(Finding::error(Code::BadName, 0..1, "late, but an error"));
        assert!(findings.has_errors());
        let sorted = findings.into_sorted();
        assert_eq!(sorted.len(), 202);
        assert_eq!(sorted[0].code, Code::BadName);
        assert_eq!(
            sorted[201].message,
            "0 more errors and 800 more warnings are not shown"
        );
    }
}
