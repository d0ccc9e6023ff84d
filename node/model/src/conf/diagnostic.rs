//! What is wrong with a configuration, where, and what to do about it.

use std::fmt;
use std::ops::Range;

use serde::Serialize;

use super::code::Code;

/// Whether a configuration can be used in spite of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The configuration is refused.
    Error,
    /// The configuration can be used; it probably says something that was not meant.
    Warning,
}

/// One problem at a place of type `P`: a span of the file, or a part of a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding<P> {
    /// Whether the configuration is refused.
    pub severity: Severity,
    /// The kind.
    pub code: Code,
    /// The place at fault.
    pub at: P,
    /// One sentence that names the thing.
    pub message: String,
    /// What to write beside the underlined text.
    pub label: Option<String>,
    /// The way out.
    pub help: Option<String>,
    /// Other places that matter, and why.
    pub related: Vec<(P, String)>,
}

impl<P> Finding<P> {
    pub(super) fn error(code: Code, at: P, message: impl Into<String>) -> Self {
        Self::new(Severity::Error, code, at, message.into())
    }

    pub(super) fn warning(code: Code, at: P, message: impl Into<String>) -> Self {
        Self::new(Severity::Warning, code, at, message.into())
    }

    pub(super) fn new(severity: Severity, code: Code, at: P, message: String) -> Self {
        Self {
            severity,
            code,
            at,
            message,
            label: None,
            help: None,
            related: Vec::new(),
        }
    }

    pub(super) fn label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// `did you mean …?`, if there is something that may have been meant; it replaces an earlier help.
    pub(super) fn did_you_mean(self, suggestion: Option<&str>) -> Self {
        match suggestion {
            Some(suggestion) => self.help(format!("did you mean `{suggestion}`?")),
            None => self,
        }
    }

    pub(super) fn related(mut self, at: P, label: impl Into<String>) -> Self {
        self.related.push((at, label.into()));
        self
    }

    /// The same finding at other places.
    pub(super) fn moved<Q>(self, place: impl Fn(P) -> Q) -> Finding<Q> {
        Finding {
            severity: self.severity,
            code: self.code,
            at: place(self.at),
            message: self.message,
            label: self.label,
            help: self.help,
            related: self
                .related
                .into_iter()
                .map(|(at, label)| (place(at), label))
                .collect(),
        }
    }
}

impl<P> fmt::Display for Finding<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        self.help
            .as_ref()
            .map_or(Ok(()), |help| write!(f, " ({help})"))
    }
}

/// A problem at its place in a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// Whether the configuration is refused.
    pub severity: Severity,
    /// The kind.
    pub code: Code,
    /// The file, as the caller named it.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// Bytes of the offending text, on character boundaries; may be empty.
    pub span: Range<usize>,
    /// One sentence that names the thing.
    pub message: String,
    /// What to write beside the underlined text.
    pub label: Option<String>,
    /// The way out.
    pub help: Option<String>,
    /// Other places that matter.
    pub related: Vec<Related>,
}

/// Another place that a problem is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Related {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// Bytes of the text.
    pub span: Range<usize>,
    /// Why it matters.
    pub label: String,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(
            f,
            "{}:{}:{}: {severity}: {}",
            self.file, self.line, self.column, self.message
        )?;
        self.help
            .as_ref()
            .map_or(Ok(()), |help| write!(f, " ({help})"))
    }
}

/// Where the lines of a file begin.
pub(super) struct LineIndex<'a> {
    source: &'a str,
    starts: Vec<usize>,
}

impl<'a> LineIndex<'a> {
    pub(super) fn new(source: &'a str) -> Self {
        let starts = std::iter::once(0)
            .chain(source.match_indices('\n').map(|(at, _)| at + 1))
            .collect();
        Self { source, starts }
    }

    /// Line and column, both from 1, of a byte.
    pub(super) fn position(&self, byte: usize) -> (usize, usize) {
        let byte = self.source.floor_char_boundary(byte);
        let line = self.starts.partition_point(|start| *start <= byte);
        let start = line
            .checked_sub(1)
            .and_then(|line| self.starts.get(line))
            .copied()
            .unwrap_or_default();
        (
            line,
            self.source
                .get(start..byte)
                .map_or(0, |before| before.chars().count())
                + 1,
        )
    }

    pub(super) fn diagnostic(&self, file: &str, finding: Finding<Range<usize>>) -> Diagnostic {
        let (line, column) = self.position(finding.at.start);
        let related = finding.related.into_iter().map(|(span, label)| {
            let (line, column) = self.position(span.start);
            Related {
                line,
                column,
                span,
                label,
            }
        });
        Diagnostic {
            severity: finding.severity,
            code: finding.code,
            file: file.to_owned(),
            line,
            column,
            span: finding.at,
            message: finding.message,
            label: finding.label,
            help: finding.help,
            related: related.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_lines_and_characters() {
        let index = LineIndex::new("ab\näöü x\n\nz");
        for (byte, expected) in [
            (0, (1, 1)),
            (2, (1, 3)),
            (3, (2, 1)),
            (10, (2, 5)),
            (12, (3, 1)),
            (13, (4, 1)),
            (99, (4, 2)),
        ] {
            assert_eq!(index.position(byte), expected, "byte {byte}");
        }
        assert_eq!(LineIndex::new("").position(0), (1, 1));
    }
}
