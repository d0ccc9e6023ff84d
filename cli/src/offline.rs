//! Configuration files: read, checked without the cluster, and their problems drawn at their place.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::net::IpAddr;
use std::ops::Range;
use std::path::Path;

use model::conf::{self, Code, Config, Diagnostic, FILE_BYTES_MAX, Severity};

use crate::failure::Failure;
use crate::json::Problem;
use crate::output::printable;

/// A configuration file and what is wrong with it.
pub(crate) struct Checked {
    /// What to call the file.
    pub(crate) name: String,
    /// Its text; exactly that of the file if there is no error.
    pub(crate) source: String,
    /// What it says, unless the text alone shows an error.
    pub(crate) config: Option<Config>,
    diagnostics: Vec<Diagnostic>,
}

/// Reads and checks `path`; `-` is stdin.
pub(crate) fn check(path: &Path) -> Result<Checked, Failure> {
    Ok(check_by_itself(path)?.0)
}

/// Reads and checks `path`, with the addresses of `hosts`; returns those that it needs. A name without one is an error.
pub(crate) fn check_with_hosts(
    path: &Path,
    hosts: &BTreeMap<String, IpAddr>,
) -> Result<(Checked, BTreeMap<String, IpAddr>), Failure> {
    let (mut file, checked) = check_by_itself(path)?;
    let needed = checked.config.as_ref().map(|config| {
        let names = config.host_names().into_iter();
        names
            .filter_map(|name| Some((name.to_owned(), *hosts.get(name)?)))
            .collect()
    });
    let needed = needed.unwrap_or_default();
    file.diagnostics
        .extend(checked.check_resolved(&file.name, &file.source, &needed));
    Ok((file, needed))
}

fn check_by_itself(path: &Path) -> Result<(Checked, conf::Checked), Failure> {
    let bytes = read(path).map_err(|source| Failure::File {
        path: path.to_owned(),
        source,
    })?;
    let name = if is_stdin(path) {
        "stdin".to_owned()
    } else {
        printable(&path.to_string_lossy()).into_owned()
    };
    let checked = conf::check_bytes(&name, &bytes);
    let file = Checked {
        diagnostics: checked.diagnostics.clone(),
        config: checked.config.clone(),
        source: String::from_utf8_lossy(&bytes).into_owned(),
        name,
    };
    Ok((file, checked))
}

/// Whether `path` stands for stdin.
pub(crate) fn is_stdin(path: &Path) -> bool {
    path == Path::new("-")
}

/// One byte more than a configuration may have is read, so that too large a file is known to be one.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let bytes_max = u64::try_from(FILE_BYTES_MAX).map_or(u64::MAX, |max| max + 1);
    let mut bytes = Vec::new();
    if is_stdin(path) {
        io::stdin().lock().take(bytes_max).read_to_end(&mut bytes)?;
    } else {
        File::open(path)?.take(bytes_max).read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

impl Checked {
    /// Whether no cluster would take it.
    pub(crate) fn has_errors(&self) -> bool {
        let mut severities = self.diagnostics.iter().map(|found| found.severity);
        severities.any(|severity| severity == Severity::Error)
    }

    /// Every problem, in the order of the file.
    pub(crate) fn problems(&self) -> Vec<Problem> {
        self.diagnostics.iter().map(Problem::from).collect()
    }

    /// Every problem, drawn over the text; empty when there are none.
    pub(crate) fn render(&self, color: bool) -> String {
        self.draw(&self.diagnostics, color)
    }

    /// Draws those of `problems`, found by the cluster, that were not found here.
    pub(crate) fn render_further(&self, problems: &[Problem], color: bool) -> String {
        let known = self.problems();
        let is_known = |problem: &Problem| {
            let same = |other: &Problem| {
                (&other.code, other.line, other.column)
                    == (&problem.code, problem.line, problem.column)
            };
            known.iter().any(same)
        };
        let mut text = String::new();
        let mut placed = Vec::new();
        for problem in problems.iter().filter(|problem| !is_known(problem)) {
            match self.place(problem) {
                Some(diagnostic) => placed.push(diagnostic),
                None => text.push_str(&sentence(problem)),
            }
        }
        text + &self.draw(&placed, color)
    }

    fn draw(&self, diagnostics: &[Diagnostic], color: bool) -> String {
        // The renderer shows control characters of everything but of this.
        let mut diagnostics = diagnostics.to_vec();
        for help in diagnostics
            .iter_mut()
            .filter_map(|found| found.help.as_mut())
        {
            *help = printable(help).into_owned();
        }
        conf::render(&diagnostics, &self.name, &self.source, color)
    }

    /// A problem of the cluster as one of our own; `None` if it has no place in the file or is of a kind unknown here.
    fn place(&self, problem: &Problem) -> Option<Diagnostic> {
        let code = Code::ALL
            .iter()
            .find(|code| code.as_str() == problem.code)?;
        let line = usize::try_from(problem.line?).ok()?;
        let column = usize::try_from(problem.column?).ok()?;
        Some(Diagnostic {
            severity: problem.severity,
            code: *code,
            file: self.name.clone(),
            line,
            column,
            span: word_at(&self.source, line, column)?,
            message: problem.message.clone(),
            label: None,
            help: problem.hint.clone(),
            related: Vec::new(),
        })
    }
}

/// The bytes of the word that begins at a line and a column in characters, both from 1.
fn word_at(source: &str, line: usize, column: usize) -> Option<Range<usize>> {
    let line = source.split('\n').nth(line.checked_sub(1)?)?;
    let (column, _) = line.char_indices().nth(column.checked_sub(1)?)?;
    let rest = line.get(column..)?;
    let start = line.as_ptr().addr() - source.as_ptr().addr() + column;
    let length = rest.find(char::is_whitespace).unwrap_or(rest.len());
    Some(start..start + length)
}

fn sentence(problem: &Problem) -> String {
    let severity = match problem.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    };
    let at = match (problem.line, problem.column) {
        (Some(line), Some(column)) => format!(":{line}:{column}"),
        (Some(line), None) => format!(":{line}"),
        (None, _) => String::new(),
    };
    let hint = problem
        .hint
        .as_ref()
        .map_or_else(String::new, |hint| format!(" ({hint})"));
    let (file, message) = (&problem.file, &problem.message);
    let text = format!("{file}{at}: {severity}[{}]: {message}{hint}", problem.code);
    format!("{}\n", printable(&text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_found_by_line_and_column() {
        let source = "ab cd\n\tüx yz\n";
        let word = |line, column| word_at(source, line, column).map(|span| &source[span]);
        assert_eq!(word(1, 1), Some("ab"));
        assert_eq!(word(1, 4), Some("cd"));
        assert_eq!(word(2, 2), Some("üx"));
        assert_eq!(word(2, 5), Some("yz"));
        for (line, column) in [(0, 1), (1, 0), (1, 6), (2, 99), (9, 1)] {
            assert_eq!(word(line, column), None, "{line}:{column}");
        }
    }
}
